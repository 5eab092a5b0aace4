"""The CTC warm start: what it learns, that it is made once, resumed exactly, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.errors import UserError
from trainers.training.callbacks import StopOnTermination
from trainers.training.models import build_model, build_processor
from trainers.training.run import TrainingRun, run_training
from trainers.training.warm_start import WarmStart, ctc_tokens, shared_key

CTC = {"hidden_size": 32, "downsample_rate": 2, "ctc": True}
WARM = {"epochs": 6, "learning_rate": 3e-2, "batch_size": 4, "dropout": 0.0}


@pytest.fixture
def warm_recipe(tiny_recipe: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes the tiny recipe with a CTC head and a warm start of six epochs."""

    def make(**changes: Any) -> Any:
        return tiny_recipe(**{"projector": CTC, "warm_start": WARM, "max_steps": 2, **changes})

    return make


def test_the_projector_learns_and_the_head_is_kept(warm_recipe: Callable[..., Any]) -> None:
    recipe = warm_recipe(lora={"r": 2})
    metrics = run_training(recipe)
    record = metrics["warm_start"]
    assert record["steps"] > 6 and record["utterances"] == 16
    log = json.loads((Path(recipe.output_dir) / "warm_start/trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert min(losses) == pytest.approx(record["ctc_loss"]) and min(losses) < 0.7 * losses[0]
    assert all("eval_wer" in entry for entry in log if "eval_loss" in entry)
    model = SlamAsrForConditionalGeneration.from_pretrained(recipe.output_dir)
    processor = SlamAsrProcessor.from_pretrained(recipe.output_dir)
    pieces = {token for text in ("en to tre fire fem don't",) for token in processor.transcript_ids(text)[:-1]}
    assert pieces & set(model.config.projector_ctc_tokens)
    assert not list((Path(recipe.output_dir) / "warm_start").glob("checkpoint-*"))
    assert not (Path(recipe.output_dir) / "warm_start/features").exists()


def test_a_shared_folder_is_filled_once(warm_recipe: Callable[..., Any], tmp_path: Path) -> None:
    """Runs with other seeds, LoRA and learning rates start from one and the same projector."""
    shared = tmp_path / "shared"
    first = run_training(warm_recipe(output_dir=str(tmp_path / "a")), warm_start_folder=shared)
    written = (shared / "best/trainable.safetensors").stat().st_mtime_ns
    second = run_training(warm_recipe(output_dir=str(tmp_path / "b"), seed=7, lora={"r": 2}), warm_start_folder=shared)
    assert first["warm_start"] == second["warm_start"]
    assert (shared / "best/trainable.safetensors").stat().st_mtime_ns == written
    assert all(name.startswith("projector.") for name in load_file(shared / "best/trainable.safetensors"))


def test_a_projector_that_is_given_stays(warm_recipe: Callable[..., Any], tmp_path: Path, caplog: Any) -> None:
    """With `init_from` the warm start, which begins from random weights, is left out, and that is said."""
    first = warm_recipe(output_dir=str(tmp_path / "first"))
    run_training(first)
    more = warm_recipe(output_dir=str(tmp_path / "more"), init_from=first.output_dir, max_steps=1, learning_rate=1e-9)
    metrics = run_training(more)
    assert "warm_start" not in metrics and "init_from" in caplog.text
    before, after = (SlamAsrForConditionalGeneration.from_pretrained(one.output_dir).projector for one in (first, more))
    for one, other in zip(before.state_dict().values(), after.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_key_of_what_can_be_shared(warm_recipe: Callable[..., Any]) -> None:
    own = shared_key(warm_recipe())
    assert shared_key(warm_recipe(seed=3, lora={"r": 2}, learning_rate=1e-3, max_steps=9)) == own
    assert shared_key(warm_recipe(projector={**CTC, "compress": "tokens", "compress_keep": 0.2})) == own
    for change in (
        {"prune_encoder_layers": 1},
        {"warm_start": {**WARM, "epochs": 5}},
        {"projector": {**CTC, "hidden_size": 16}},
    ):
        assert shared_key(warm_recipe(**change)) != own


def test_what_runs_do_not_share_is_no_part_of_it(warm_recipe: Callable[..., Any], tmp_path: Path) -> None:
    """The first of the runs must not decide: its weight decay, its limit of gradients and its autocast are its own."""
    found = []
    for name, own in (("a", {}), ("b", {"weight_decay": 0.5, "max_grad_norm": 1e-3, "bf16": True})):
        run_training(warm_recipe(output_dir=str(tmp_path / name), **own))
        found.append(load_file(tmp_path / name / "warm_start/best/trainable.safetensors"))
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key])


@pytest.fixture
def start(warm_recipe: Callable[..., Any], tmp_path: Path) -> Callable[..., WarmStart]:
    """A function that makes the warm start in a folder of `tmp_path`; with `stop_after`, it is told to stop in that step."""

    def make(folder: str, stop_after: int | None = None, **changes: Any) -> WarmStart:
        recipe = warm_recipe(output_dir=str(tmp_path / "run"), **changes)
        run = TrainingRun(recipe)
        run.load_data(quiet=True)
        model, processor = build_model(recipe), build_processor(recipe)
        model.config.projector_ctc_tokens = ctc_tokens(recipe, run.datasets["train"], processor)
        termination = StopOnTermination()
        if stop_after is not None:
            plain = termination.on_step_end

            def on_step_end(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == stop_after:
                    termination.requested = 15
                plain(args, state, control, **kwargs)

            termination.on_step_end = on_step_end  # type: ignore[method-assign]
        return WarmStart(recipe, run.datasets, model, processor, tmp_path / folder, termination)

    return make


def test_interrupted_and_resumed_is_uninterrupted(start: Callable[..., WarmStart], tmp_path: Path) -> None:
    whole = start("whole")
    whole.load()
    with pytest.raises(SystemExit) as left:
        start("parts", 7).load()
    assert left.value.code == 143
    assert not (tmp_path / "parts/warm_start.json").exists()
    marker = next((tmp_path / "parts").glob("checkpoint-*/complete.json"))
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "train_seconds": 5000.0}))
    again = start("parts")
    assert again.load()["seconds"] > 5000, "those of its first part too"
    for name, tensor in whole.model.projector.state_dict().items():
        assert torch.equal(tensor, again.model.projector.state_dict()[name]), name
    # What was copied without its weights is trained again.
    shutil.rmtree(tmp_path / "parts/best")
    anew = start("parts")
    anew.load()
    assert torch.equal(anew.model.projector.linear1.weight, whole.model.projector.linear1.weight)


