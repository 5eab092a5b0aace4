"""Fixtures of the model's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

REPOSITORY = Path(__file__).parents[2]
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
