"""Recipes of runs that take seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.recipe import Recipe, from_dict


@pytest.fixture(scope="session")
def tiny_recipe_values(tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_audio_dir: Path) -> dict[str, Any]:
    """The plain values of a recipe on the tiny models and the tones: 12 steps of 4."""
    return {
        "name": "tiny",
        "audio_model": str(tiny_whisper_encoder_dir),
        "text_model": str(tiny_llama_dir),
        "projector": {"hidden_size": 32},
        "train": {"dataset": str(tiny_audio_dir), "split": "train", "min_duration": 0.1},
        "validation": {"dataset": str(tiny_audio_dir), "split": "test", "min_duration": 0.1},
        "max_steps": 12,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "device": "cpu",
        "decoding": {"num_beams": 2, "max_new_tokens": 12},
    }


@pytest.fixture
def tiny_recipe(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> Callable[..., Recipe]:
    """A function that makes a recipe with keys replaced; `output_dir` is a fresh folder."""

    def make(**changes: Any) -> Recipe:
        return from_dict({**tiny_recipe_values, "output_dir": str(tmp_path / "run"), **changes})

    return make
