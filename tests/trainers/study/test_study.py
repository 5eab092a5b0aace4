"""The study: planned by content, each run done once, interrupted and failed runs handled, everything reported."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.cli import run_command
from trainers.errors import DiskFullError, UserError
from trainers.evaluation.speed import BUSY
from trainers.files import lock_file
from trainers.study.execute import warm_start_folder, work
from trainers.study.jobs import run_jobs
from trainers.study.plan import folder_mark, in_shard, parse_shard, plan_runs
from trainers.study.recipe import StudyRecipe, load_study
from trainers.study.report import write_report
from trainers.study.state import (
    claim,
    collect,
    describe_status,
    read_failure,
    read_result,
    status_of,
    write_failure,
)
from trainers.training.checkpoints import last_checkpoint, read_marker


def do(path: Path, **options: Any) -> tuple[StudyRecipe, list[Any], int]:
    study = load_study(path)
    runs = plan_runs(study)
    return study, runs, work(study, runs, runs, quiet=True, **options)


def test_plan(make_study: Any) -> None:
    study = load_study(make_study(grid={"selection": ["last", "evenly_spaced"], "seed": [1, 2]}))
    runs = plan_runs(study)
    # Per seed: unpruned x LoRA, and pruned x selection x LoRA.
    assert len(runs) == 2 * (2 + 4) and len({run.key for run in runs}) == len(runs)
    assert [run.point["seed"] for run in runs] == [1] * 6 + [2] * 6
    assert runs[0].name.startswith("tiny-whisper-encoder-prune0-projector-seed1-")
    assert runs[0].recipe.lora is None and runs[1].recipe.lora is not None and runs[1].recipe.lora.r == 2


def test_a_part_of_a_grid_and_the_whole_share_their_runs(make_study: Any, tiny_llama_dir: Path, tmp_path: Path) -> None:
    """The LLM's name is in a run's only where a study has several; the run is the same."""
    other = shutil.copytree(tiny_llama_dir, tmp_path / "another-llm")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    (part,) = plan_runs(load_study(make_study(grid={"prune_encoder_layers": [1], "lora": [False]})))
    part.folder.mkdir(parents=True)
    whole = plan_runs(load_study(make_study(grid={"text_model": [str(other), str(tiny_llama_dir)]})))
    assert len(whole) == 8
    assert [run.folder for run in whole if run.key == part.key] == [part.folder]
    assert [run.name for run in whole if run.folder == part.folder] == [part.name]


def test_key_is_of_the_content(make_study: Any, tmp_path: Path, tiny_whisper_encoder_dir: Path) -> None:
    def keys(**changes: Any) -> list[str]:
        return [run.key for run in plan_runs(load_study(make_study(**changes)))]

    plain = keys()
    assert keys(output_dir=str(tmp_path / "elsewhere"), name="other", run={"num_workers": 3}) == plain
    assert not set(keys(run={"learning_rate": 2e-3})) & set(plain)
    assert not set(keys(cache={"dtype": "bfloat16"})) & set(plain)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_whisper_encoder_dir, moved)
    assert keys(run={"audio_model": str(moved)}) == plain
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    other = tmp_path / "moved2"
    shutil.copytree(moved, other)
    assert not set(keys(run={"audio_model": str(other)})) & set(plain)
    rules = [{"when": {"lora": True}, "set": {"max_steps": 6}}]
    ruled = keys(rules=rules)
    assert [new == old for new, old in zip(ruled, plain, strict=True)] == [True, False, True, False]
    assert len(keys(skip=[{"lora": True, "prune_encoder_layers": [0, 1]}])) == 2


def test_a_file_in_the_home_folder_is_read_for_a_runs_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.jsonl").write_text("{}", encoding="utf-8")
    folder_mark.cache_clear()
    assert folder_mark("~/own.jsonl") == folder_mark(str(tmp_path / "own.jsonl")) != ""


def test_a_warm_start_is_of_the_contents(make_study: Any, tmp_path: Path) -> None:
    """Of the data's files and the base models' weights, as a run's key is: a manifest that grows has another one."""
    manifest = tmp_path / "own.jsonl"

    def folder(line: str) -> Path | None:
        manifest.write_text(line, encoding="utf-8")
        folder_mark.cache_clear()  # of a process's own: another start of the study looks anew
        run = {
            "projector": {"ctc": True, "hidden_size": 32},
            "warm_start": {"epochs": 1},
            "train": {"dataset": str(manifest)},
        }
        study = load_study(make_study(run=run))
        first = plan_runs(study)[0]
        return warm_start_folder(study, first, first.recipe)

    one, other = folder('{"audio": "a.wav", "text": "en"}\n'), folder('{"audio": "a.wav", "text": "to"}\n')
    assert one is not None and other is not None and one != other
    assert folder('{"audio": "a.wav", "text": "en"}\n') == one


