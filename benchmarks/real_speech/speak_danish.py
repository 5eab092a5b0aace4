"""Danish sentences of real text, spoken by eSpeak NG: an AudioFolder with train and test, **synthetic speech**.

    python -m benchmarks.real_speech.speak_danish --text TEXT_DIR/da.txt --output-dir SPEECH_DA

The test sentences are lines that `pretrain_lm.py` holds out (with the same --seed), spoken in voices that the training split
does not have. The same arguments give the same samples.
"""

import argparse
import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from benchmarks.real_speech.noisy_copy import HELD_OUT, held_out_and_rest, read_lines
from trainers.embedded.corpus import Utterance
from trainers.embedded.speech import SAMPLING_RATE
from trainers.errors import UserError
from trainers.files import write_text

COLUMNS = ("file_name", "transcription", "speaker_id", "split", "duration", "source", "licence")
LEAST, MOST = 15, 100  # characters of a sentence that is spoken


def plan(path: Path, train: int, test: int, seed: int) -> list[Utterance]:
    """What is spoken: sentences of a fair length, each in one split."""
    held_out, rest = held_out_and_rest(read_lines(path, set())[0], seed)
    wanted = {"test": (held_out, test), "train": (rest, train)}
    utterances = []
    for split, (lines, count) in wanted.items():
        spoken = [line for line in lines if LEAST <= len(line) <= MOST][:count]
        if len(spoken) < count:
            raise UserError(f"{path} has {len(spoken)} sentences for {split!r}, not {count}: ask for fewer.")
        utterances += [Utterance(f"{split}-{n:05d}", text, "da", split, seed) for n, text in enumerate(spoken)]
    return utterances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Danish text, a sentence a line")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1500, help="sentences of the training split")
    parser.add_argument("--test", type=int, default=120, help=f"sentences of the test split, at most {HELD_OUT}")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    rows: list[dict[str, Any]] = []
    minutes: dict[str, float] = defaultdict(float)
    for item in tqdm(
        plan(arguments.text, arguments.train, arguments.test, arguments.seed), desc="speaking", unit="utt"
    ):
        wave, sound = item.speak()
        path = folder / "clips" / f"{item.id}.flac"  # no sub-folder named as a split, or it would be taken for one
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, SAMPLING_RATE)
        seconds = len(wave) / SAMPLING_RATE
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
