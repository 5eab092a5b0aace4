"""What became of each run: finished, failed, running or waiting, all of it readable from the study's folder."""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

from trainers.files import lock_file, read_object, write_json, write_jsonl
from trainers.provenance import inconsistency
from trainers.results import STUDY_RESULTS, ResultRow, mean
from trainers.study.plan import PlannedRun
from trainers.study.recipe import StudyRecipe

FINISHED, FAILED, RUNNING, WAITING = "finished", "failed", "running", "waiting"
RESULT, ERROR, STARTED = "result.json", "error.json", "started.json"


class RunResult(TypedDict):
    """`result.json`: what declares a run finished."""

    key: str
    seconds: float
    rows: list[ResultRow]


class Failure(TypedDict):
    """`error.json`: what made a run fail."""

    key: str
    error: str
    type: str
    attempts: int
    traceback: str


def read_finished(run: PlannedRun) -> RunResult | None:
    """A finished run's `result.json`, or None: whatever is not the whole result of this very run is no result."""
    found = read_object(run.folder / RESULT)
    rows, seconds = found.get("rows"), found.get("seconds")
    whole = found.get("key") == run.key and isinstance(seconds, (int, float)) and isinstance(rows, list) and rows
    return cast(RunResult, found) if whole and all(map(_is_row, rows or [])) else None


def read_result(run: PlannedRun) -> list[ResultRow] | None:
    """The rows of a finished run, or None."""
    result = read_finished(run)
    return None if result is None else result["rows"]


def write_result(run: PlannedRun, rows: Sequence[ResultRow], seconds: float) -> None:
    """Declare a run finished."""
    write_json(run.folder / RESULT, RunResult(key=run.key, seconds=round(seconds, 3), rows=list(rows)))
    (run.folder / ERROR).unlink(missing_ok=True)


def read_failure(run: PlannedRun) -> Failure | None:
    """What made a run fail, or None."""
    found = read_object(run.folder / ERROR)
    kinds = {"error": str, "type": str, "attempts": int, "traceback": str}
    whole = found.get("key") == run.key and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return cast(Failure, found) if whole else None


def write_failure(run: PlannedRun, error: BaseException) -> None:
    """Record a failure, with its traceback and how often the run was tried."""
    earlier = read_failure(run)
    failure = Failure(
        key=run.key,
        error=" ".join(str(error).split()) or type(error).__name__,
        type=type(error).__name__,
        attempts=(earlier["attempts"] if earlier else 0) + 1,
        traceback="".join(traceback.format_exception(error)),
    )
    write_json(run.folder / ERROR, failure)


@contextmanager
def claim(run: PlannedRun) -> Iterator[bool]:
    """Whether this process has the run to itself; the claim ends with the process, however that ends."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with lock_file(run.folder / "run.lock", wait=False, patience=0.5) as owned:  # `status_of` may be looking
        if owned:
            write_json(run.folder / STARTED, {"key": run.key, "at": time.time()})
        yield owned


def status_of(run: PlannedRun) -> str:
    """`finished`, `failed`, `running` (in any process that sees this folder) or `waiting`."""
    if read_result(run) is not None:
        return FINISHED
    if (run.folder / "run.lock").exists():
        with lock_file(run.folder / "run.lock", wait=False) as free:
            if not free:
                return RUNNING
    return FAILED if read_failure(run) is not None else WAITING


def collect(study: StudyRecipe, runs: Sequence[PlannedRun]) -> list[ResultRow]:
    """The rows of all finished runs in the plan's order; `results.jsonl` is written anew, whole."""
    study.folder.mkdir(parents=True, exist_ok=True)
    with lock_file(study.folder / "results.lock", wait=True):
        rows = [row for run in runs for row in read_result(run) or []]
        write_jsonl(study.folder / STUDY_RESULTS, rows)
    return rows


def describe_status(runs: Sequence[PlannedRun]) -> str:
    """Counts, the running and failed runs by name, and how long the rest may take, as text."""
    states = {run.name: status_of(run) for run in runs}
    counts = {state: list(states.values()).count(state) for state in (FINISHED, RUNNING, WAITING, FAILED)}
    lines = [f"{len(runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    seconds = []
    for run in runs:
        if (result := read_finished(run)) is not None:
            seconds.append(result["seconds"])
        elif states[run.name] == RUNNING:
            lines.append(f"  running  {run.name}{_progress(run)}")
        elif (failure := read_failure(run)) is not None:
            lines.append(f"  failed   {run.name} (tried {failure['attempts']} x): {failure['error']}")
    left = counts[WAITING] + counts[RUNNING]
    if seconds and left:
        average = mean(seconds)
        lines.append(
            f"A run takes {average / 60:.1f} minutes on average; {left} are left: {left * average / 3600:.1f} h, "
            "one at a time."
        )
    if counts[FAILED]:
        lines.append("Start the study again with --retry-failed to try the failed runs once more.")
    return "\n".join(lines)


def _progress(run: PlannedRun) -> str:
    """`, step 120 of 400` from the last checkpoint, where there is one."""
    states = sorted(run.model_folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    state = read_object(states[-1]) if states else {}
    if not {"global_step", "max_steps"} <= state.keys():
        return ""
    return f", checkpoint of step {state['global_step']} of {state['max_steps']}"


def _is_row(row: Any) -> bool:
    """Whether this is a row of results whose figures agree with each other."""
    if not isinstance(row, dict) or not ResultRow.__required_keys__ <= row.keys():
        return False
    return inconsistency(row) is None