def test_mistakes_in_a_study(make_study: Any) -> None:
    for parts, message in (
        ({"grid": {"dept": [1]}}, "grid.dept"),
        ({"rules": [{"when": {"lorra": True}, "set": {}}]}, "'lorra' is no axis of the grid. Did you mean 'lora'"),
        ({"grid": {"healing": ["encoder"]}}, "there is no `heal`"),
        ({"grid": {"selection": ["first"]}}, "selection.0 is 'first'"),
        ({"skip": [{"seed": 1}]}, "nothing of the grid"),
        ({"run": {"learning_rat": 1}}, "learning_rat"),
    ):
        with pytest.raises(UserError) as error:
            plan_runs(load_study(make_study(**parts)))
        assert message in str(error.value)
    with pytest.raises(UserError, match="no `run`, so it is no study"):
        load_study("miniature")
    with pytest.raises(UserError, match="such as 1/4"):
        parse_shard("5/4")


def test_shards_share_the_runs(make_study: Any) -> None:
    runs = plan_runs(load_study(make_study(grid={"seed": [1, 2, 3]})))
    parts = [in_shard(runs, (index, 5)) for index in range(1, 6)]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in runs)


def test_whole_study_by_the_command(make_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_study()
    assert run_command("study", [str(path), "--quiet"]) == 0
    folder = tmp_path / "study"
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(row["encoder_layers"], row["lora"]) for row in rows] == [(2, False), (2, True), (1, False), (1, True)]
    wanted = (
        "name audio_model text_model language prune_encoder_layers encoder_layers lora seed wer wer_ci cer substitutions "
        "deletions insertions hits reference_words total_params trainable_params encoder_params train_seconds eval_rtfx"
    )
    assert set(wanted.split()) <= rows[0].keys()
    assert rows[0]["language"] == "da" and rows[0]["total_params"] > rows[2]["total_params"]
    report = (folder / "report.md").read_text()
    assert "4 of 4 runs are finished, 0 failed" in report and "| projector | 2 |" in report
    for name in ("wer_by_depth.svg", "error_types.svg", "wer_by_total_params.svg"):
        assert (folder / name).stat().st_size > 3000 and name in report
    # Speed is in a plot only where the machine had nothing else to do while it was measured.
    measured = [json.loads(path.read_text())["speed"] for path in folder.glob("runs/*/evaluation/metrics.json")]
    idle = all(speed["other_cores"] < BUSY for speed in measured)
    speed_plot = folder / "wer_by_eval_rtf.svg"
    assert len(measured) == 4 and speed_plot.is_file() == idle and (speed_plot.name in report) == idle
    assert not list(folder.glob("runs/*/model/checkpoint-*"))
    # What each model's card says of its data.
    for path_of_run in folder.glob("runs/*/model/metrics.json"):
        data = json.loads(path_of_run.read_text())["data"]
        assert set(data) == {"train", "validation", "test"} and data["train"]["kept"] > 0 and data["train"]["hours"] > 0
    # A plot of an earlier report, drawn when fewer rows were there, does not outlive its figures.
    for metrics in folder.glob("runs/*/evaluation/metrics.json"):
        written = json.loads(metrics.read_text())
        metrics.write_text(json.dumps({**written, "speed": {**written["speed"], "other_cores": 2 * BUSY}}))
    speed_plot.write_text("an earlier one")
    study = load_study(path)
    assert speed_plot.name not in write_report(study, plan_runs(study)).read_text() and not speed_plot.exists()
    # Again: nothing is done twice.
    stamps = {run: run.stat().st_mtime_ns for run in folder.glob("runs/*/result.json")}
    assert run_command("study", [str(path), "--quiet"]) == 0
    assert {run: run.stat().st_mtime_ns for run in folder.glob("runs/*/result.json")} == stamps
    capsys.readouterr()
    assert run_command("study", [str(path), "--status"]) == 0
    assert "4 runs: 4 finished, 0 running, 0 waiting, 0 failed" in capsys.readouterr().out


