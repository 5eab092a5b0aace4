"""Runs that are killed, told to stop, or left with half-written checkpoints go on to the same weights."""

import errno
import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from modeling_slam_asr import SlamAsrForConditionalGeneration
from tests.trainers.test_files import LOCK_AND_WAIT, started
from tests.trainers.training.processes import kill_at, start, wait_for_step
from trainers.errors import DiskFullError, UserError
from trainers.recipe import from_dict
from trainers.train import run_training
from trainers.training.checkpoints import (
    MARKER,
    TRAINABLE,
    last_checkpoint,
    list_checkpoints,
    load_trainable,
    mark_complete,
    read_marker,
    remove_incomplete,
    room_to_write,
    rotate,
    save_trainable,
    trainable_state,
)
from trainers.training.run import LOCK

# Dropout, accumulation, an epoch's end that no checkpoint falls on, and evaluations that decide about the best weights.
SETTINGS = {
    "lora": True,
    "max_steps": 15,
    "save_steps": 4,
    "eval_steps": 6,
    "batch_size": 3,
    "gradient_accumulation_steps": 2,
}


def values_for(tiny_recipe_values: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    return {**tiny_recipe_values, **SETTINGS, "output_dir": str(output_dir)}


@pytest.fixture(scope="module")
def uninterrupted(tiny_recipe_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run_training(from_dict(values_for(tiny_recipe_values, folder)))
    return folder


def assert_same_run(folder: Path, reference: Path) -> None:
    """The final and the best weights, and what was logged, are those of the reference."""
    for name in ("model.safetensors", f"best/{TRAINABLE}"):
        found, expected = load_file(folder / name), load_file(reference / name)
        assert found.keys() == expected.keys()
        assert max((found[key] - expected[key]).abs().max().item() for key in found) <= 1e-6
    states = [json.loads((path / "trainer_state.json").read_text(encoding="utf-8")) for path in (folder, reference)]
    curves = [
        [(entry["step"], entry["eval_wer"]) for entry in state["log_history"] if "eval_wer" in entry]
        for state in states
    ]
    assert curves[0] == curves[1]
    assert states[0]["global_step"] == states[1]["global_step"]


def test_killed_at_random_moments(tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path) -> None:
    values = values_for(tiny_recipe_values, tmp_path / "run")
    rng = random.Random(int(os.environ.get("SLAM_ASR_TEST_SEED", "0")))
    killed = 0
    for step in sorted(rng.sample(range(2, 14), 3)):
        killed += kill_at(values, tmp_path / "log", step, rng) == -9
    assert killed >= 2
    assert run_training(from_dict(values), resume=True)["steps"] == 15
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_sigterm_and_ctrl_c_save_and_leave(
    number: signal.Signals, code: int, tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    values = {**values_for(tiny_recipe_values, tmp_path / "run"), "num_workers": 1}
    log = tmp_path / "log"
    process = start(values, log)
    assert wait_for_step(process, log, 5)
    for child in psutil.Process(process.pid).children():  # a scheduler tells the data loader's workers too
        child.send_signal(number)
    os.kill(process.pid or 0, number)
    process.join(240)
    assert process.exitcode == code
    saved = last_checkpoint(tmp_path / "run")
    assert saved is not None and saved.name not in ("checkpoint-4",)
    text = log.read_text(encoding="utf-8")
    assert f"Stopped by {number.name} after step {saved.name.removeprefix('checkpoint-')}" in text
    assert "Traceback" not in text
    assert not (tmp_path / "run" / "metrics.json").exists()
    run_training(from_dict(values), resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("how", ["no marker", "truncated", "missing file", "deleted half way", "marker a folder"])
def test_a_half_written_checkpoint_is_not_picked(
    how: str, tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    for name in ("metrics.json", "model.safetensors"):
        (run / name).unlink()
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-12", "checkpoint-15"]
    newest = run / "checkpoint-15"
    if how == "no marker":
        (newest / MARKER).unlink()
    elif how == "truncated":
        data = (newest / "optimizer.pt").read_bytes()
        (newest / "optimizer.pt").write_bytes(data[: len(data) // 2])
    elif how == "missing file":
        (newest / "trainer_state.json").unlink()
    elif how == "marker a folder":
        (newest / MARKER).unlink()
        (newest / MARKER).mkdir()
    else:
        for path in newest.glob("*.pt"):
            path.unlink()
    assert last_checkpoint(run) == run / "checkpoint-12"
    if how == "marker a folder":
        assert remove_incomplete(run) == [newest] and not newest.exists()
    if how == "truncated":
        run_training(from_dict(values_for(tiny_recipe_values, run)), resume=True)
        assert_same_run(run, uninterrupted)


def test_killed_while_finishing(tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    for name in ("metrics.json", "model.safetensors", "trainer_state.json"):
        (run / name).unlink()
    metrics = run_training(from_dict(values_for(tiny_recipe_values, run)), resume=True)
    assert metrics["steps"] == 15
    before = json.loads((uninterrupted / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["wer"] == before["wer"] and metrics["loss"] == before["loss"]
    assert_same_run(run, uninterrupted)


def test_resume_with_nothing_there_starts(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> None:
    values = {**values_for(tiny_recipe_values, tmp_path / "run"), "max_steps": 1, "validation": []}
    assert run_training(from_dict(values), resume=True)["steps"] == 1


def test_more_steps_may_be_asked_of_a_finished_run(
    tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    values = {**values_for(tiny_recipe_values, run), "max_steps": 17}
    assert run_training(from_dict(values), resume=True)["steps"] == 17
    assert "Resuming with another max_steps" in caplog.text


def test_a_resumed_run_takes_the_rates_that_it_is_given_now(
    tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    rates = {"learning_rate": 1e-5, "lora_learning_rate": 1e-6, "weight_decay": 0.5, "schedule": "constant"}
    run_training(from_dict({**values_for(tiny_recipe_values, run), **rates, "max_steps": 17}), resume=True)
    groups = torch.load(run / "checkpoint-17" / "optimizer.pt", weights_only=True)["param_groups"]
    found = {(round(group["lr"], 9), group["weight_decay"]) for group in groups}
    assert found == {(1e-5, 0.5), (1e-5, 0.0), (1e-6, 0.5)}


def test_a_run_can_be_ended_where_it_stands(
    tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    for name in ("metrics.json", "model.safetensors", "trainer_state.json"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoint-15")
    metrics = run_training(from_dict({**values_for(tiny_recipe_values, run), "max_steps": 1}), resume=True)
    assert metrics["steps"] == 12 and metrics["wer"] is not None
    best = load_file(run / "best" / "trainable.safetensors")
    saved = SlamAsrForConditionalGeneration.from_pretrained(run).state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in best.items())


def test_a_longer_run_that_was_killed_is_not_taken_for_finished(
    tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    values = {**values_for(tiny_recipe_values, run), "max_steps": 17}

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainers.train.TrainingRun.load_data", killed)
        run_training(from_dict(values), resume=True)
    assert run_training(from_dict(values), resume=True)["steps"] == 17


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("No space left on device"),
        Exception("No space left on device (os error 28)"),  # of the tokenizers
    ],
)
def test_a_full_disk_is_named(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"full .*No space left.*Make room"),
        room_to_write(tmp_path / "run", guess=False),
    ):
        raise error
    for other in (OSError(errno.EACCES, "Permission denied"), RuntimeError("shapes"), UserError("a mistake")):
        with pytest.raises(type(other), match=str(other.args[-1])) as caught, room_to_write(tmp_path):
            raise other
        assert caught.value is other


def make_checkpoints(folder: Path, steps: list[int]) -> None:
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        save_trainable({"a": torch.ones(3)}, checkpoint)
        mark_complete(checkpoint, step=step)


def test_markers_and_rotation(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, [5, 10, 100])
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    marker = read_marker(tmp_path / "checkpoint-5")
    assert marker is not None and marker["step"] == 5
    (tmp_path / "checkpoint-10" / MARKER).write_text("{", encoding="utf-8")
    (tmp_path / "checkpoint-200").mkdir()
    assert remove_incomplete(tmp_path) == [tmp_path / "checkpoint-10", tmp_path / "checkpoint-200"]
    make_checkpoints(tmp_path, [200])
    rotate(tmp_path, keep=1)
    assert list_checkpoints(tmp_path) == [tmp_path / "checkpoint-200"]
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "marker",
    ["[]", "null", "{}", '{"files": []}', '{"files": {}}', '{"files": {"a": 1}}', '{"files": {"trainable.safetensors": "1"}}',
     '{"files": 3, "train_seconds": 1}', "[" * 100_000, "\udce9"],
)  # fmt: skip
def test_markers_of_another_shape_are_of_unfinished_checkpoints(marker: str, tmp_path: Path) -> None:
    make_checkpoints(tmp_path, [5])
    (tmp_path / "checkpoint-5" / MARKER).write_text(marker, encoding="utf-8", errors="surrogateescape")
    assert read_marker(tmp_path / "checkpoint-5") is None


@pytest.mark.parametrize("state", ["[]", "{}", '{"global_step": "five"}', '{"unknown": 1}', "{", "null"])
def test_a_trainer_state_of_another_shape_is_of_an_unfinished_checkpoint(state: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    save_trainable({"a": torch.ones(3)}, checkpoint)
    (checkpoint / "trainer_state.json").write_text(state, encoding="utf-8")
    mark_complete(checkpoint, step=5, train_seconds="long" if state == "{}" else 1.0)
    assert read_marker(checkpoint) is None


def test_damaged_best_weights_are_one_clear_line(
    tiny_recipe_values: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    (run / "metrics.json").unlink()
    (run / "best" / TRAINABLE).write_bytes(b"\x08" * 100)
    values = values_for(tiny_recipe_values, run)
    with pytest.raises(UserError, match=r"weights in .*best cannot be read .*Delete this folder and go on"):
        run_training(from_dict(values), resume=True)
    shutil.rmtree(run / "best")
    assert run_training(from_dict(values), resume=True)["steps"] == 15


def test_sigterm_while_a_checkpoint_is_saved(
    tiny_recipe_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        **tiny_recipe_values,
        "max_steps": 4,
        "save_steps": 1,
        "validation": [],
        "output_dir": str(tmp_path / "run"),
    }

    def interrupted(*args: Any) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        return save_trainable(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr("trainers.training.trainer.save_trainable", interrupted)
        run_training(from_dict(values))
    assert stopped.value.code == 143
    saved = last_checkpoint(tmp_path / "run")
    assert saved is not None and saved == list_checkpoints(tmp_path / "run")[-1]
    assert run_training(from_dict(values), resume=True)["steps"] == 4


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_is_named(
    number: int, tiny_recipe_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("trainers.recipe.write_text", refuse)  # the tests may run as a user whom no mode stops
    with pytest.raises(UserError, match=rf"is no folder that can be written to \({os.strerror(number)}\)"):
        run_training(from_dict({**tiny_recipe_values, "output_dir": str(tmp_path / "run")}))


def test_weights_load_strictly(make_tiny_model: Any, tmp_path: Path) -> None:
    model = make_tiny_model()
    state = trainable_state(model)
    save_trainable(state, tmp_path / "good")
    load_trainable(model, tmp_path / "good")
    missing, *_ = sorted(state)
    save_trainable({name: tensor for name, tensor in state.items() if name != missing}, tmp_path / "missing")
    save_trainable({**state, "extra": torch.ones(1)}, tmp_path / "extra")
    save_trainable({**state, missing: torch.ones(1)}, tmp_path / "shape")
    for name, says in (
        ("missing", f"{missing} is missing"),
        ("extra", "extra is not trained"),
        ("shape", r"has shape \(1,\)"),
    ):
        with pytest.raises(UserError, match=says):
            load_trainable(model, tmp_path / name)
    assert all(torch.equal(tensor, trainable_state(model)[name]) for name, tensor in state.items())


def test_checkpoints_of_another_program_are_left_alone(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> None:
    there = tmp_path / "run" / "checkpoint-100" / "pytorch_model.bin"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"weights")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a run's of this program: it has no recipe\.yaml"):
        run_training(from_dict(values_for(tiny_recipe_values, tmp_path / "run")), resume=True)
    assert there.read_bytes() == b"weights" and (tmp_path / "run" / "metrics.json").is_file()


def test_one_run_at_a_time_in_a_folder(
    tiny_recipe_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.training.run.LOCK_PATIENCE", 0.1)
    values = {**tiny_recipe_values, "max_steps": 2, "output_dir": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    holder = started(LOCK_AND_WAIT, tmp_path / "run" / LOCK)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"Another process is training in output_dir='.*run' now"):
            run_training(from_dict(values), resume=resume)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    holder.kill()
    holder.communicate()
    assert run_training(from_dict(values))["steps"] == 2
    with pytest.raises(UserError, match="already holds a run"):
        run_training(from_dict(values))
