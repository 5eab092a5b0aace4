"""Several processes on one study: they take runs from the same folder and share the devices."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import torch

from trainers.errors import UserError
from trainers.study.data import StudyData
from trainers.study.execute import work
from trainers.study.plan import PlannedRun, in_shard, plan_runs
from trainers.study.recipe import StudyRecipe, load_study


def run_jobs(
    source: str, overrides: Sequence[str], jobs: int, shard: tuple[int, int] | None, retry_failed: bool, quiet: bool
) -> int:
    """Do a study with `jobs` processes; returns how many of them ended badly or had failed runs.

    SIGTERM and an interrupt from the keyboard are handed on; each process saves a checkpoint and ends.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: give 1 or more.")
    study = load_study(source, overrides)
    runs = plan_runs(study)
    mine = in_shard(runs, shard)
    data = StudyData(study, runs, quiet)
    for run in mine:  # read and check once, not in every process
        for role in ("train", "validation", "test"):
            data.rows(run.recipe, role)
    del data
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(source, list(overrides), number, jobs, shard, retry_failed, quiet))
        for number in range(jobs)
    ]

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    previous = signal.signal(signal.SIGTERM, hand_on)
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        signal.signal(signal.SIGTERM, previous)
    return sum(process.exitcode != 0 for process in processes)


def _work(
    source: str,
    overrides: list[str],
    number: int,
    jobs: int,
    shard: tuple[int, int] | None,
    retry_failed: bool,
    quiet: bool,
) -> None:
    """One process: its share of the processor's cores, and one of the GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if gpus:  # before this process touches a GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    study: StudyRecipe = load_study(source, overrides)
    runs: list[PlannedRun] = plan_runs(study)
    mine = in_shard(runs, shard)
    # Each begins at another run, so that they seldom ask for the same one.
    start = number * len(mine) // jobs
    failed = work(study, [*mine[start:], *mine[:start]], runs, retry_failed=retry_failed, quiet=quiet)
    sys.exit(1 if failed else 0)