def test_failures_are_recorded_and_retried_on_demand(make_study: Any, tmp_path: Path) -> None:
    path = make_study(grid={"prune_encoder_layers": [0], "lora": [False, True]}, run={"eval_steps": 2})
    study, runs, failed = do(path)
    assert failed == 0
    broken = runs[1]
    (broken.folder / "result.json").unlink()
    shutil.rmtree(broken.folder / "model")
    (broken.folder / "model").write_text("in the way")
    assert do(path)[2] == 1
    failure = read_failure(broken)
    assert failure is not None and failure["attempts"] == 1 and "Traceback" in failure["traceback"]
    assert status_of(broken) == "failed" and len(collect(study, runs)) == 1
    assert do(path)[2] == 0 and read_result(broken) is None  # not tried again by itself
    assert broken.name in write_report(study, runs).read_text()
    (broken.folder / "model").unlink()
    assert do(path, retry_failed=True)[2] == 0
    assert read_result(broken) is not None and read_failure(broken) is None


def test_base_models_are_looked_at_before_any_run(
    make_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parts, says in (
        ({"run": {"audio_model": str(tmp_path / "none")}}, "audio_model="),
        ({"run": {"text_model": str(tmp_path / "none")}}, "text_model="),
        ({"grid": {"prune_encoder_layers": [0, 9]}}, "prune_encoder_layers=9 is not possible"),
        ({"grid": {"prune_encoder_layers": [0, 9], "healing": ["elastic"]}}, "prune_encoder_layers=9 is not possible"),
    ):
        assert run_command("study", [str(make_study(**parts)), "--quiet"]) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "study" / "runs").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '"x"', "{}", '{"key": null}', "[" * 200_000, '{"key": KEY}', '{"key": KEY, "rows": 3}',
     '{"key": KEY, "rows": [], "seconds": 1}', '{"key": KEY, "rows": [{"wer": 0.1}], "seconds": 1}',
     '{"key": KEY, "rows": [null], "seconds": 1, "attempts": "many"}'],
)  # fmt: skip
def test_state_files_of_other_shapes_count_as_unfinished(make_study: Any, content: str) -> None:
    study = load_study(make_study(grid={"prune_encoder_layers": [1], "lora": [False]}))
    (run,) = plan_runs(study)
    run.folder.mkdir(parents=True)
    for name in ("result.json", "error.json", "started.json"):
        (run.folder / name).write_text(content.replace("KEY", json.dumps(run.key)))
    assert read_result(run) is None and read_failure(run) is None and status_of(run) == "waiting"
    assert collect(study, [run]) == [] and "1 waiting" in describe_status([run])
    with claim(run) as owned:
        assert owned and json.loads((run.folder / "started.json").read_text())["key"] == run.key
    write_failure(run, ValueError("no"))
    failure = read_failure(run)
    assert failure is not None and failure["attempts"] == 1 and status_of(run) == "failed"


STATE_KEYS = [
    "key",
    "rows",
    "seconds",
    "error",
    "type",
    "attempts",
    "traceback",
    "at",
    "wer",
    "global_step",
    "max_steps",
]
STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(STATE_KEYS), inner, max_size=8),
    max_leaves=12,
)


