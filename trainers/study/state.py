"""What became of each run: finished, failed, running or waiting, all of it readable from the study's folder."""

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trainers.feature_cache.store import lock_file
from trainers.files import write_json, write_jsonl
from trainers.study.plan import PlannedRun
from trainers.study.recipe import StudyRecipe

FINISHED, FAILED, RUNNING, WAITING = "finished", "failed", "running", "waiting"


def read_result(run: PlannedRun) -> list[dict[str, Any]] | None:
    """The rows of a finished run, or None."""
    try:
        result = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return list(result["rows"]) if result.get("key") == run.key else None


def write_result(run: PlannedRun, rows: Sequence[dict[str, Any]], seconds: float) -> None:
    """Declare a run finished."""
    write_json(run.folder / "result.json", {"key": run.key, "seconds": round(seconds, 3), "rows": list(rows)})
    (run.folder / "error.json").unlink(missing_ok=True)


def read_failure(run: PlannedRun) -> dict[str, Any] | None:
    """What made a run fail, or None."""
    try:
        failure = json.loads((run.folder / "error.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(failure) if failure.get("key") == run.key else None


def write_failure(run: PlannedRun, error: BaseException) -> None:
    """Record a failure, with its traceback and how often the run was tried."""
    earlier = read_failure(run)
    write_json(
        run.folder / "error.json",
        {
            "key": run.key,
            "error": " ".join(str(error).split()) or type(error).__name__,
            "type": type(error).__name__,
            "attempts": (earlier["attempts"] if earlier else 0) + 1,
            "traceback": "".join(traceback.format_exception(error)),
        },
    )


@contextmanager
def claim(run: PlannedRun) -> Iterator[bool]:
    """Whether this process has the run to itself; the claim ends with the process, however that ends."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with lock_file(run.folder / "run.lock", wait=False, patience=0.5) as owned:  # `status_of` may be looking
        if owned:
            write_json(run.folder / "started.json", {"key": run.key, "at": time.time()})
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


def collect(study: StudyRecipe, runs: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """The rows of all finished runs in the plan's order; `results.jsonl` is written anew, whole."""
    study.folder.mkdir(parents=True, exist_ok=True)
    with lock_file(study.folder / "results.lock", wait=True):
        rows = [row for run in runs for row in read_result(run) or []]
        write_jsonl(study.folder / "results.jsonl", rows)
    return rows


def describe_status(runs: Sequence[PlannedRun]) -> str:
    """Counts, the running and failed runs by name, and how long the rest may take, as text."""
    states = {run.name: status_of(run) for run in runs}
    counts = {state: list(states.values()).count(state) for state in (FINISHED, RUNNING, WAITING, FAILED)}
    lines = [f"{len(runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    seconds = []
    for run in runs:
        if states[run.name] == FINISHED:
            seconds.append(json.loads((run.folder / "result.json").read_text(encoding="utf-8"))["seconds"])
        elif states[run.name] == RUNNING:
            lines.append(f"  running  {run.name}{_progress(run)}")
        elif states[run.name] == FAILED:
            failure = read_failure(run) or {"error": "", "attempts": 0}
            lines.append(f"  failed   {run.name} (tried {failure['attempts']} x): {failure['error']}")
    left = counts[WAITING] + counts[RUNNING]
    if seconds and left:
        mean = sum(seconds) / len(seconds)
        lines.append(
            f"A run takes {mean / 60:.1f} minutes on average; {left} are left: {left * mean / 3600:.1f} h, one at a time."
        )
    if counts[FAILED]:
        lines.append("Start the study again with --retry-failed to try the failed runs once more.")
    return "\n".join(lines)


def _progress(run: PlannedRun) -> str:
    """`, step 120 of 400` from the last checkpoint, where there is one."""
    states = sorted(
        (run.folder / "model").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime
    )
    if not states:
        return ""
    try:
        state = json.loads(states[-1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return f", checkpoint of step {state['global_step']} of {state['max_steps']}"
