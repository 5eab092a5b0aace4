"""Recordings for checks: made from numbers, the same on every machine, written as 16-bit wav by the standard library."""

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz, of all sound in memory; `modeling_slam_asr`, which travels alone, has its own `SAMPLING_RATE`


def voice_like(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A harmonic tone whose pitch and loudness move as in speech, with pauses and a little noise: `(samples,)` float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 140 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time + seed))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formant = 3 + 2 * np.sin(2 * np.pi * 2.3 * time + seed)
    tone = sum(np.sin(k * phase) * np.exp(-0.5 * ((k - formant) / 1.5) ** 2) for k in range(1, 12))
    loudness = np.clip(np.sin(2 * np.pi * 1.9 * time) + 0.4, 0, 1)
    samples = 0.3 * tone * loudness + 0.003 * rng.standard_normal(len(time))
    return np.clip(samples, -1, 1).astype(np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    """Digital silence."""
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def noise(seconds: float, seed: int = 0, level: float = 0.05) -> NDArray[np.float32]:
    """White noise with a standard deviation of `level` (0.05: 26 dB below full scale)."""
    samples = level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return np.clip(samples, -1, 1).astype(np.float32)


def write_wav(path: Path, samples: NDArray[np.float32]) -> Path:
    """Write samples as 16 kHz mono 16-bit wav."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path
