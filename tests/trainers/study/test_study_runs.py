"""What the runs of a study take from its recipe, and what they share: seeds, encoders, warm starts, reports, the GPU."""

import dataclasses
import json
import multiprocessing
import shutil
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from trainers.cli import run_command
from trainers.errors import UserError
from trainers.evaluation.reports import evaluate_rows
from trainers.files import read_object
from trainers.study import rows as scoring
from trainers.study.data import StudyData
from trainers.study.execute import perform, warm_start_folder, work
from trainers.study.healed import healed_model
from trainers.study.jobs import run_jobs
from trainers.study.pairs import paired_intervals
from trainers.study.plan import plan_runs
from trainers.study.recipe import load_study
from trainers.study.state import status_of

ONE_RUN = {"prune_encoder_layers": [1], "lora": [False]}
SHORT = {"max_steps": 2, "eval_steps": 2}


def without_axes(path: Path, *axes: str) -> Path:
    """The study without what its grid says of some axes."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for axis in axes:
        del values["grid"][axis]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_what_run_says_of_an_axis_counts(make_study: Any, tmp_path: Path) -> None:
    path = without_axes(make_study(run={"seed": 7, "prune_encoder_layers": 1}), "seed", "prune_encoder_layers")

    def planned(*overrides: str) -> set[tuple[Any, ...]]:
        runs = plan_runs(load_study(path, overrides))
        return {(run.recipe.seed, run.point["seed"], run.recipe.prune_encoder_layers) for run in runs}

    assert planned() == {(7, 7, 1)}
    assert planned("run.seed=3", "run.prune_encoder_layers=0") == {(3, 3, 0)}
    with pytest.raises(UserError, match=r"run.seed is 7, but grid.seed is \[1, 2\]"):
        planned("grid.seed=[1,2]")
    assert {seed for seed, *_ in planned("grid.seed=[1,7]")} == {1, 7}
    with pytest.raises(UserError, match="push-study"):
        planned("run.push_to_hub=me/model")
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text())["run"], "seed": 9}), encoding="utf-8")
    path.write_text(f"run: {{base: {base.name}}}\ngrid: {{lora: [false]}}\n", encoding="utf-8")
    assert planned() == {(42, 42, 0)}  # a base is a starting point, as for the depth


def test_a_folder_with_the_name_of_a_date(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("study", [str(make_study()), "--plan", "--output-dir", "2026-11-27"]) == 0
    assert "4 runs in 2026-11-27" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--plan"], ["--quiet"]])
def test_an_empty_shard_is_no_failure(make_study: Any, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("study", [str(make_study(grid=ONE_RUN)), "--shard", "4/8", *options]) == 0
    assert "Shard 4/8 is empty: the study has 1 runs" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--quiet", "--dry-run"])
def test_several_gpus_are_refused_before_anything_is_made(
    make_study: Any, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert run_command("study", [str(make_study(run={"device": "auto"})), option]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "CUDA_VISIBLE_DEVICES=0" in said and "for a study `--jobs 2`" in said
    assert not (tmp_path / "study" / "runs").exists() and not (tmp_path / "study" / "features").exists()


def test_a_report_that_fails_stops_no_run(make_study: Any, caplog: pytest.LogCaptureFixture) -> None:
    study = load_study(make_study(grid={"prune_encoder_layers": [1]}, run=SHORT))
    runs = plan_runs(study)

    def report() -> None:
        raise ValueError("no such font")

    assert work(study, runs, runs, quiet=True, report=report) == 0
    assert [status_of(run) for run in runs] == ["finished"] * 2 and "no such font" in caplog.text


def test_a_killed_process_is_told(make_study: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path = make_study(grid=ONE_RUN)

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run_jobs(str(path), [], 1, None, False, True) == 1
    killer.join()
    assert not multiprocessing.active_children()
    assert "killed by signal 9" in capfd.readouterr().err


def test_the_studys_encoder_is_not_in_memory_while_a_run_is_scored(
    make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU holds then is counted as the run's: the base encoder with all blocks is none of it."""
    study = load_study(make_study(grid=ONE_RUN, run=SHORT))
    (run,) = runs = plan_runs(study)
    data = StudyData(study, runs, quiet=True)
    encoder = weakref.ref(data.encoder(run.recipe).encoder)
    alive: list[bool] = []
    load = scoring.load_pipeline

    def look(*args: Any, **options: Any) -> Any:
        alive.append(encoder() is not None)
        return load(*args, **options)

    monkeypatch.setattr(scoring, "load_pipeline", look)
    perform(study, run, data)
    assert alive == [False]


def test_elastic_runs_are_validated_as_often_as_others(make_study: Any) -> None:
    run = {"max_steps": None, "num_epochs": 2, "eval_steps": None, "save_steps": None}
    study = load_study(make_study(grid={"healing": ["none", "elastic"], "lora": [False]}, run=run))
    runs = plan_runs(study)
    assert work(study, runs, runs, quiet=True) == 0
    steps = []
    for one in runs:
        log = json.loads((one.model_folder / "trainer_state.json").read_text())["log_history"]
        steps.append([entry["step"] for entry in log if "eval_wer" in entry])
    assert len(runs) == 3 and steps == [[4, 8]] * 3


def test_one_healed_encoder_wherever_its_speech_lies_and_however_often_it_was_saved(
    make_study: Any, tiny_audio_dir: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_audio_dir / "test", moved)
    made = set()
    for speech, save_steps in ((tiny_audio_dir / "test", 1), (tiny_audio_dir / "test", 2), (moved, 1)):
        heal = {"speech": [str(speech)], "steps": 2, "save_steps": save_steps}
        study = load_study(make_study(grid={**ONE_RUN, "healing": ["encoder"]}, heal=heal))
        (run,) = runs = plan_runs(study)
        recipe = dataclasses.replace(run.recipe, prune_encoder_layers=[1])
        healed_model(study, run, recipe, (0,), StudyData(study, runs, quiet=True))
        made |= {folder.name for folder in (study.folder / "healed").iterdir()}
    assert len(made) == 1


def test_a_warm_start_is_of_the_form_of_the_states(make_study: Any) -> None:
    def folder(dtype: str) -> Path | None:
        run = {"projector": {"ctc": True, "hidden_size": 32}, "warm_start": {"epochs": 1}}
        study = load_study(make_study(run=run, cache={"dtype": dtype}))
        first = plan_runs(study)[0]
        return warm_start_folder(study, first, first.recipe)

    assert folder("float32") == folder("float32") != folder("bfloat16")


def test_an_interval_is_by_the_normalizer_of_the_runs(tmp_path: Path) -> None:
    """Otherwise it is of another rate than the change that it belongs to."""
    spoken = ["En to", "Tre fire", "Fem en", "To tre"]
    said = {"plain": ["en to", "tre fire", "fem en", "to tre"], "better": ["En to", "tre fire", "Fem en", "to tre"]}
    rates = {}
    for name, texts in said.items():
        rows: list[Any] = [
            {"id": str(i), "reference": reference, "prediction": text, "language": "da"}
            for i, (reference, text) in enumerate(zip(spoken, texts, strict=True))
        ]
        rates[name] = evaluate_rows(rows, tmp_path / name, normalizer="none")["wer"]
    assert rates == {"plain": 0.5, "better": 0.25}
    first, second = ({"run": name, "language": "da"} for name in said)
    interval = paired_intervals(tmp_path)(first, second)  # type: ignore[arg-type]
    assert interval is not None and interval[0] <= -0.5 <= interval[1]
    assert read_object(tmp_path / "plain" / "metrics.json")["normalizer"] == "none"
