"""Fixtures of the model's tests: tiny random models, the pipeline around them, and readable tokens only."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SAMPLING_RATE, WORDS, speak

REPOSITORY = Path(__file__).parents[2]
SHARED_SPEECH = REPOSITORY / "../shared/speech"
LORA = {"r": 4, "lora_alpha": 8}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise of that many seconds at 16 kHz, (samples,) float32."""
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))).astype(np.float32)


def stir_lora(model: Any) -> None:
    """Give LoRA's zero-initialised half values, so that it changes the output."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def edit_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], name: str = "model.safetensors"
) -> None:
    """Rewrite a safetensors file after `change` has edited its tensors."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


@pytest.fixture
def batch(tiny_processor: Any) -> Any:
    """Two utterances of different length, with labels."""
    return tiny_processor([noise(1.3, 1), noise(0.4, 2)], text=["en to", "tre fire fem"])


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Tones with gaps of 50 ms, about `seconds` long, at 16 kHz: (samples,) float32."""
    words = list(WORDS)
    rng = np.random.default_rng(seed)
    return speak([words[i] for i in rng.integers(0, len(words), max(round(seconds / 0.25), 1))], seed=seed)


def encoded(samples: np.ndarray, rate: int = SAMPLING_RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    """The bytes of a sound file that holds `samples`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


CTC_TEXTS = ["en to", "tre fire fem"]


@pytest.fixture
def make_ctc_model(make_tiny_model: Callable[..., Any], tiny_processor: Any) -> Callable[..., Any]:
    """A function that makes a tiny model with a CTC head whose classes are the pieces of the tones' words."""
    pieces = {token for text in CTC_TEXTS for token in tiny_processor.transcript_ids(text)[:-1]}

    def make(**options: Any) -> Any:
        return make_tiny_model(projector_ctc=True, projector_ctc_tokens=sorted(pieces), **options)

    return make
