"""Long recordings in pieces that the encoder takes: cut at pauses, with overlap only where there is none."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

FRAME_SECONDS = 0.02
PAUSE_SECONDS = 0.2  # a shorter gap may be the closure of a stop consonant
PAUSE_DEPTH_DB = 12.0  # a pause is this much weaker than the loud parts around it
FLOOR_DB = -120.0


@dataclass
class Window:
    """
    A piece of a recording.

    samples: `(samples,)` float32.
    start: place of the first sample in the recording, in seconds.
    overlap: seconds at the beginning that the window before holds too; 0 after a cut at a pause.
    last: whether the recording ends with this window.
    """

    samples: np.ndarray
    start: float
    overlap: float
    last: bool


def frame_levels(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Level of each 20 ms in dB of full scale (a full-scale square wave has 0 dB), not below -120: `(ceil(seconds / 0.02),)`.
    """
    size = round(FRAME_SECONDS * sampling_rate)
    count = -(-len(samples) // size)
    padded = np.zeros(count * size, dtype=np.float32)
    padded[: len(samples)] = samples
    power = np.square(padded.reshape(count, size), dtype=np.float64).sum(axis=1)
    held = np.full(count, size)
    if count:
        held[-1] = len(samples) - (count - 1) * size
    return 10 * np.log10(np.maximum(power / held, 10 ** (FLOOR_DB / 10)))


def find_pause(levels: np.ndarray, earliest: int, latest: int) -> int | None:
    """
    The frame in the middle of the longest pause between two frames, or None.

    Args:
        levels: in dB, `(frames,)`, see [`frame_levels`].
        earliest, latest: frames between which a cut may lie; of equal pauses the later is taken.
    """
    need = round(PAUSE_SECONDS / FRAME_SECONDS)
    if latest - earliest < need:
        return None
    loud = float(np.percentile(levels[:latest], 95))
    zone = levels[earliest:latest]
    quietest = float(np.convolve(zone, np.ones(need) / need, mode="valid").min())
    threshold = min(max(quietest + 6.0, loud - 35.0), loud - PAUSE_DEPTH_DB)
    best: tuple[int, int] | None = None
    start = None
    for index, quiet in enumerate([*(zone <= threshold), False]):
        if quiet and start is None:
            start = index
        elif not quiet and start is not None:
            if index - start >= need and (best is None or index - start >= best[1] - best[0]):
                best = (start, index)
            start = None
    return None if best is None else earliest + (best[0] + best[1]) // 2


def cut_windows(
    blocks: Iterable[np.ndarray],
    sampling_rate: int,
    window_seconds: float,
    overlap_seconds: float = 4.0,
    whole_seconds: float | None = None,
) -> Iterator[Window]:
    """
    Cut a recording, as it is read, into windows; no more than a window and a block are held in memory.

    Args:
        blocks: the recording's samples in turn, each `(samples,)` float32, of any lengths.
        window_seconds: the longest window. A cut lies in the last six tenths of it, in the middle of the longest pause.
        overlap_seconds: what two windows share where there is no pause to cut at.
        whole_seconds: a recording no longer than this is not cut; `window_seconds` when None.
    """
    if not 0 <= overlap_seconds <= window_seconds / 2:
        raise ValueError(
            f"overlap_seconds must lie between 0 and half of window_seconds ({window_seconds}), got {overlap_seconds}."
        )
    size = int(window_seconds * sampling_rate)
    whole = size if whole_seconds is None else max(int(whole_seconds * sampling_rate), size)
    shared = int(overlap_seconds * sampling_rate)
    frame = round(FRAME_SECONDS * sampling_rate)
    source = iter(blocks)
    buffer = np.zeros(0, dtype=np.float32)
    position, overlap, ended = 0, 0, False
    while True:
        need = whole if position == 0 else size
        while not ended and len(buffer) <= need:
            block = next(source, None)
            ended = block is None
            if block is not None:
                buffer = np.concatenate([buffer, block])
        if len(buffer) <= need:
            yield Window(buffer, position / sampling_rate, overlap / sampling_rate, last=True)
            return
        pause = find_pause(frame_levels(buffer[:size], sampling_rate), int(0.4 * size) // frame, size // frame)
        end = size if pause is None else pause * frame
        advance = end - shared if pause is None else end
        yield Window(buffer[:end], position / sampling_rate, overlap / sampling_rate, last=False)
        buffer = buffer[advance:].copy()
        position, overlap = position + advance, end - advance