def test_state_files_of_any_shape_count_as_unfinished(make_study: Any) -> None:
    (run,) = plan_runs(load_study(make_study(grid={"prune_encoder_layers": [1], "lora": [False]})))
    checkpoint = run.model_folder / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    own_key = f'"key": {json.dumps(run.key)}'

    @settings(max_examples=150, deadline=None)
    @given(
        st.binary(max_size=30) | STATES.map(lambda value: json.dumps(value).replace('"key": null', own_key).encode())
    )
    def look(content: bytes) -> None:
        for name in ("result.json", "error.json", "started.json"):
            (run.folder / name).write_bytes(content)
        for name in ("trainer_state.json", "complete.json"):
            (checkpoint / name).write_bytes(content)
        assert read_result(run) is None and read_marker(checkpoint) is None
        assert status_of(run) in ("waiting", "failed")
        with claim(run) as owned:
            assert owned
            describe_status([run])

    look()


def test_a_full_disk_fails_no_run(make_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_study(grid={"prune_encoder_layers": [1], "lora": [False]})
    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="Make room"):
        patch.setattr("trainers.study.execute.perform", _out_of_space)
        do(path)
    _, runs, failed = do(path)
    assert failed == 0 and [status_of(run) for run in runs] == ["finished"]


def _out_of_space(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_looking_at_a_run_does_not_take_it_away(make_study: Any) -> None:
    run = plan_runs(load_study(make_study()))[0]
    with claim(run):
        pass
    looking, done = threading.Event(), threading.Event()

    def look() -> None:  # what `status_of` does, for longer than it does
        with lock_file(run.folder / "run.lock", wait=False):
            looking.set()
            time.sleep(0.1)
        done.set()

    threading.Thread(target=look).start()
    looking.wait(10)
    with claim(run) as owned:
        assert owned
    done.wait(10)
    with claim(run), claim(run) as again:
        assert not again


def _in_process(path: Path) -> None:
    do(path)


def test_kill_and_two_processes(make_study: Any, tmp_path: Path) -> None:
    path = make_study(run={"max_steps": 30, "save_steps": 1, "eval_steps": 30})
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_in_process, args=(path,))
    killed.start()
    deadline = time.monotonic() + 90
    runs = plan_runs(load_study(path))
    while not list((runs[1].folder / "model").glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    assert status_of(runs[0]) == "finished" and status_of(runs[1]) == "waiting"
    stamp = (runs[0].folder / "result.json").stat().st_mtime_ns
    together = [context.Process(target=_in_process, args=(path,)) for _ in range(2)]
    for process in together:
        process.start()
    for process in together:
        process.join(150)
    assert [process.exitcode for process in together] == [0, 0]
    assert [status_of(run) for run in runs] == ["finished"] * 4
    assert (runs[0].folder / "result.json").stat().st_mtime_ns == stamp
    assert len((tmp_path / "study" / "results.jsonl").read_text().splitlines()) == 4


def test_ways_to_choose_blocks(make_study: Any) -> None:
    grid = {
        "prune_encoder_layers": [0, 1, [0]],
        "selection": ["last", "cosine", "cka", "leave_one_out"],
        "lora": [False],
    }
    study, runs, failed = do(make_study(grid=grid, run={"max_steps": 2, "eval_steps": 2}))
    assert failed == 0 and len(runs) == 1 + 4 + 1
    rows = collect(study, runs)
    kept = {row["selection"]: row["kept_encoder_layers"] for row in rows}
    assert kept["listed"] == [1] and all(len(blocks) == 1 for name, blocks in kept.items() if name not in ("last",))
    profile = json.loads(next((study.folder / "profiles").glob("*.json")).read_text())
    least = min(range(2), key=lambda index: profile["cosine_distance"][index])
    assert kept["cosine"] == [1 - least]
    # Five ways to keep one of two blocks, and the whole encoder: three systems are trained.
    trained = [row for row in rows if "same_as" not in row]
    assert len(trained) == len({str(row["kept_encoder_layers"]) for row in rows}) == 3
    assert len(list(study.folder.glob("runs/*/model"))) == 3
    by_name = {row["name"]: row for row in trained}
    for row in rows:
        if "same_as" in row:
            same = by_name[row["same_as"]]
            assert row["kept_encoder_layers"] == same["kept_encoder_layers"] and row["wer"] == same["wer"]
            assert row["key"] != same["key"] and row["run"] == same["run"] and row["name"] != same["name"]
    assert (study.folder / rows[0]["run"] / "predictions.jsonl").is_file()


def test_a_run_that_waits_for_another_has_not_failed(make_study: Any, caplog: pytest.LogCaptureFixture) -> None:
    """`leave_one_out` needs the unpruned run, which another process may still be training."""
    grid = {"selection": ["leave_one_out"], "lora": [False]}
    study = load_study(make_study(grid=grid, run={"max_steps": 2, "eval_steps": 2}))
    runs = plan_runs(study)
    unpruned, waiting = sorted(runs, key=lambda run: run.point["selection"] == "leave_one_out")
    assert work(study, [waiting], runs, quiet=True) == 0
    assert status_of(waiting) == "waiting" and f"needs {unpruned.name}, which is not finished" in caplog.text
    assert work(study, runs, runs, quiet=True) == 0 and status_of(waiting) == "finished"


def test_without_a_cache_it_is_the_same(make_study: Any, tmp_path: Path) -> None:
    grid = {"prune_encoder_layers": [1], "lora": [True]}
    cached = collect(*do(make_study(grid=grid))[:2])
    plain = make_study(grid=grid, cache={"enabled": False}, output_dir=str(tmp_path / "plain"))
    direct = collect(*do(plain)[:2])
    assert direct[0]["key"] != cached[0]["key"]
    for name in ("wer", "substitutions", "deletions", "insertions", "total_params", "trainable_params"):
        assert direct[0][name] == cached[0][name]


@pytest.mark.slow
def test_jobs_share_a_study(make_study: Any, tmp_path: Path) -> None:
    assert run_command("study", [str(make_study(run={"max_steps": 2})), "--jobs", "2", "--quiet"]) == 0
    assert len((tmp_path / "study" / "results.jsonl").read_text().splitlines()) == 4


def _jobs(path: Path) -> None:
    run_jobs(str(path), [], 1, None, False, True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_the_one_that_started_them(make_study: Any, tmp_path: Path, number: int) -> None:
    path = make_study(run={"max_steps": 100_000, "eval_steps": 100_000, "save_steps": 1})
    first = multiprocessing.get_context("spawn").Process(target=_jobs, args=(path,))
    first.start()
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("study/runs/*/model/checkpoint-*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (started,) = [child for child in psutil.Process(first.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    os.kill(first.pid or 0, number)
    first.join(120)
    assert first.exitcode == (143 if number == signal.SIGTERM else -9)
    started.wait(120)
    runs = plan_runs(load_study(path))
    assert [status_of(run) for run in runs] == ["waiting"] * 4
    assert last_checkpoint(runs[0].folder / "model") is not None


@pytest.mark.parametrize(("name", "count"), [("miniature_study", 12), ("real_speech_study", 78), ("paper_study", 240)])
def test_studies_of_the_project(name: str, count: int) -> None:
    runs = plan_runs(load_study(name))
    assert len(runs) == count
    if name == "paper_study":
        epochs = {(run.point["audio_model"][15:], run.point["lora"]): run.recipe.num_epochs for run in runs}
        assert epochs[("small", False)] == 8 and epochs[("large-v2", True)] == 10 and len(epochs) == 6
        assert {run.recipe.train[0].max_hours for run in runs if run.point["language"] == "nl"} == {50}
        assert all(run.recipe.test[0].language == run.point["language"] for run in runs)