def test_stopped_in_the_step_that_early_stopping_ends_it_is_over(start: Callable[..., WarmStart]) -> None:
    """What goes on from there takes no further step."""
    gainless = {"warm_start": {**WARM, "learning_rate": 1e-12, "stop": 1}}
    steps = start("whole", **gainless).load()["steps"]
    assert 0 < steps < 6 * 4
    with pytest.raises(SystemExit):
        start("parts", steps, **gainless).load()
    assert start("parts", **gainless).load()["steps"] == steps


def test_a_run_begun_anew_makes_its_own_warm_start(
    warm_recipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A run that ended before its first checkpoint leaves a warm start behind; another recipe in its folder does not take it."""

    def killed(self: TrainingRun) -> None:
        raise KeyboardInterrupt

    def begun(**changes: Any) -> float:
        recipe = warm_recipe(**changes)
        with pytest.raises(KeyboardInterrupt):
            run_training(recipe)
        return float(json.loads((Path(recipe.output_dir) / "warm_start/warm_start.json").read_text())["epochs"])

    monkeypatch.setattr(TrainingRun, "make_trainer", killed)
    assert begun(warm_start={**WARM, "epochs": 1}) == 1.0
    assert begun(warm_start={**WARM, "epochs": 1}, learning_rate=1e-3) == 1.0 and "made anew" not in caplog.text
    assert begun(warm_start={**WARM, "epochs": 2}, prune_encoder_layers=1) == 2.0 and "made anew" in caplog.text


def test_more_tokens_than_frames_is_told(warm_recipe: Callable[..., Any], capsys: Any) -> None:
    with pytest.raises(UserError, match=r"of 16 training utterances have more tokens.*downsample_rate \(it is 40\)"):
        run_training(warm_recipe(projector={**CTC, "downsample_rate": 40}))


def test_no_head_no_warm_start(tiny_recipe: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"projector\.ctc"):
        tiny_recipe(warm_start=WARM)
    with pytest.raises(UserError, match=r"projector\.ctc"):
        tiny_recipe(ctc_weight=0.3)


def test_no_warm_start_on_a_stream(warm_recipe: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="warm_start needs the set whole: set it to null"):
        warm_recipe(train={"dataset": "somebody/speech", "streaming": True})


def test_joint_loss_trains_the_head(warm_recipe: Callable[..., Any], tmp_path: Path) -> None:
    """With a CTC share the head's own tensors move during the run; without one they stay as the warm start left them."""
    heads = {}
    for weight in (0.0, 0.5):
        folder = tmp_path / str(weight)
        run_training(warm_recipe(ctc_weight=weight, output_dir=str(folder)), warm_start_folder=tmp_path / "warm")
        heads[weight] = SlamAsrForConditionalGeneration.from_pretrained(folder).projector.ctc.blank
    start = load_file(tmp_path / "warm/best/trainable.safetensors")["projector.ctc.blank"]
    assert torch.allclose(heads[0.0], start, atol=1e-3)
    assert (heads[0.5] - start).abs().max() > 5e-3
