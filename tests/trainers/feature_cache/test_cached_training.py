"""Training from cached states is training through the encoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from trainers.data.spec import DataSpec
from trainers.feature_cache import build_cache
from trainers.recipe import Recipe
from trainers.train import TrainingRun


def _losses(recipe: Recipe, train: Any, make_tiny_model: Any, processor: Any) -> list[float]:
    """The loss of every step, dropout included: both ways draw the same random numbers."""
    torch.manual_seed(5)
    run = TrainingRun(recipe, {"train": train}, make_tiny_model(prune_encoder_layers=1), processor)
    trainer = run.make_trainer()
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# Rounding to bfloat16 changes the first steps of AdamW a little, and those the rest: a rate as in the paper keeps that small.
@pytest.mark.parametrize(("dtype", "rate", "tolerance"), [("float32", 3e-3, 1e-4), ("bfloat16", 1e-4, 1e-3)])
def test_loss_curves_are_the_same(
    dtype: str,
    rate: float,
    tolerance: float,
    tmp_path: Path,
    make_tiny_model: Any,
    tiny_model: Any,
    tiny_processor: Any,
    tiny_rows: Dataset,
) -> None:
    cache = build_cache(tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [1, 2], dtype=dtype, quiet=True)
    curves = []
    for name, train in (("sound", tiny_rows), ("cache", cache.dataset(1))):
        recipe = Recipe(
            audio_model="", text_model="", train=[DataSpec(dataset="given")], output_dir=str(tmp_path / name),
            max_steps=12, batch_size=4, learning_rate=rate, logging_steps=1, save_steps=100, device="cpu",
        )  # fmt: skip
        curves.append(_losses(recipe, train, make_tiny_model, tiny_processor))
    assert len(curves[0]) == 12 and len(set(curves[0])) == 12
    differences = [abs(a - b) for a, b in zip(*curves, strict=True)]
    assert max(differences) < tolerance * curves[0][0], differences
