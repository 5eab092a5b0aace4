"""Several processes on one study: they take runs from the same folder and share the devices."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import torch

from trainers.errors import DiskFullError, UserError
from trainers.recipes.recipe_values import DATA_ROLES
from trainers.study.data import StudyData
from trainers.study.execute import work
from trainers.study.plan import PlannedRun, in_shard, plan_runs
from trainers.study.recipe import StudyRecipe, load_study
from trainers.training.checkpoints import room_to_write

logger = logging.getLogger(__name__)


def run_jobs(
    source: str, overrides: Sequence[str], jobs: int, shard: tuple[int, int] | None, retry_failed: bool, quiet: bool
) -> int:
    """Do a study with `jobs` processes; returns how many of them ended badly or had failed runs.

    SIGTERM and an interrupt from the keyboard are handed on; each process saves a checkpoint and ends.

    Raises:
        SystemExit: with 143 or 130, when that has happened.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: give 1 or more.")
    study = load_study(source, overrides)
    runs = plan_runs(study)
    mine = in_shard(runs, shard)
    data = StudyData(study, runs, quiet)
    for run in mine:  # read and check once, not in every process
        try:
            for role in DATA_ROLES:
                data.rows(run.recipe, role)
        except DiskFullError:
            raise
        except (UserError, OSError) as error:  # the run fails of it and records that; others go on
            logger.warning(f"{run.name}: {error}")
    del data
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(source, list(overrides), number, jobs, shard, retry_failed, quiet))
        for number in range(jobs)
    ]

    told: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    previous = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for process in processes:
            if not told:
                process.start()
        for process in processes:
            if process.pid is not None:
                process.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if told:
        raise SystemExit(128 + told[0])
    for process in processes:
        if process.exitcode is not None and process.exitcode < 0:
            print(
                f"A process of the study was killed by signal {-process.exitcode}, perhaps for want of memory: then give "
                "fewer --jobs. The same command goes on with its runs.",
                file=sys.stderr,
                flush=True,
            )
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard's reaches all; the first process hands it on as SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
    try:
        with room_to_write(study.folder, guess=False):
            failed = work(study, [*mine[start:], *mine[:start]], runs, retry_failed=retry_failed, quiet=quiet)
    except DiskFullError as error:
        print(f"slam-asr study: error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(1 if failed else 0)


def _end_with_parent() -> None:
    """Stop as by SIGTERM when the process that started this one is gone: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
