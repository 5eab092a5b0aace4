"""
Long recordings in pieces that the encoder takes, and whether there is speech in them at all.

At the end, what is known of WAV, MP3 and Ogg files that libsndfile does not tell: part of reading sound, see audio_slam_asr.py.
"""

import importlib.util
import io
import os
import re
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from transformers.utils import logging

try:
    import webrtcvad
except ImportError:
    webrtcvad = None

__all__ = ["OVERLAP_SECONDS", "WINDOW_SECONDS", "cut_windows", "default_window"]

logger = logging.get_logger(__name__)

WINDOW_SECONDS = 25.0
OVERLAP_SECONDS = 4.0
PART_TOLERANCE = 0.1  # seconds that a part may reach beyond the recording's end, as rounded times do
FRAME_SECONDS = 0.02
_ACTIVE_DB = 30.0  # frames up to this much below the loud ones count as speech
PAUSE_SECONDS = 0.2  # a shorter gap may be the closure of a stop consonant
PAUSE_DEPTH_DB = 12.0  # a pause is this much weaker than the loud parts around it
FLOOR_DB = -120.0
LONG_SECONDS = 60.0  # from here on a progress bar is worth its line


@dataclass
class Window:
    """
    A piece of a recording.

    samples: `(samples,)` float32.
    start: place of the first sample in the recording, in seconds.
    overlap: seconds at the beginning that the window before holds too; 0 after a cut at a pause.
    last: whether the recording ends with this window.
    pause_db: after a cut at a pause, the level in dB below which that pause lies; else None.
    """

    samples: np.ndarray
    start: float
    overlap: float
    last: bool
    pause_db: float | None = None


