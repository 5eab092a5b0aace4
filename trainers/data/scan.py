"""Looking at every recording once before training: how long it is, and whether it can be read at all."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
from datasets import Dataset
from tqdm import tqdm

from trainers.data.rows import read_audio


@dataclass(frozen=True)
class Scanned:
    """What was found of one recording: `duration` in seconds, or the `error` that reading it gave, and how it was read."""

    id: str
    duration: float
    error: str | None = None
    verify: str = "decode"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def scan(
    dataset: Dataset,
    verify: str = "decode",
    description: str = "reading audio",
    quiet: bool = False,
    known: Sequence[Scanned] | None = None,
) -> list[Scanned]:
    """Every row's duration and state, in order. Decoding runs in threads; soundfile frees the interpreter meanwhile.

    Args:
        verify: `decode` reads each recording whole; `header` takes the duration that the source states, else the
            file's header, and decodes only what has neither (clips inside tar files and bytes).
        known: an earlier scan of these rows; only what was damaged in it is read.
    """
    found: list[Scanned | None] = list(known) if known is not None else [None] * len(dataset)
    todo = [index for index, item in enumerate(found) if item is None or item.error is not None]
    look: Callable[[dict[str, Any]], Scanned] = _decode if verify == "decode" else _header
    rows: Iterable[dict[str, Any]] = (dataset[index] for index in todo)
    seen: list[Scanned] = []
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        batches = _in_batches(rows, 64)
        with tqdm(total=len(todo), desc=description, unit="file", disable=quiet or not todo or None) as progress:
            for batch in batches:
                seen.extend(pool.map(look, batch))
                progress.update(len(batch))
    for index, item in zip(todo, seen, strict=True):
        found[index] = replace(item, verify=verify)
    return [item for item in found if item is not None]


def _in_batches(rows: Iterable[dict[str, Any]], size: int) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _decode(row: dict[str, Any]) -> Scanned:
    try:
        return Scanned(row["id"], len(read_audio(row)) / 16_000)
    except ValueError as error:
        return Scanned(row["id"], 0.0, str(error))


def _header(row: dict[str, Any]) -> Scanned:
    path = row["audio"]["path"]
    if row["audio_offset"] >= 0 or row["audio"]["bytes"] is not None or path is None:
        return Scanned(row["id"], row["duration"]) if not math.isnan(row["duration"]) else _decode(row)
    if not Path(path).is_file():
        return Scanned(row["id"], 0.0, f"The recording {path!r} does not exist.")
    if not math.isnan(row["duration"]):
        return Scanned(row["id"], row["duration"])
    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return Scanned(row["id"], 0.0, f"The recording {path!r} cannot be read: {error}")
    return Scanned(row["id"], header.frames / header.samplerate)
