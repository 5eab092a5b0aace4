"""Two processes train and evaluate as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.trainers.training.processes import free_port, start_together, wait_for_step
from trainers.recipe import from_dict
from trainers.train import run_training
from trainers.training.checkpoints import last_checkpoint

REPOSITORY = Path(__file__).parents[3]
# No dropout: two processes draw other random numbers than one. 16 rows in global batches of 6 leave a last batch of 4.
COMMON = {
    "projector": {"hidden_size": 32, "dropout": 0.0},
    "lora": {"r": 4, "dropout": 0.0},
    "max_steps": 6,
    "learning_rate": 1e-3,
    "eval_steps": 3,
    "eval_batch_size": 4,
}


def test_two_launched_processes_equal_one(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> None:
    values = {**tiny_recipe_values, **COMMON}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(REPOSITORY / "accelerate_configs" / "cpu.yaml"), "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), "-m", "trainers.train", str(recipe)]
    command += ["batch_size=3", f"output_dir={tmp_path / 'two'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    one = run_training(from_dict({**values, "batch_size": 6, "output_dir": str(tmp_path / "one")}))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    # Six utterances in batches of four, shared by two processes: each is counted once.
    assert one["utterances"] == 6


@pytest.mark.parametrize("ctc_weight", [0.0, 0.2])
def test_two_processes_warm_start_together(
    tiny_recipe_values: dict[str, Any], tmp_path: Path, ctc_weight: float
) -> None:
    """They train the projector before the run, also where the run that follows has no loss for its CTC head."""
    values = {
        **tiny_recipe_values, **COMMON, "ctc_weight": ctc_weight, "batch_size": 3, "output_dir": str(tmp_path / "two"),
        "projector": {"hidden_size": 32, "downsample_rate": 2, "ctc": True},
        "warm_start": {"epochs": 4, "batch_size": 2, "learning_rate": 3e-3},
    }  # fmt: skip
    left = tmp_path / "two/warm_start/checkpoint-1"  # of a process that was killed while it saved
    left.mkdir(parents=True)
    for number in range(3000):
        (left / f"{number}.bin").touch()
    processes = start_together(values, tmp_path, 2)
    for process in processes:
        process.join(240)
    logs = [(tmp_path / f"log-{rank}").read_text(encoding="utf-8") for rank in (0, 1)]
    assert [process.exitcode for process in processes] == [0, 0], logs
    assert not left.exists()
    metrics = json.loads((tmp_path / "two/metrics.json").read_text("utf-8"))
    log = json.loads((tmp_path / "two/warm_start/trainer_state.json").read_text("utf-8"))["log_history"]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert len(losses) == 4 and metrics["warm_start"]["ctc_loss"] == min(losses) < 0.9 * losses[0]
    assert metrics["steps"] == COMMON["max_steps"] and metrics["utterances"] == 6


def test_two_processes_stop_together_and_go_on(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> None:
    values = {**tiny_recipe_values, **COMMON, "batch_seconds": 2.0}
    both = {**values, "output_dir": str(tmp_path / "two")}
    processes = start_together(both, tmp_path, 2)
    assert wait_for_step(processes[0], tmp_path / "log-0", 2)
    processes[1].terminate()  # one of them is told; both save and leave
    for process in processes:
        process.join(240)
    logs = [(tmp_path / f"log-{rank}").read_text(encoding="utf-8") for rank in (0, 1)]
    assert [process.exitcode for process in processes] == [143, 143], logs
    saved = last_checkpoint(tmp_path / "two")
    assert saved is not None and (saved / "rng_state_1.pth").is_file()
    processes = start_together(both, tmp_path, 2)
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    # One process takes both micro-batches of a step in turn.
    run_training(from_dict({**values, "gradient_accumulation_steps": 2, "output_dir": str(tmp_path / "one")}))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


def assert_equal_runs(one: Path, two: Path) -> None:
    """Weights and losses within 1e-4; the same transcripts and error counts."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert max((first[key] - second[key]).abs().max().item() for key in first) < 1e-4
    logs = [json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"] for folder in (one, two)]
    for key in ("loss", "eval_loss"):
        curves = [[entry[key] for entry in log if key in entry] for log in logs]
        assert len(curves[0]) > 1 and curves[1] == pytest.approx(curves[0], abs=1e-4)
    metrics = [json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (one, two)]
    for name in ("utterances", "reference_words", "hits", "substitutions", "deletions", "insertions", "wer"):
        assert metrics[0][name] == metrics[1][name], name
    texts = [(folder / "predictions.jsonl").read_text("utf-8") for folder in (one, two)]
    assert texts[0] == texts[1]
