"""Sounds without a word, made on the spot, each with an empty transcript: they teach a model to write nothing.

`{dataset: non_speech, max_samples: 200}` in a recipe's `train`, beside speech. Noise of any colour and band, hum, clicks, and notes that
begin and fade, one or two at a time, from -60 to -6 dB of full scale.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from trainers.data.rows import Utterance
from trainers.data.sources import cache_folder
from trainers.data.spec import NON_SPEECH, DataSpec
from trainers.files import write_bytes
from trainers.sound import RATE

SECONDS = (1.0, 10.0)
COUNT = 200
"""clips where `max_samples` does not say"""
_LEVELS = (-60.0, -6.0)
VERSION = 1  # raise it when a sound changes: clips are kept

Sound = NDArray[np.float64]


def is_non_speech(spec: DataSpec) -> bool:
    """True for the name of the sounds that are made on the spot."""
    return spec.dataset == NON_SPEECH


def load_non_speech(spec: DataSpec) -> list[Utterance]:
    """`max_samples` clips of a split, made once and kept; another split has others."""
    folder = cache_folder() / f"non-speech-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(spec.max_samples or COUNT):
        path = folder / f"{Path(spec.split).name}-{number:05d}.wav"
        if not path.is_file():
            file = io.BytesIO()
            soundfile.write(file, make_sound(spec.split, number), RATE, format="WAV", subtype="PCM_16")
            write_bytes(path, file.getvalue())
        rows.append(Utterance(path.stem, path, "", language=spec.language, source=NON_SPEECH))
    return rows


def make_sound(split: str, number: int) -> NDArray[np.float32]:
    """One clip, `(samples,)` at 16 kHz within -1 and 1; the same arguments give the same samples."""
    rng = np.random.default_rng([number, *split.encode()])
    length = int(rng.uniform(*SECONDS) * RATE)
    layers = rng.choice(len(_LAYERS), size=rng.integers(1, 3), replace=False)
    parts = [_LAYERS[layer](rng, length) for layer in layers]
    wave = np.sum([part / max(float(np.abs(part).max()), 1e-9) * rng.uniform(0.2, 1.0) for part in parts], axis=0)
    peak = 10 ** (rng.uniform(*_LEVELS) / 20)
    return np.asarray(wave / max(float(np.abs(wave).max()), 1e-9) * peak, dtype=np.float32)


def _noise(rng: Any, length: int) -> Sound:
    """Noise of a colour from white to beyond brown, in a band, swelling or steady."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    low, high = rng.uniform(20, 1000), rng.uniform(1500, 8000)
    spectrum *= frequencies ** (-rng.uniform(0, 1.2)) * ((frequencies >= low) & (frequencies <= high))
    swell = rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 8) * np.arange(length) / RATE)
    return np.asarray(np.fft.irfft(spectrum, length) * (1 + swell))


def _hum(rng: Any, length: int) -> Sound:
    """A tone and its overtones: mains, an engine, a fan."""
    phase = 2 * np.pi * rng.uniform(40, 300) * np.arange(length) / RATE
    falls, overtones = rng.uniform(0.5, 2), range(1, rng.integers(3, 20))
    return np.sum([np.sin(k * phase + rng.uniform(0, 6.3)) / k**falls for k in overtones], axis=0)


def _notes(rng: Any, length: int) -> Sound:
    """Notes of one to four tones, each fading: music, bells, beeps."""
    wave, start = np.zeros(length), 0
    while start < length:
        end = min(length, start + int(rng.uniform(0.1, 0.8) * RATE))
        times = np.arange(end - start) / RATE
        tones = 110 * 2 ** (rng.integers(0, 49, size=rng.integers(1, 5)) / 12)
        wave[start:end] = np.sin(2 * np.pi * np.outer(tones, times)).sum(0) * np.exp(-times * rng.uniform(0, 8))
        start = end
    return wave


def _clicks(rng: Any, length: int) -> Sound:
    """Knocks and crackle: impulses, each ringing for some milliseconds."""
    strokes = (rng.random(length) < rng.uniform(0.5, 20) / RATE) * rng.standard_normal(length)
    strokes[rng.integers(length)] = 1.0
    times = np.arange(RATE // 20) / RATE
    ring = np.exp(-times * rng.uniform(50, 1000)) * np.cos(2 * np.pi * rng.uniform(100, 4000) * times)
    return np.convolve(strokes, ring)[:length]


_LAYERS: tuple[Callable[[Any, int], Sound], ...] = (_noise, _hum, _notes, _clicks)
