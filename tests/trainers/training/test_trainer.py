"""Training runs on tiny models, in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.transcripts_slam_asr import SPARE_TOKENS
from tests.trainers.training.cached import CachedRows, MakeRecipe, build
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.errors import UserError
from trainers.recipe import Recipe, from_dict
from trainers.train import TrainingRun, run_training
from trainers.training.callbacks import evaluations_without_gain, is_best
from trainers.training.checkpoints import TRAINABLE
from trainers.training.models import build_model, build_processor
from trainers.training.trainer import NonFiniteLoss


def losses(output_dir: str) -> list[float]:
    """The logged training losses of a run."""
    state = json.loads((Path(output_dir) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def weights(output_dir: str) -> dict[str, torch.Tensor]:
    return load_file(Path(output_dir) / "model.safetensors")


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


def quiet_dropout(recipe: Recipe) -> Recipe:
    recipe.projector.dropout = 0.0
    if recipe.lora is not None:
        recipe.lora.dropout = 0.0
    return recipe


@pytest.fixture(scope="module")
def finished(
    tiny_recipe_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, dict[str, Any]]:
    """A run with LoRA that has learnt something, and its metrics."""
    changes = {
        "output_dir": str(tmp_path_factory.mktemp("finished") / "run"),
        "lora": {"r": 8, "dropout": 0.0},
        "max_steps": 40,
        "learning_rate": 2e-2,
        "eval_steps": 20,
        "batch_size": 8,
    }
    recipe = from_dict({**tiny_recipe_values, **changes})
    return recipe, run_training(recipe)


def test_a_run_learns_and_writes_its_results(finished: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, metrics = finished
    curve = losses(recipe.output_dir)
    assert sum(curve[-5:]) / 5 < 0.6 * curve[0]
    out = Path(recipe.output_dir)
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert from_dict(yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))) == recipe
    counted = metrics["hits"] + metrics["substitutions"] + metrics["deletions"]
    assert counted == metrics["reference_words"]
    assert metrics["trainable_params"] < metrics["total_params"]
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [f"test-{index:02d}.wav" for index in range(6)]
    assert rows[0].keys() >= {"reference", "prediction", "language", "speaker_id", "source", "duration"}


def test_the_saved_model_is_the_best_and_decodes_as_validation_did(
    finished: tuple[Recipe, dict[str, Any]], tiny_audio_dir: Path
) -> None:
    recipe, metrics = finished
    out = Path(recipe.output_dir)
    assert metrics["wer"] == metrics["best_validation_wer"]
    saved, best = weights(recipe.output_dir), load_file(out / "best" / TRAINABLE)
    assert all(torch.equal(saved[name], tensor) for name, tensor in best.items())
    model = SlamAsrForConditionalGeneration.from_pretrained(out)
    processor = SlamAsrProcessor.from_pretrained(out)
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (2, 12)
    data, _ = prepare(recipe.validation, "validation", quiet=True)
    request = processor.apply_transcription_request([read_audio(row) for row in data])
    texts = processor.batch_decode(model.generate(**request), skip_special_tokens=True)
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert texts == [json.loads(line)["prediction"] for line in lines]


def test_a_transcript_may_be_as_long_as_its_recording_allows(
    tiny_recipe: MakeRecipe, tiny_processor: Any, tmp_path: Path
) -> None:
    """A recipe that sets no `max_new_tokens` leaves the limit to each recording's length, also in the saved model."""
    recipe = tiny_recipe(decoding={}, model={"max_tokens_per_second": 12.5})
    build_model(recipe).save_pretrained(tmp_path)
    model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path)
    assert model.generation_config.max_new_tokens is None
    request = tiny_processor.apply_transcription_request([np.zeros(2 * 16_000), np.zeros(20 * 16_000)])
    plan = model.transcript_request(request["input_ids"], request["input_features_mask"])
    assert plan.limits.tolist() == [25 + SPARE_TOKENS, 250 + SPARE_TOKENS]
    limited = build_model(tiny_recipe(decoding={"max_new_tokens": 128}))
    plan = limited.transcript_request(request["input_ids"], request["input_features_mask"])
    assert plan.limits.tolist() == [128, 128]


