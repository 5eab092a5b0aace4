"""An encoder out of a SLAM-ASR model or a bare Whisper model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, WhisperFeatureExtractor

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.checkpoint_slam_asr import checkpoint_files, load_strictly, read_encoder
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.embedded.base_models import base_model
from trainers.errors import UserError, reading_files_of
from trainers.files import is_local_name


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder, how to make its input of samples, and the SLAM-ASR model that it is part of, if any."""

    encoder: SlamAsrEncoder
    spectrogram: Callable[[np.ndarray], np.ndarray]
    model: SlamAsrForConditionalGeneration | None = None
    processor: SlamAsrProcessor | None = None


def load_encoder(name: str, *, device: str | None = None, revision: str | None = None) -> LoadedEncoder:
    """
    Load an encoder.

    Args:
        name: a folder, a Hub name, or `embedded/encoder`.
        device: the GPU when there is one, if None.
    Raises:
        UserError: there is no such model, or it is neither SLAM-ASR nor Whisper.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    name = base_model(name)
    if is_local_name(name) and not Path(name).is_dir():
        raise UserError(f"The model {name!r} does not exist. Give a folder with a config.json, or a Hub name.")
    with reading_files_of(name):
        return _load_encoder(name, device, revision or "main")


def _load_encoder(name: str, device: str, revision: str) -> LoadedEncoder:
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    if config.model_type == "slam_asr":
        model = SlamAsrForConditionalGeneration.from_pretrained(name, revision=revision).eval()
        model.to(torch.device(device))  # type: ignore[arg-type]
        processor = SlamAsrProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
        return LoadedEncoder(model.audio_encoder, processor.extract_features, model, processor)
    if config.model_type != "whisper":
        raise UserError(f"{name!r} is a {config.model_type} model; give a SLAM-ASR or a Whisper model.")
    encoder = SlamAsrEncoder(config)
    tensors = read_encoder(checkpoint_files(name, revision=revision), encoder.kept_layers, config.encoder_layers)
    load_strictly(encoder, tensors, f"{name} (encoder)")
    extractor = WhisperFeatureExtractor.from_pretrained(name, revision=revision)

    def spectrogram(samples: np.ndarray) -> np.ndarray:
        frame = 2 * extractor.hop_length
        samples = np.pad(samples, (0, -len(samples) % frame))
        output = extractor(
            samples, sampling_rate=extractor.sampling_rate, padding="longest", truncation=False, return_tensors="np"
        )
        return np.asarray(output["input_features"][0])

    encoder.float().to(torch.device(device))
    return LoadedEncoder(encoder.eval(), spectrogram)
