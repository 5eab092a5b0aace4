"""Reading sound: any usual source to 16 kHz mono samples, or an error that says what is wrong with it."""

import io
import os
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    import soundfile
except ImportError:  # 16-bit wav files are then read by the standard library
    soundfile = None
try:
    import soxr
except ImportError:  # sound at the model's own rate needs no resampling
    soxr = None

AudioSource = str | os.PathLike[str] | bytes | np.ndarray | torch.Tensor | Mapping[str, Any]


def load_audio(source: Any, sampling_rate: int = 16_000, source_rate: int | None = None) -> np.ndarray:
    """
    Read one recording.

    Args:
        source: a file's path; a file's bytes; samples as an array or tensor (`(samples,)`, `(samples, channels)` or
            `(channels, samples)`); a mapping with `array` (or `raw`) and `sampling_rate`, or with `bytes` or `path`, as rows
            of `datasets` have; or a torchcodec `AudioDecoder`.
        sampling_rate: wanted rate in Hz.
        source_rate: rate in Hz of samples given as an array; the wanted rate when None.
    Returns:
        `(samples,)` float32, channels averaged.
    Raises:
        ValueError: when there is no such file, or it cannot be decoded, is empty, or has NaN or infinite samples.
    """
    name = describe(source)
    if hasattr(source, "get_all_samples"):
        decoded = source.get_all_samples()
        source, source_rate = decoded.data, decoded.sample_rate
    if isinstance(source, Mapping):
        samples = source.get("array", source.get("raw"))
        if samples is not None:
            if source.get("sampling_rate") is None:
                raise ValueError(f"{name} has samples but no 'sampling_rate' in Hz; without it they cannot be read.")
            source, source_rate = samples, source["sampling_rate"]
        else:
            source = source.get("bytes") or source.get("path")
            if source is None:
                raise ValueError(f"{name} has none of the keys 'array', 'raw', 'bytes' and 'path'.")
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().float().numpy()
    if isinstance(source, list | tuple):
        source = np.asarray(source, dtype=np.float32)
    if isinstance(source, np.ndarray):
        samples, rate = source, source_rate or sampling_rate
    elif isinstance(source, str | os.PathLike | bytes):
        samples, rate = _decode(source, name)
    else:
        raise ValueError(
            f"{name} is no audio. Give a path, a file's bytes, an array, or a mapping with 'array' and 'sampling_rate'."
        )
    samples = _to_mono(samples, name)
    if samples.size == 0:
        raise ValueError(f"{name} is empty: it holds no samples. Leave it out or record it again.")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise ValueError(
            f"{name} has {bad} NaN or infinite samples of {samples.size}. Export it again as 16-bit PCM or drop it."
        )
    return _resample(samples, int(rate), sampling_rate, name)


def describe(source: Any) -> str:
    """A short name of an audio source for messages."""
    if isinstance(source, str | os.PathLike):
        return f"The recording {os.fspath(source)!r}"
    if isinstance(source, Mapping) and source.get("path"):
        return f"The recording {source['path']!r}"
    if isinstance(source, np.ndarray | torch.Tensor):
        return f"The recording (an array of shape {tuple(source.shape)})"
    return f"The recording (a {type(source).__name__})"


def _decode(source: str | os.PathLike[str] | bytes, name: str) -> tuple[np.ndarray, int]:
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        if path.is_dir():
            raise ValueError(f"{name} is a folder. Name the sound files in it.")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{name} does not exist. Check the path.") from None
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror}.") from error
    if not data:
        raise ValueError(f"{name} is empty: the file has 0 bytes.")
    if soundfile is None:
        return _decode_wav(data, name)
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(
            f"{name} is not sound that can be decoded ({str(error).splitlines()[0]}). wav, flac, ogg, opus and mp3 are read; "
            "convert others first, for example with `ffmpeg -i FILE out.flac`."
        ) from error
    return samples, rate


def _decode_wav(data: bytes, name: str) -> tuple[np.ndarray, int]:
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
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
    return samples.reshape(-1, channels), rate


def _to_mono(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.dtype.kind in "iu":
        samples = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    samples = samples.astype(np.float32, copy=False)
    if samples.ndim == 2:
        # Recordings are longer than they have channels, whichever axis comes first.
        samples = (
            samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float32) if samples.size else samples.reshape(-1)
        )
    if samples.ndim != 1:
        raise ValueError(f"{name} has {samples.ndim} dimensions; give (samples,) or (samples, channels).")
    return samples


def _resample(samples: np.ndarray, rate: int, wanted: int, name: str) -> np.ndarray:
    if rate == wanted:
        return np.ascontiguousarray(samples)
    if rate <= 0:
        raise ValueError(f"{name} has the sampling rate {rate} Hz, which is not possible.")
    if soxr is None:
        raise ValueError(f"{name} has {rate} Hz and the model reads {wanted} Hz. `pip install soxr` to resample.")
    return soxr.resample(samples, rate, wanted).astype(np.float32, copy=False)