def frame_levels(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Level of each 20 ms in dB of full scale (a full-scale square wave has 0 dB), not below -120: `(ceil(seconds / 0.02),)`."""
    size = round(FRAME_SECONDS * sampling_rate)
    count = -(-len(samples) // size)
    padded = np.zeros(count * size, dtype=np.float32)
    padded[: len(samples)] = samples
    power = np.square(padded.reshape(count, size), dtype=np.float64).sum(axis=1)
    held = np.full(count, size)
    if count:
        held[-1] = len(samples) - (count - 1) * size
    return 10 * np.log10(np.maximum(power / held, 10 ** (FLOOR_DB / 10)))


def word_level(levels: np.ndarray) -> float:
    """The level that the loudest 0.1 s of `(frames,)` reach, in dB: no word is shorter."""
    return float(np.sort(levels)[-round(SHORTEST_SECONDS / FRAME_SECONDS) :][0])


def active_frames(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Which 20 ms of `(samples,)` are not quiet, `(frames,)` bool; always at least one."""
    levels = frame_levels(samples, sampling_rate)
    low, usual = np.percentile(levels, [2, 95])
    word = word_level(levels)
    lone = word - _ACTIVE_DB > usual and usual - low < PAUSE_DEPTH_DB  # in silence or hiss; beside speech it is a knock
    return levels >= (word if lone else usual) - _ACTIVE_DB


def sound_range(active: np.ndarray, start: float, end: float) -> tuple[float, float]:
    """When the first frame that is not quiet begins and the last ends, in a window from `start` to `end` seconds."""
    frames = np.flatnonzero(active)
    first, past = int(frames[0]) * FRAME_SECONDS, int(frames[-1] + 1) * FRAME_SECONDS
    return start + first, min(start + past, end)


def next_pause(active: np.ndarray, earliest: float, latest: float) -> float:
    """When the first pause from `earliest` on begins, or `latest`; in seconds, of frames as [`active_frames`] gives them."""
    first, past = round(earliest / FRAME_SECONDS), round(latest / FRAME_SECONDS)
    need = round(PAUSE_SECONDS / FRAME_SECONDS)
    for frame in range(first, past - need + 1):
        if not active[frame : frame + need].any():
            return max(frame * FRAME_SECONDS, earliest)
    return latest


def find_pause(levels: np.ndarray, earliest: int, latest: int) -> tuple[int, float] | None:
    """
    The frame in the middle of the longest pause between two frames, and the level that the pause stays below; or None.

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
    return None if best is None else (earliest + (best[0] + best[1]) // 2, threshold)


def cut_windows(
    blocks: Iterable[np.ndarray],
    sampling_rate: int,
    window_seconds: float,
    overlap_seconds: float = OVERLAP_SECONDS,
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
    position, overlap, ended, pause_db = 0, 0, False, None
    while True:
        need = whole if position == 0 else size
        while not ended and len(buffer) <= need:
            block = next(source, None)
            ended = block is None
            if block is not None:
                buffer = np.concatenate([buffer, block])
        if len(buffer) <= need:
            yield Window(buffer, position / sampling_rate, overlap / sampling_rate, True, pause_db)
            return
        pause = find_pause(frame_levels(buffer[:size], sampling_rate), int(0.4 * size) // frame, size // frame)
        end = size if pause is None else pause[0] * frame
        advance = end - shared if pause is None else end
        yield Window(buffer[:end], position / sampling_rate, overlap / sampling_rate, False, pause_db)
        pause_db = None if pause is None else pause[1]
        buffer = buffer[advance:].copy()
        position, overlap = position + advance, end - advance


def with_bar(windows: Iterable[Window], sampling_rate: int, seconds: float, name: str, shown: bool) -> Iterator[Window]:
    """The windows of a recording of so many seconds, with a progress bar on the standard error if it is long."""
    bar = logging.tqdm(
        total=round(seconds), unit="s", desc=name, disable=not (shown and seconds >= LONG_SECONDS), leave=False
    )
    told = 0  # not `bar.n`: transformers' bar has none where progress bars are switched off
    for window in windows:
        if window.last:
            bar.close()  # nobody asks for more after the last
        yield window
        position = max(round(window.start + len(window.samples) / sampling_rate), told)
        bar.update(position - told)
        told = position


SILENCE_DB = -90.0  # the smallest step of 16-bit sound: below it there is nothing to hear
STEADY_DB = 3.0
VADS = ("silero", "webrtc")
MARGIN_SECONDS = 0.2  # kept before and after what a detector calls speech: it clips soft consonants
SHORTEST_SECONDS = 0.1  # no word is shorter
_SLIVER_SECONDS = 1.0


def is_silent(samples: np.ndarray, sampling_rate: int, silence_db: float = SILENCE_DB) -> bool:
    """Whether no 20 ms of `(samples,)` reach `silence_db`, in dB of full scale."""
    return len(samples) == 0 or float(frame_levels(samples, sampling_rate).max()) < silence_db


def holds_no_word(window: Window, sampling_rate: int) -> bool:
    """Whether a window is too short for a word, or no more than the rest of the pause that the one before was cut at."""
    seconds = len(window.samples) / sampling_rate
    if seconds < SHORTEST_SECONDS:
        return True
    if window.pause_db is None or seconds > _SLIVER_SECONDS:
        return False
    return float(frame_levels(window.samples, sampling_rate).max()) <= window.pause_db


def is_steady(samples: np.ndarray, sampling_rate: int) -> bool:
    """Whether the level hardly changes, as in hiss and hum, and no word stands out. Music, rattle and babble do change."""
    levels = frame_levels(samples, sampling_rate)[:-1]
    if len(levels) < 2:
        return False
    low, high = np.percentile(levels, [2, 98])
    return bool(high - low < STEADY_DB and word_level(levels) - low < PAUSE_DEPTH_DB)


def check_vad(vad: str | None) -> None:
    """
    Raises:
        ValueError: when there is no such detector, or its package is missing.
    """
    if vad is None:
        return
    if vad not in VADS:
        raise ValueError(
            f"vad={vad!r} is unknown. Choose {' or '.join(map(repr, VADS))}, or None for the level gate alone."
        )
    package, missing = {  # silero-vad is imported when it is used: it brings torch
        "silero": ("silero-vad", importlib.util.find_spec("silero_vad") is None),
        "webrtc": ("webrtcvad-wheels", webrtcvad is None),
    }[vad]
    if missing:
        raise ValueError(f"vad={vad!r} needs a package that is not installed: `pip install {package}`.")


class VoiceDetector:
    """
    Where speech begins and ends in a window.

    Args:
        vad: `"silero"` (a small neural network) or `"webrtc"` (signal processing, quicker, takes more noise for speech).
    """

    def __init__(self, vad: str) -> None:
        check_vad(vad)
        self.vad = vad
        self.network: Any = None
        if vad == "silero":
            torch: Any = importlib.import_module("torch")
            threads = torch.get_num_threads()
            self.silero: Any = importlib.import_module("silero_vad")
            torch.set_num_threads(threads)  # silero-vad leaves the whole process one
            self.network = self.silero.load_silero_vad()

    def speech_range(self, samples: np.ndarray, sampling_rate: int) -> tuple[int, int] | None:
        """First and one past last sample of the speech in `(samples,)` at 16 kHz, with a margin of 0.2 s; None without any."""
        marks = self._silero(samples, sampling_rate) if self.vad == "silero" else self._webrtc(samples, sampling_rate)
        if marks is None:
            return None
        margin = int(MARGIN_SECONDS * sampling_rate)
        return max(marks[0] - margin, 0), min(marks[1] + margin, len(samples))

    def _silero(self, samples: np.ndarray, sampling_rate: int) -> tuple[int, int] | None:
        found = self.silero.get_speech_timestamps(
            np.ascontiguousarray(samples), self.network, sampling_rate=sampling_rate
        )
        return (found[0]["start"], found[-1]["end"]) if found else None

    def _webrtc(self, samples: np.ndarray, sampling_rate: int) -> tuple[int, int] | None:
        detector = webrtcvad.Vad(2)
        size = sampling_rate * 30 // 1000
        pcm = (np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2")
        starts = range(0, len(pcm) - size + 1, size)
        voiced = np.array([detector.is_speech(pcm[i : i + size].tobytes(), sampling_rate) for i in starts], dtype=int)
        # A single voiced frame is a click: speech is 5 of 10 neighbouring frames.
        if len(voiced) < 10:
            return None
        dense = np.flatnonzero(np.convolve(voiced, np.ones(10), mode="same") >= 5)
        return (int(dense[0]) * size, (int(dense[-1]) + 1) * size) if len(dense) else None


def default_window(config: Any, longest: float) -> tuple[float, float]:
    """The longest window, and up to what length a recording is not cut, in seconds, for a model with this configuration."""
    size = min(config.window_seconds or WINDOW_SECONDS, longest)
    return size, min(longest, 1.25 * size)


def window_sizes(window: float | None, overlap: float | None, longest: float) -> tuple[float, float]:
    """Both in seconds, checked, with their defaults."""
    size = WINDOW_SECONDS if window is None else float(window)
    if not 1 <= size <= longest:
        raise ValueError(f"window_seconds must lie between 1 and {longest:.0f}, the encoder's limit; got {size:g}.")
    shared = min(OVERLAP_SECONDS, size / 4) if overlap is None else float(overlap)
    if not 0 <= shared <= size / 2:
        raise ValueError(f"overlap_seconds must lie between 0 and half of window_seconds ({size:g}), got {shared:g}.")
    return size, shared


# ------------------------------------------------------------------ parts of sound files, and where they end


class Part(NamedTuple):
    """What to read of a recording: seconds from and to, and which channel."""

    start: float = 0.0
    end: float | None = None
    channel: int | None = None

    @property
    def all(self) -> bool:
        return self.start == 0 and self.end is None

    def frames(self, there: int, rate: float, name: str) -> tuple[int, int]:
        """The first frame and the number of frames to read of those `there`."""
        first, last = round(self.start * rate), there if self.end is None else round(self.end * rate)
        if first < 0 or last <= first or first >= there or last > there + PART_TOLERANCE * rate:
            till = "its end" if self.end is None else f"{self.end:g} s"
            raise ValueError(
                f"{name} has {there / rate:.2f} s, and the part from {self.start:g} s to {till} is not in it. Mend its times."
            )
        return first, min(last, there) - first

    def cut(self, samples: np.ndarray, rate: float, name: str) -> np.ndarray:
        """What it is of a whole recording's `(samples,)` or `(samples, channels)`."""
        if self.all:
            return samples
        first, count = self.frames(len(samples), rate, name)
        return samples[first : first + count]

    def mono(self, samples: np.ndarray, name: str) -> np.ndarray:
        """The part's channel of (samples, channels)."""
        if self.channel is None:
            return samples
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        if not 0 <= self.channel < channels:
            raise ValueError(f"{name} has {channels} channel(s), and none of number {self.channel} (from 0).")
        return samples.reshape(-1, channels)[:, self.channel]


WHOLE = Part()

# Sizes that writers put where they could not know the length, as when they write into a pipe.
_UNKNOWN_SIZE = 0x7FFFF000
_TAG_BYTES = 4096  # what may follow the sound of an MP3 file: its title and the like
_MOST_PARTS = 1000  # files in a row that are read as one recording
_WHOLE = 0.98  # of the announced bytes: some writers count their headers as sound
_ANNOUNCED = re.compile(r"^\s*(?:data|SSND|riff)\s*:\s*(\d+)\s*\(should be (\d+)\)", re.MULTILINE)
_OGG_SIGNS = ("lacks an end-of-stream bit", "Junk after the last page")


def missing_end(head: bytes, size: int, log: str) -> str | None:
    """
    What shows that a sound file's end is missing, or None.

    Args:
        head: the file's first bytes; of an MP3 file with a long tag before the sound, that tag and 1 kB more.
        size: the whole file's size in bytes.
        log: libsndfile's own report on the file, `soundfile.SoundFile.extra_info`.
    """
    for announced, found in _ANNOUNCED.findall(log):
        if (sign := missing_sound(int(announced), int(found))) is not None:
            return sign
    if all(sign in log for sign in _OGG_SIGNS):
        return "the last page is not whole"
    wanted = mp3_size(head)
    if wanted is not None and size < _WHOLE * wanted:
        return f"{wanted} bytes are announced and {size} are there"
    return None


def with_sizes(data: bytes, file_size: int | None = None) -> bytes:
    """
    The same WAV file with the sizes that its writer could not know, as when it wrote into a pipe; others as they are.

    Args:
        file_size: the whole file's, where `data` is its beginning. A size with which the file ends is one that its writer knew.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return data
    place = 12
    while place + 8 <= len(data):
        size, start = int.from_bytes(data[place + 4 : place + 8], "little"), place + 8
        if data[place : place + 4] == b"data":
            follows = data[start : start + 4]
            empty = (
                size == 0 and len(data) - start >= 4 and follows not in (b"LIST", b"id3 ", b"ID3 ", b"fact", b"bext")
            )
            rest = (file_size or len(data)) - start - size  # after the sound: titles and the like
            known = size < _UNKNOWN_SIZE or 0 <= rest < 1 << 20
            if not empty and known:
                return data
            held = (len(data) - start).to_bytes(4, "little")
            return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8 : place + 4] + held + data[start:]
        place = start + size + size % 2
    return data


def joined_files(data: bytes, name: str) -> list[bytes]:
    """
    The parts of several MP3 or Ogg files in a row, of which libsndfile would read the first alone; else the file itself.

    Raises:
        ValueError: when there are more than a thousand.
    """
    joints = _ogg_joints(data) if data[:4] == b"OggS" else _mp3_joints(data)
    if len(joints) > _MOST_PARTS:
        raise ValueError(f"{name} is more than {_MOST_PARTS} recordings in a row. Save them as files of their own.")
    return [data[a:b] for a, b in zip(joints, [*joints[1:], len(data)], strict=True)]


def _mp3_joints(data: bytes) -> list[int]:
    """Where the MP3 files in a row begin, by the sizes that they announce."""
    joints = [0]
    while len(joints) <= _MOST_PARTS and (size := mp3_size(data, joints[-1])) is not None:
        place = joints[-1] + size
        sound = data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] >= b"\xe0"
        if len(data) <= place + _TAG_BYTES or not (sound or data[place : place + 3] == b"ID3"):
            break
        joints.append(place)
    return joints


def _ogg_joints(data: bytes) -> list[int]:
    """Where the parts of a chained Ogg file begin: a stream that begins after pages of another."""
    joints, place, begun = [0], 0, False
    while len(joints) <= _MOST_PARTS and data[place : place + 4] == b"OggS" and place + 27 <= len(data):
        first, segments = bool(data[place + 5] & 2), data[place + 26]
        if first and begun:
            joints.append(place)
        begun = not first
        place += 27 + segments + sum(data[place + 27 : place + 27 + segments])
    return joints


def missing_sound(announced: int, found: int) -> str | None:
    """The same, from the bytes of sound that a header announces and those that the file holds."""
    if found < _WHOLE * announced and announced < _UNKNOWN_SIZE:
        return f"{announced} bytes of sound are announced and {found} are there"
    return None


def check_end(sign: str | None, name: str, whole: bool) -> None:
    """Tell of a missing end, whose `sign` is None where there is none; a ValueError where a `whole` file is wanted."""
    if sign is None:
        return
    if whole:
        raise ValueError(f"{name} is cut short: {sign}. Get a whole copy of it.")
    logger.warning(f"{name} is cut short: {sign}. What is there is transcribed.")


def decode_wav(data: bytes, name: str) -> tuple[np.ndarray, int, str | None]:
    """Samples `(samples, channels)`, rate and what shows a missing end, of a 16-bit WAV file by the standard library alone."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            announced = file.getnframes() * width * channels
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{name} is not a plain wav file ({error}). `pip install soundfile` reads other formats."
        ) from error
    if width != 2:
        raise ValueError(
            f"{name} has {8 * width}-bit samples. `pip install soundfile` reads other widths than 16 bits."
        )
    samples = np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32_768
    return samples.reshape(-1, channels), rate, missing_sound(announced, len(frames))


