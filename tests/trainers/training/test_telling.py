"""What a run tells: examples, curves, minutes left, and errors that say what is wrong."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers.errors import UserError
from trainers.files import read_jsonl
from trainers.recipe import Recipe
from trainers.results import PredictionRow
from trainers.train import TrainingRun, run_training
from trainers.training.telling import CURVES, EXAMPLES, ValidationExamples, plot_curves
from trainers.training.trainer import NonFiniteLoss

MakeRecipe = Callable[..., Recipe]


def test_each_validation_shows_examples_and_the_end_has_a_picture(
    tiny_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(max_steps=4, eval_steps=2, save_steps=4)
    run_training(recipe)
    lines = (Path(recipe.output_dir) / EXAMPLES).read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == [2, 2, 2, 4, 4, 4]
    assert [entry["id"] for entry in entries[:3]] == [entry["id"] for entry in entries[3:]]
    printed = capsys.readouterr().err
    assert printed.count("  prediction  ") == 6 and f"  reference   {entries[0]['reference']}" in printed
    assert "min left" in printed
    assert (Path(recipe.output_dir) / CURVES).read_bytes().startswith(b"\x89PNG")


def test_examples_after_a_resume_are_not_doubled(tmp_path: Path) -> None:
    rows = [PredictionRow(id=str(index), reference="a\u2028a", prediction="b") for index in range(2)]
    examples = ValidationExamples(tmp_path / EXAMPLES)
    for step in (2, 4, 4):
        examples(step, rows)
    assert [entry["step"] for entry in read_jsonl(tmp_path / EXAMPLES)] == [2, 2, 4, 4]


def test_curves_of_little(tmp_path: Path) -> None:
    assert plot_curves([], tmp_path / "none.png") is None
    assert plot_curves([{"step": 1, "loss": 2.0}], tmp_path / "one.png") == tmp_path / "one.png"


def test_a_missing_data_set_is_named_before_a_model_is_read(tiny_recipe: MakeRecipe, tiny_audio_dir: Path) -> None:
    manifest = tiny_audio_dir / "train" / "manifst.jsonl"
    recipe = tiny_recipe(train={"dataset": str(manifest)}, audio_model="/not/read/yet")
    with pytest.raises(
        UserError, match=r"train: the data set .*manifst\.jsonl' does not exist\. Did you mean 'manifest\.jsonl'"
    ):
        run_training(recipe)


def test_a_validation_loss_that_is_nan_is_named(tiny_recipe: MakeRecipe) -> None:
    run = TrainingRun(tiny_recipe(max_steps=2, eval_steps=1))
    trainer = run.prepared_trainer()
    with torch.no_grad():
        next(trainer.model.projector.parameters()).fill_(float("nan"))
    with pytest.raises(
        NonFiniteLoss, match=r"The loss in evaluation is nan after step 0, on the batch of: test-\d\d\.wav"
    ):
        trainer.evaluate()


def test_a_loss_that_is_nan_speaks_of_resume_only_when_there_is_a_checkpoint(tiny_recipe: MakeRecipe) -> None:
    wild = {"learning_rate": 1e30, "max_grad_norm": 1e9, "batch_size": 2, "validation": []}
    with pytest.raises(NonFiniteLoss, match=r"float32\.$"):
        run_training(tiny_recipe(**wild, save_steps=100))


def test_data_that_changed_under_a_resume_are_named(
    tiny_recipe: MakeRecipe, tiny_audio_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (tiny_audio_dir / "train" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["audio"] = str(tiny_audio_dir / "train" / row["audio"])
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changes: dict[str, Any] = {"train": {"dataset": str(manifest), "min_duration": 0.1}, "validation": []}
    run_training(tiny_recipe(**changes, max_steps=2))
    with caplog.at_level(logging.WARNING):
        run_training(tiny_recipe(**changes, max_steps=3), resume=True)
    assert "data changed" not in caplog.text
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows[:12]), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        run_training(tiny_recipe(**changes, max_steps=4), resume=True)
    assert "The train data changed since the run began (16 utterances then, 12 now)" in caplog.text


@pytest.mark.slow
def test_workers_that_are_spawned(tiny_recipe: MakeRecipe) -> None:
    spawned = {"dataloader_multiprocessing_context": "spawn", "dataloader_persistent_workers": True}
    recipe = tiny_recipe(max_steps=1, eval_steps=1, num_workers=1, trainer=spawned)
    assert run_training(recipe)["steps"] == 1
