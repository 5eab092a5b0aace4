"""Data sets of cached encoder states, for tests of training."""

from collections.abc import Callable
from typing import Any

import torch

from trainers.data.rows import read_audio
from trainers.recipe import Recipe
from trainers.training.models import build_model, build_processor

MakeRecipe = Callable[..., Recipe]


def build(recipe: Recipe) -> tuple[Any, Any]:
    """The recipe's processor and model."""
    return build_processor(recipe), build_model(recipe)


class CachedRows:
    """Rows with encoder states in place of audio, as a cache would give them."""

    def __init__(self, dataset: Any, model: Any, processor: Any) -> None:
        self.rows = []
        for row in dataset:
            features = torch.from_numpy(processor.extract_features(read_audio(row)))[None]
            states, _ = model.audio_encoder.hidden_states_at(features, None, [len(model.audio_encoder.layers)])
            kept = {name: value for name, value in row.items() if name != "audio"}
            self.rows.append({**kept, "encoder_hidden_states": next(iter(states.values()))[0].detach()})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]
