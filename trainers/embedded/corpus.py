"""The corpus of the embedded default: sentences and speech written as wav files and one JSONL manifest a split."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from trainers.embedded import speech
from trainers.embedded.sentences import LANGUAGES, generate_sentences
from trainers.files import read_jsonl, replacing, sweep, write_json, write_jsonl
from trainers.sound import RATE

FORMAT_VERSION = 1
DEFAULT_SPLIT_SIZES = {"train": 5_001, "validation": 90, "test": 300}
RECORD_NAME = "corpus.json"


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance to be spoken. Its id, language, split and text decide the samples."""

    id: str
    text: str
    language: str
    split: str
    seed: int

    @property
    def sound(self) -> speech.SpeechSettings:
        """How it will be spoken."""
        return speech.settings_of(self.language, self.split, f"{self.seed}/{self.id}")

    def speak(self) -> tuple[Any, speech.SpeechSettings]:
        """float32 samples (16 kHz, mono) and how they were made; see `speech.speak`."""
        return speech.speak(self.text, self.language, self.split, f"{self.seed}/{self.id}")


def plan_utterances(split: str, count: int, seed: int, languages: Sequence[str] = LANGUAGES) -> list[Utterance]:
    """`count` utterances of a split, the languages in turn, so that any prefix is balanced."""
    shares = [count // len(languages) + (index < count % len(languages)) for index in range(len(languages))]
    texts = [
        generate_sentences(language, split, share, seed) for language, share in zip(languages, shares, strict=True)
    ]
    return [
        Utterance(f"{split}-{language}-{position:05d}", texts[index][position], language, split, seed)
        for position in range(max(shares, default=0))
        for index, language in enumerate(languages)
        if position < shares[index]
    ]


def build_corpus(
    directory: str | os.PathLike[str],
    split_sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    processes: int | None = None,
) -> dict[str, Path]:
    """
    Write the corpus and return the path of each split's manifest.

    A finished corpus with the same settings is used again; an unfinished one is completed. Files appear whole or not at all.

    Args:
        split_sizes: utterances a split of `SPLIT_SHARES`, all languages together; `DEFAULT_SPLIT_SIZES` when None.
        languages: some of `LANGUAGES`.
        processes: how many processes speak; the machine's cores, at most four, when None. The result is the same.
    Returns:
        `{split: directory/split.jsonl}`; rows hold audio (relative path), text, language, speaker_id, duration (s), id.
    Raises:
        UserError: for a missing espeakng-loader, or more sentences than a grammar can say.
    """
    directory = Path(directory)
    sizes = dict(DEFAULT_SPLIT_SIZES if split_sizes is None else split_sizes)
    settings: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "split_sizes": sizes,
        "seed": seed,
        "languages": list(languages),
        "voices": {split: list(speech.SPLIT_VARIANTS[split]) for split in sizes},
    }
    plan = {split: plan_utterances(split, size, seed, languages) for split, size in sizes.items()}
    # Texts and sounds are part of it: a changed grammar or speaker must not meet recordings of the old one.
    content = json.dumps(
        [
            settings,
            [[item.id, item.text, dataclasses.astuple(item.sound)] for items in plan.values() for item in items],
        ],
        ensure_ascii=False,
    )
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    record = {"fingerprint": fingerprint, **settings}
    manifests = {split: directory / f"{split}.jsonl" for split in sizes}
    if _finished(directory, record, manifests):
        return manifests

    (directory / RECORD_NAME).unlink(missing_ok=True)
    audio_folder = directory / f"audio-{fingerprint[:12]}"
    jobs = [(item, str(audio_folder / item.split / f"{item.id}.wav")) for items in plan.values() for item in items]
    for split in sizes:
        (audio_folder / split).mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in sizes}
    with tqdm(total=len(jobs), desc="speaking", unit="utt") as progress:
        for (item, path), (speaker, duration) in zip(jobs, speak_files(jobs, processes), strict=True):
            audio = Path(path).relative_to(directory).as_posix()
            rows[item.split].append(
                {
                    "audio": audio,
                    "text": item.text,
                    "language": item.language,
                    "speaker_id": speaker,
                    "duration": duration,
                    "id": item.id,
                }
            )
            progress.update()
    for split, manifest in manifests.items():
        write_jsonl(manifest, rows[split])
    write_json(directory / RECORD_NAME, record)
    return manifests


def process_count(processes: int | None) -> int:
    """The number of processes to use: at most four when the caller does not care."""
    return min(4, os.cpu_count() or 1) if processes is None else processes


def _finished(directory: Path, record: Mapping[str, Any], manifests: Mapping[str, Path]) -> bool:
    """Whether `directory` holds the very corpus that `record` describes, with all its files."""
    try:
        old = json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
        rows = [row for path in manifests.values() for row in read_jsonl(path)]
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(old == dict(record)) and all((directory / row["audio"]).is_file() for row in rows)


def speak_files(jobs: Sequence[tuple[Utterance, str]], processes: int | None = None) -> Iterator[tuple[str, float]]:
    """Speak utterances into the wav files that are named, those that are there already left as they are; speaker and duration of each."""
    for folder in {Path(path).parent for _, path in jobs}:
        sweep(folder)
    count = min(process_count(processes), max(1, len(jobs) // 50))
    if count == 1:
        yield from map(_write_utterance, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch) that a fork would break.
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        yield from pool.imap(_write_utterance, jobs, chunksize=16)


def _write_utterance(job: tuple[Utterance, str]) -> tuple[str, float]:
    """Speak one utterance into its file, unless a former run did; returns the speaker and the duration in seconds."""
    item, path = job
    if Path(path).is_file():
        return item.sound.voice, round(soundfile.info(path).duration, 4)
    wave, settings = item.speak()
    with replacing(path, lasting=False) as temporary:
        soundfile.write(temporary, wave, RATE, subtype="PCM_16", format="WAV")
    return settings.voice, round(len(wave) / RATE, 4)
