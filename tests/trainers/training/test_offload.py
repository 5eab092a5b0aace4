"""Encoder blocks that leave memory while training reads cached states."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainers.training.cached import CachedRows, MakeRecipe, build
from trainers.data.prepare import prepare
from trainers.provenance import weight_files
from trainers.train import TrainingRun, run_training
from trainers.training.offload import parked_blocks


def test_parked_blocks_are_gone_and_come_back_the_same(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    _, model = build(tiny_recipe())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = tmp_path / "new" / "blocks.safetensors"
    with pytest.raises(KeyError), parked_blocks(model, file):
        assert file.is_file() and not any(".layers." in name for name in model.audio_encoder.state_dict())
        raise KeyError("whatever ends the training")
    assert not file.exists()
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not model.audio_encoder.layers.training
    assert not any(parameter.requires_grad for parameter in model.audio_encoder.parameters())


def test_a_run_parks_blocks_only_where_all_its_data_are_cached(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe(max_steps=2)
    processor, model = build(recipe)
    rows = {role: prepare(getattr(recipe, role), role, quiet=True)[0] for role in ("train", "validation")}
    cached = {role: CachedRows(own, model, processor) for role, own in rows.items()}
    blocks = len(model.audio_encoder.layers)

    def blocks_within(datasets: dict[str, object]) -> int:
        with TrainingRun(recipe, datasets, model, processor).without_idle_blocks():
            assert not weight_files(Path(recipe.output_dir)), (
                "a killed run leaves the file, which is none of the model's"
            )
            return len(model.audio_encoder.layers)

    assert blocks_within(cached) == 0
    assert blocks_within({**cached, "validation": None}) == 0
    assert blocks_within({**cached, "validation": rows["validation"]}) == blocks
    next(model.audio_encoder.layers.parameters()).requires_grad_(True)  # as with LoRA on the encoder
    assert blocks_within(cached) == blocks
    next(model.audio_encoder.layers.parameters()).requires_grad_(False)
    metrics = run_training(recipe, datasets=cached, model=model, processor=processor)
    assert metrics["encoder_params"] == model.parameter_report()["encoder"]
    assert isinstance(model.audio_encoder.layers, nn.ModuleList) and len(model.audio_encoder.layers) == blocks
    assert not list(Path(recipe.output_dir).glob("encoder-blocks*"))