def mp3_size(data: bytes, at: int = 0) -> int | None:
    """The size of the MP3 file that begins `at` a place, as its encoder wrote it into the first frame (Xing or Info), or None."""
    start = at
    if data[at : at + 3] == b"ID3" and len(data) >= at + 10:  # four bytes of seven bits each
        start += 10 + sum(byte << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True))
    if data[start : start + 1] != b"\xff":
        return None
    mark = max(data.find(tag, start, start + 64) for tag in (b"Xing", b"Info"))
    if mark < 0 or len(data) < mark + 16:
        return None
    flags = int.from_bytes(data[mark + 4 : mark + 8], "big")
    if not flags & 2:
        return None
    place = mark + (12 if flags & 1 else 8)
    return start - at + int.from_bytes(data[place : place + 4], "big") or None


def read_in_part(path: str | os.PathLike[str], name: str) -> bool:
    """Whether a file has no sizes, or is several in a row: libsndfile would read less than is there."""
    with open(path, "rb") as file:
        head = file.read(1 << 20)
        if head[:4] == b"OggS":
            return len(joined_files(head + file.read(), name)) > 1
    wanted, size = mp3_size(head), os.path.getsize(path)
    return with_sizes(head, size) is not head or (wanted is not None and size > wanted + _TAG_BYTES)
