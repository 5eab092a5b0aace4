"""Looking at every recording once before training: how long it is, and whether it can be read at all."""

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
from datasets import Dataset
from tqdm import tqdm

from modeling_slam_asr.audio_slam_asr import UNKNOWN_FRAMES
from trainers.data.rows import SpeechRow, has_part, read_audio
from trainers.sound import RATE


@dataclass(frozen=True)
class Scanned:
    """What was found of one recording: `duration` in seconds, or the `error` that reading it gave, and how it was read.

    `mark` is of what was read: it changes with the file (its place, size and times) and with the part that the row names.
    """

    id: str
    duration: float
    error: str | None = None
    verify: str = "decode"
    mark: str = ""


def scan(
    dataset: Dataset,
    verify: str = "decode",
    description: str = "reading audio",
    quiet: bool = False,
    known: Iterable[Scanned] = (),
    longest: float = math.inf,
    tell: Callable[[Sequence[Scanned]], None] | None = None,
) -> list[Scanned]:
    """Every row's duration and state, in order. Decoding runs in threads; soundfile frees the interpreter meanwhile.

    Args:
        verify: `decode` reads each recording whole; `header` takes the duration that the source states, else the
            file's header, and decodes only what has neither (clips inside tar files and bytes).
        known: an earlier scan; only what it lacks, what has changed since and what was damaged in it is read.
        longest: seconds; what its header says to be longer will not be used, and is not decoded.
        tell: is called with some rows' state after the other, in order.
    """
    earlier = {(item.id, item.verify, item.mark): item for item in known if item.error is None and item.mark}

    def look(row: SpeechRow) -> Scanned:
        mark = sound_mark(row)
        kept = earlier.get((row["id"], verify, mark))
        if kept is not None:
            return kept
        if verify == "decode":
            return replace(_decode(row, longest), mark=mark)
        return replace(_header(row), mark=mark, verify=verify)

    found: list[Scanned] = []
    with (
        ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool,
        tqdm(total=len(dataset), desc=description, unit="file", disable=quiet or not len(dataset) or None) as progress,
    ):
        for start in range(0, len(dataset), 64):  # not all at once: rows can hold the bytes of their recordings
            indices = range(start, min(start + 64, len(dataset)))
            block = list(pool.map(look, [dataset[index] for index in indices]))
            found += block
            if tell is not None:
                tell(block)
            progress.update(len(indices))
    return found


def sound_mark(row: Mapping[str, Any]) -> str:
    """What tells one state of a row's sound from another, without decoding it; empty when it is not there."""
    audio = row["audio"]
    place = [audio.get("path"), *(row.get(name) for name in ("audio_offset", "audio_size", "start", "end", "channel"))]
    digest = hashlib.blake2b(repr(place).encode("utf-8", "surrogatepass"), digest_size=12)
    if audio.get("bytes") is not None:
        digest.update(audio["bytes"])
    else:
        try:
            state = os.stat(audio["path"])
        except (OSError, ValueError, TypeError):
            return ""
        # The time of the last change of any kind shows content that was replaced under its old time and size.
        digest.update(f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}".encode())
    return digest.hexdigest()


def _decode(row: SpeechRow, longest: float) -> Scanned:
    if row.get("fault") is None and not has_part(row) and longest < math.inf:
        said = _header_seconds(row)
        if said is not None and said > longest + 1:
            return Scanned(row["id"], said, verify="header")
    try:
        return Scanned(row["id"], len(read_audio(row)) / RATE)
    except ValueError as error:
        return Scanned(row["id"], 0.0, str(error))


def _header(row: SpeechRow) -> Scanned:
    """What headers say. A part is read: it is short, and whether it lies in its recording only its recording tells."""
    path = row["audio"]["path"]
    stated = row["duration"] if row["duration"] > 0 and math.isfinite(row["duration"]) else None
    if row.get("fault") is not None or has_part(row) or path is None:
        return _decode(row, math.inf)
    if row["audio_offset"] >= 0 or row["audio"]["bytes"] is not None:
        return Scanned(row["id"], stated) if stated is not None else _decode(row, math.inf)
    if not os.path.isfile(path):
        return Scanned(row["id"], 0.0, f"The recording {path!r} does not exist.")
    if stated is not None:
        return Scanned(row["id"], stated)
    found = _header_seconds(row)
    return Scanned(row["id"], found) if found is not None else _decode(row, math.inf)


def _header_seconds(row: SpeechRow) -> float | None:
    """The seconds that a recording's header announces; None where it has none that is sound, or lies in an archive."""
    audio, path = row["audio"], row["audio"]["path"] or ""
    if row.get("audio_offset", -1) >= 0 or (audio["bytes"] is None and not os.path.isfile(path)):
        return None
    try:
        with io.BytesIO(audio["bytes"]) if audio["bytes"] is not None else Path(path).open("rb") as stored:
            header = soundfile.info(stored)
    except (soundfile.LibsndfileError, RuntimeError, OSError, ValueError):
        return None
    return float(header.frames) / header.samplerate if header.frames < UNKNOWN_FRAMES else None