def test_the_frozen_parts_did_not_move(finished: tuple[Recipe, dict[str, Any]], make_tiny_model: Any) -> None:
    saved = weights(finished[0].output_dir)
    before = make_tiny_model(lora={"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}).state_dict()
    trained = {name for name in saved if name.startswith("projector.") or "lora_" in name}
    assert all(torch.equal(saved[name], before[name]) for name in saved.keys() - trained)
    assert any("lora_B" in name and saved[name].abs().max() > 0 for name in trained)


def test_a_finished_run_is_not_repeated(finished: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, metrics = finished
    before = (Path(recipe.output_dir) / "model.safetensors").stat().st_mtime_ns
    assert run_training(recipe, resume=True) == metrics
    assert (Path(recipe.output_dir) / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="already holds a run"):
        run_training(recipe)


def test_a_checkpoint_of_another_recipe_is_refused(finished: tuple[Recipe, dict[str, Any]], tmp_path: Path) -> None:
    recipe, _ = finished
    other = from_dict({**recipe.to_dict(), "lora": None})
    with pytest.raises(UserError, match="another lora"):
        run_training(other, resume=True)


def test_the_same_recipe_twice_gives_the_same_weights(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    first, second = (tiny_recipe(lora=True, max_steps=4, output_dir=str(tmp_path / name)) for name in "ab")
    metrics = [run_training(recipe) for recipe in (first, second)]
    assert largest_difference(weights(first.output_dir), weights(second.output_dir)) == 0
    assert metrics[0]["loss"] == metrics[1]["loss"]


def test_gradient_accumulation_gives_the_loss_of_the_whole_batch(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    whole = quiet_dropout(tiny_recipe(batch_size=8, max_steps=4, validation=[], output_dir=str(tmp_path / "a")))
    parts = quiet_dropout(
        tiny_recipe(
            batch_size=2,
            gradient_accumulation_steps=4,
            gradient_checkpointing=True,
            max_steps=4,
            validation=[],
            output_dir=str(tmp_path / "b"),
        )
    )
    for recipe in (whole, parts):
        run_training(recipe)
    assert losses(parts.output_dir) == pytest.approx(losses(whole.output_dir), abs=1e-4)
    assert largest_difference(weights(whole.output_dir), weights(parts.output_dir)) < 1e-4


@pytest.mark.parametrize("budget", [{"batch_seconds": 3.0}, {"batch_tokens": 120}])
def test_batches_by_seconds_and_by_tokens(tiny_recipe: MakeRecipe, budget: dict[str, Any]) -> None:
    recipe = tiny_recipe(num_epochs=1, max_steps=None, validation=[], **budget)
    run = TrainingRun(recipe)
    metrics = run.run(resume=False)
    assert metrics["steps"] > 2
    assert len(losses(recipe.output_dir)) == metrics["steps"]


def test_learning_rates_apart_and_no_decay_on_norms(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(lora=True, learning_rate=1e-3, lora_learning_rate=5e-4, weight_decay=0.1)
    run = TrainingRun(recipe)
    run.processor, run.model = build(recipe)
    run.load_data(quiet=True)
    trainer = run.make_trainer()
    optimizer = trainer.create_optimizer()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            seen.add(name)
            assert group["lr"] == (5e-4 if "lora_" in name else 1e-3)
            assert group["weight_decay"] == (0.0 if "norm" in name or name.endswith("bias") else 0.1), name
    assert seen == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}


def test_the_schedule_is_the_papers(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(max_steps=40, batch_size=1, learning_rate=1e-3, validation=[])
    run_training(recipe)
    state = json.loads((Path(recipe.output_dir) / "trainer_state.json").read_text(encoding="utf-8"))
    rates = [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 2  # 5 % of 40 steps of warm-up
    assert rates[-1] == pytest.approx(1e-4, rel=0.05)
    assert sorted(rates[2:], reverse=True) == rates[2:]


def test_nan_stops_the_run_and_names_the_batch(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(learning_rate=1e30, max_grad_norm=1e9, batch_size=2, validation=[])
    with pytest.raises(NonFiniteLoss, match=r"on the batch of: train-\d\d\.wav, train-\d\d\.wav\."):
        run_training(recipe)


def test_early_stopping_counts_evaluations_without_gain(tiny_recipe: MakeRecipe) -> None:
    assert evaluations_without_gain([0.5, 0.49, 0.497, 0.496], 0.005) == 2
    assert evaluations_without_gain([0.5, 0.497, 0.494], 0.005) == 0  # small gains add up
    assert evaluations_without_gain([], 0.005) == 0
    assert is_best([0.5, 0.4]) and not is_best([0.4, 0.4]) and not is_best([])
    recipe = tiny_recipe(learning_rate=1e-9, max_steps=40, eval_steps=2, early_stopping_patience=3)
    metrics = run_training(recipe)
    assert metrics["steps"] == 8  # the first evaluation and three without gain
    assert (Path(recipe.output_dir) / "checkpoint-8" / "complete.json").is_file()


def test_training_from_cached_states_is_training_through_the_encoder(
    tiny_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    through, cached = (tiny_recipe(lora=True, max_steps=6, output_dir=str(tmp_path / name)) for name in "ab")
    run_training(through)
    processor, model = build(cached)
    cached.augmentation.speed_factors = [0.9, 1.1]
    datasets = {
        role: CachedRows(prepare(getattr(cached, role), role, quiet=True)[0], model, processor)
        for role in ("train", "validation")
    }
    metrics = run_training(cached, datasets=datasets, model=model, processor=processor)
    assert losses(cached.output_dir) == pytest.approx(losses(through.output_dir), abs=1e-4)
    assert metrics["split"] == "validation" and metrics["wer"] is not None
    assert "augmentation (speed_factors) is off" in caplog.text


def test_bfloat16_weights_train_in_float32(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(dtype="bfloat16", lora=True, max_steps=4, checkpoint_form="adapter")
    run_training(recipe)
    best = load_file(Path(recipe.output_dir) / "best" / TRAINABLE)
    assert {tensor.dtype for tensor in best.values()} == {torch.float32}
    model = SlamAsrForConditionalGeneration.from_pretrained(recipe.output_dir)
    assert model.language_model.dtype == torch.bfloat16
    assert all(torch.isfinite(torch.tensor(losses(recipe.output_dir))))


@pytest.mark.parametrize(("dtype", "attention"), [("bfloat16", "eager"), ("float32", "sdpa")])
def test_bfloat16_on_a_cpu_trains_without_fused_attention(dtype: str, attention: str, tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(dtype=dtype, device="cpu", max_steps=1)
    run = TrainingRun(recipe, None, build_model(recipe), build_processor(recipe))
    run.load_data(quiet=True)
    run.make_trainer()
    assert run.model is not None and run.model.language_model.config._attn_implementation == attention


def test_a_pruning_beyond_the_depth_is_explained(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="prune_encoder_layers=2 is not possible: the encoder has 2 blocks"):
        run_training(tiny_recipe(prune_encoder_layers=2))


def test_an_unknown_base_model_is_explained(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match="no base model 'embedded/decoder'"):
        run_training(tiny_recipe(audio_model="embedded/decoder"))
    with pytest.raises(UserError, match="text_model='/nowhere/at/all'"):
        run_training(tiny_recipe(text_model="/nowhere/at/all"))


def test_a_streamed_training_set(tiny_recipe: MakeRecipe, tiny_audio_dir: Path, tmp_path: Path) -> None:
    dataset, _ = prepare(tiny_recipe().train, "train", quiet=True)
    dataset.select_columns(["audio", "text", "language"]).save_to_disk(tmp_path / "saved")
    train = {"dataset": str(tmp_path / "saved"), "streaming": True, "min_duration": 0.1}
    metrics = run_training(tiny_recipe(train=train, max_steps=6))
    assert metrics["steps"] == 6
