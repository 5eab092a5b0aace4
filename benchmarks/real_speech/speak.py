"""Sentences of real text, spoken by eSpeak NG: an AudioFolder with train and test, **synthetic speech**.

    python -m benchmarks.real_speech.speak da --text TEXT_DIR/da.txt --output-dir speech/da/espeak_prompts [--exclude speech]

The test split has sentences and voices that the training split does not have. The same arguments give the same samples.
`--exclude` leaves out sentences that are transcripts of any split other than `train` of the AudioFolders below a folder.
"""

import argparse
import csv
import io
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from trainers.data.spoken import LEAST, MOST
from trainers.embedded.corpus import Utterance
from trainers.embedded.sentences import LANGUAGES
from trainers.errors import UserError
from trainers.evaluation.normalizers import get_normalizer
from trainers.files import write_text
from trainers.sound import RATE

COLUMNS = ("file_name", "transcription", "speaker_id", "split", "duration", "source", "licence")
HELD_OUT = 200  # sentences of a language that only the test split may have
normalize = get_normalizer("paper")


def held_back_transcripts(root: Path) -> set[str]:
    """The normalised transcripts of every split other than `train` in the AudioFolders below `root`."""
    transcripts: set[str] = set()
    tables = sorted(root.rglob("metadata.csv"))
    if not tables:
        raise UserError(f"{root} holds no metadata.csv at any depth. Give the folder of the AudioFolder data sets.")
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            transcripts.update(
                normalize(row["transcription"]) for row in csv.DictReader(file) if row.get("split") != "train"
            )
    return transcripts


def plan(
    path: Path, train: int, test: int, seed: int, language: str = "da", excluded: frozenset[str] = frozenset()
) -> list[Utterance]:
    """What is spoken: distinct sentences of a fair length, each in one split."""
    lines = dict.fromkeys(normalize(line) for line in path.read_text(encoding="utf-8").splitlines())
    order = [line for line in lines if LEAST <= len(line) <= MOST and line not in excluded]
    random.Random(seed).shuffle(order)
    utterances = []
    for split, found, count in (("test", order[:HELD_OUT], test), ("train", order[HELD_OUT:], train)):
        if len(found) < count:
            raise UserError(f"{path} has {len(found)} sentences for {split!r}, not {count}: ask for fewer.")
        spoken = found[:count]
        utterances += [Utterance(f"{split}-{n:05d}", text, language, split, seed) for n, text in enumerate(spoken)]
    return utterances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=LANGUAGES, help="of the text and of the voices")
    parser.add_argument("--text", type=Path, required=True, help="text of the language, a sentence a line")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1500, help="sentences of the training split")
    parser.add_argument("--test", type=int, default=120, help=f"sentences of the test split, at most {HELD_OUT}")
    parser.add_argument("--exclude", type=Path, help="folder of AudioFolders whose test transcripts are not spoken")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    rows: list[dict[str, Any]] = []
    minutes: dict[str, float] = defaultdict(float)
    excluded = frozenset() if arguments.exclude is None else frozenset(held_back_transcripts(arguments.exclude))
    sentences = plan(arguments.text, arguments.train, arguments.test, arguments.seed, arguments.language, excluded)
    for item in tqdm(sentences, desc="speaking", unit="utt"):
        wave, sound = item.speak()
        path = folder / "clips" / f"{item.id}.flac"  # no sub-folder named as a split, or it would be taken for one
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE)
        seconds = len(wave) / RATE
        minutes[item.split] += seconds / 60
        about = (f"clips/{path.name}", item.text, sound.voice, item.split, f"{seconds:.2f}")
        rows.append(dict(zip(COLUMNS, (*about, "eSpeak NG, synthetic", "CC0-1.0"), strict=True)))
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metadata.csv", table.getvalue())
    for split, value in sorted(minutes.items()):
        print(f"{split}: {sum(row['split'] == split for row in rows)} sentences, {value:.1f} minutes")


if __name__ == "__main__":
    main()
