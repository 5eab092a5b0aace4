"""What a cache depends on, as SHA-256 sums: encoder weights, depths, spectrogram settings and the sound itself."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling_slam_asr.processing_slam_asr import SlamAsrProcessor
from trainers.data.rows import read_audio
from trainers.sound import RATE

FORMAT = 1


def encoder_fingerprint(encoder: nn.Module) -> str:
    """SHA-256 of an encoder's tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    kept = getattr(encoder, "kept_layers", None)
    digest.update(f"blocks {kept}".encode())
    return digest.hexdigest()


def mel_settings(processor: SlamAsrProcessor) -> dict[str, object]:
    """Everything of the processor that changes an utterance's spectrogram or its padding."""
    extractor = processor.feature_extractor
    names = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "padding_value", "dither")
    settings = {name: getattr(extractor, name, None) for name in names}
    unit = processor.audio_geometry.frames_per_token
    return {**settings, "frames_per_unit": unit, "pad_to_30s": processor.pad_to_30s}


def audio_fingerprints(rows: Sequence[Mapping[str, Any]], workers: int = 4) -> str:
    """SHA-256 over those of the rows' recordings, as stored: files are read but not decoded."""
    found: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), 256):  # rows may hold their sound: not all in memory at once
            part = [rows[index] for index in range(start, min(start + 256, len(rows)))]
            found += pool.map(audio_fingerprint, part)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def audio_fingerprint(row: Mapping[str, Any]) -> str:
    """SHA-256 of one row's recording: a file's bytes, a piece of a tar file, or samples with their rate.

    Of a row that names a part of its recording, the part's samples.

    Raises:
        ValueError: the file cannot be read, or the row's `audio` is of an unknown kind.
    """
    audio = row["audio"]
    rate = None
    if isinstance(audio, Mapping):
        rate = audio.get("sampling_rate")
        given = [audio[name] for name in ("array", "bytes", "path") if audio.get(name) is not None]
        audio = given[0] if given else None
    part = [value for value in (row.get("start"), row.get("end")) if value is not None and not math.isnan(value)]
    if part or row.get("channel", -1) >= 0:  # a few seconds of what may be hours, whose sum tells nothing of them
        audio, rate = read_audio(dict(row)), RATE
    elif isinstance(audio, str | Path):
        audio = _read(Path(audio), row.get("audio_offset", -1), row.get("audio_size", -1))
    elif isinstance(audio, list | tuple):
        audio = np.asarray(audio, dtype=np.float32)
    elif isinstance(audio, torch.Tensor):
        audio = audio.numpy()
    if isinstance(audio, np.ndarray):
        return hashlib.sha256(f"{audio.dtype} {audio.shape} {rate}".encode() + audio.tobytes()).hexdigest()
    if not isinstance(audio, bytes):
        raise ValueError(
            f"The recording of {row.get('id')!r} is a {type(audio).__name__}; give a path, bytes or samples."
        )
    return hashlib.sha256(audio).hexdigest()


def cache_key(encoder: str, depths: Iterable[str], mel: Mapping[str, Any], dtype: str, audio: str) -> str:
    """The name of a cache: SHA-256 over the fingerprints of all that its content depends on; `audio` is of all its sound."""
    parts = {"format": FORMAT, "encoder": encoder, "depths": sorted(depths), "mel": dict(mel), "dtype": dtype}
    return hashlib.sha256(json.dumps({**parts, "audio": audio}, sort_keys=True).encode()).hexdigest()


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            if offset >= 0:
                file.seek(offset)
                return file.read(size)
            return file.read()
    except OSError as error:
        raise ValueError(f"The recording {str(path)!r} cannot be read: {error.strerror or error}.") from error
