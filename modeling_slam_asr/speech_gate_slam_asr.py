"""Is there speech at all? A level gate of our own, and voice activity detectors when they are installed and asked for."""

from typing import Any

import numpy as np
import torch

from .windows_slam_asr import frame_levels

try:
    import webrtcvad
except ImportError:
    webrtcvad = None
try:
    import silero_vad
except ImportError:
    silero_vad = None

SILENCE_DB = -90.0  # the smallest step of 16-bit sound: below it there is nothing to hear
STEADY_DB = 3.0
VADS = ("silero", "webrtc")
MARGIN_SECONDS = 0.2  # kept before and after what a detector calls speech: it clips soft consonants
_SETTLED_SECONDS = 1.0


def is_silent(samples: np.ndarray, sampling_rate: int, silence_db: float = SILENCE_DB) -> bool:
    """Whether no 20 ms of `(samples,)` reach `silence_db`, in dB of full scale."""
    return len(samples) == 0 or float(frame_levels(samples, sampling_rate).max()) < silence_db


def is_steady(samples: np.ndarray, sampling_rate: int) -> bool:
    """
    Whether the level hardly changes for a second or more, as in hiss and hum; in speech it moves by tens of dB.

    Music, rattle and babble do change: this does not find them.
    """
    levels = frame_levels(samples, sampling_rate)[:-1]
    if len(samples) < _SETTLED_SECONDS * sampling_rate:
        return False
    low, high = np.percentile(levels, [2, 98])
    return bool(high - low < STEADY_DB)


def check_vad(vad: str | None) -> None:
    """
    Raises:
        ValueError: when there is no such detector, or its package is missing.
    """
    if vad is None:
        return
    if vad not in VADS:
        raise ValueError(f"vad={vad!r} is unknown. Choose 'silero' or 'webrtc', or None for the level gate alone.")
    package, module = {"silero": ("silero-vad", silero_vad), "webrtc": ("webrtcvad-wheels", webrtcvad)}[vad]
    if module is None:
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
        self.network: Any = silero_vad.load_silero_vad() if vad == "silero" else None

    def speech_range(self, samples: np.ndarray, sampling_rate: int) -> tuple[int, int] | None:
        """First and one past last sample of the speech in `(samples,)` at 16 kHz, with a margin of 0.2 s; None without any."""
        marks = self._silero(samples, sampling_rate) if self.vad == "silero" else self._webrtc(samples, sampling_rate)
        if marks is None:
            return None
        margin = int(MARGIN_SECONDS * sampling_rate)
        return max(marks[0] - margin, 0), min(marks[1] + margin, len(samples))

    def _silero(self, samples: np.ndarray, sampling_rate: int) -> tuple[int, int] | None:
        found = silero_vad.get_speech_timestamps(
            torch.from_numpy(np.ascontiguousarray(samples)), self.network, sampling_rate=sampling_rate
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
        if len(dense) == 0:
            return None
        return int(dense[0]) * size, (int(dense[-1]) + 1) * size
