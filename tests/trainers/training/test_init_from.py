"""Training that starts from a checkpoint's projector and LoRA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration
from modeling_slam_asr.lora_slam_asr import is_adapter_tensor
from trainers.errors import UserError
from trainers.recipe import Recipe
from trainers.train import run_training
from trainers.training.models import build_model

MakeRecipe = Callable[..., Recipe]
LORA = {"r": 2, "alpha": 4, "dropout": 0.0}


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in model.state_dict().items() if "projector." in name or is_adapter_tensor(name)
    }


@pytest.fixture(scope="module")
def source(make_tiny_model: Any) -> SlamAsrForConditionalGeneration:
    """A model of another depth whose projector and LoRA are no fresh ones."""
    model: SlamAsrForConditionalGeneration = make_tiny_model(
        lora={"r": 2, "lora_alpha": 4}, prune_encoder_layers=1, projector_hidden_size=32
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in trained(model).values():
            value.copy_(torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("form", ["adapter", "standalone"])
def test_projector_and_lora_are_taken_and_the_bases_stay(
    form: Any, source: SlamAsrForConditionalGeneration, tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    source.save_pretrained(tmp_path, checkpoint_form=form)
    recipe = tiny_recipe(lora=LORA, projector={"hidden_size": 32})
    fresh = build_model(recipe)
    recipe.init_from = str(tmp_path)
    model = build_model(recipe)
    wanted = trained(source)
    found = trained(model)
    assert found.keys() == wanted.keys() and any(is_adapter_tensor(name) for name in wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert model.config.kept_encoder_layers == fresh.config.kept_encoder_layers != source.config.kept_encoder_layers
    others = [name for name in fresh.state_dict() if name not in wanted]
    assert all(torch.equal(model.state_dict()[name], fresh.state_dict()[name]) for name in others)
    recipe.lora = None  # its LoRA is left where it is
    assert torch.equal(build_model(recipe).projector.linear1.weight, source.projector.linear1.weight)


@pytest.mark.parametrize("form", ["adapter", "standalone"])
def test_dora_is_taken(form: Any, make_tiny_model: Any, tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    source = make_tiny_model(lora={"r": 2, "lora_alpha": 4, "use_dora": True}, projector_hidden_size=32)
    with torch.no_grad():
        for value in trained(source).values():
            value.add_(torch.rand_like(value))
    source.save_pretrained(tmp_path, checkpoint_form=form)
    model = build_model(
        tiny_recipe(lora={**LORA, "use_dora": True}, projector={"hidden_size": 32}, init_from=str(tmp_path))
    )
    wanted, found = trained(source), trained(model)
    assert found.keys() == wanted.keys() and any("magnitude" in name for name in wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_checkpoint_that_does_not_fit_is_explained(
    source: SlamAsrForConditionalGeneration, tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    source.save_pretrained(tmp_path / "model", checkpoint_form="adapter")
    for changes, says in (
        ({"projector": {"hidden_size": 16}}, "projector.linear1.weight"),
        ({"projector": {"hidden_size": 32}, "lora": {**LORA, "r": 4}}, "has r=2, the recipe's has r=4"),
        (
            {"projector": {"hidden_size": 32}, "lora": {**LORA, "alpha": 2}},
            "has lora_alpha=4, the recipe's has lora_alpha=2",
        ),
        (
            {"projector": {"hidden_size": 32}, "lora": {**LORA, "use_rslora": True}},
            "use_rslora=None, .* use_rslora=True",
        ),
        (
            {"projector": {"hidden_size": 32}, "lora": {**LORA, "target_modules": ["q_proj"]}},
            "target_modules=.* target_modules=",
        ),
        ({"init_from": str(tmp_path / "nowhere")}, "cannot be started from"),
    ):
        with pytest.raises(UserError, match=says):
            build_model(tiny_recipe(**{"init_from": str(tmp_path / "model"), **changes}))


def test_a_merged_lora_is_left_and_that_is_said(
    source: SlamAsrForConditionalGeneration, tiny_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source.save_pretrained(tmp_path, merge_lora=True)
    recipe = tiny_recipe(lora=LORA, projector={"hidden_size": 32}, init_from=str(tmp_path))
    build_model(recipe)
    assert "merged" not in caplog.text, "nothing tells that it ever had LoRA"
    (tmp_path / "recipe.yaml").write_text("lora: {r: 2}\n", encoding="utf-8")
    model = build_model(recipe)
    assert "is merged into its LLM" in caplog.text
    assert torch.equal(model.projector.linear1.weight, source.projector.linear1.weight)


def test_a_run_goes_on_where_the_checkpoint_ended(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    first = tiny_recipe(output_dir=str(tmp_path / "first"), max_steps=2, validation=[])
    run_training(first)
    second = tiny_recipe(
        output_dir=str(tmp_path / "second"), max_steps=1, validation=[], learning_rate=1e-9, init_from=first.output_dir
    )
    run_training(second)
    before, after = (SlamAsrForConditionalGeneration.from_pretrained(run.output_dir) for run in (first, second))
    assert torch.allclose(before.projector.linear1.weight, after.projector.linear1.weight, atol=1e-6)
    with pytest.raises(UserError, match="another init_from"):
        run_training(tiny_recipe(output_dir=second.output_dir, max_steps=2, validation=[]), resume=True)
