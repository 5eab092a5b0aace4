"""Doing the runs of a study, each once, whatever interrupts it."""

import dataclasses
import gc
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.encoder_depth.block_measures import profile_encoder
from trainers.encoder_depth.selection import TRAINED, needs_of
from trainers.errors import DiskFullError, UserError
from trainers.inference.torch_engine import load_pipeline
from trainers.provenance import HealingRecord
from trainers.recipe import Recipe
from trainers.results import ResultRow
from trainers.study.data import StudyData, sample_rows
from trainers.study.elastic import ElasticRows
from trainers.study.healed import healed_model
from trainers.study.plan import PlannedRun, contents, heal_content
from trainers.study.recipe import StudyRecipe
from trainers.study.rows import score_run
from trainers.study.state import claim, collect, read_failure, read_result, write_failure, write_result
from trainers.training.arguments import make_sampler, planned_steps
from trainers.training.checkpoints import list_checkpoints, remove, room_to_write
from trainers.training.models import build_processor
from trainers.training.run import run_training
from trainers.training.warm_start import shared_key

logger = logging.getLogger(__name__)


class NotYetError(UserError):
    """A run waits for another one, which is not finished: it has not failed, and is done when the study is started again."""


def work(
    study: StudyRecipe,
    runs: Sequence[PlannedRun],
    all_runs: Sequence[PlannedRun],
    *,
    retry_failed: bool = False,
    quiet: bool = False,
    report: Callable[[], Any] | None = None,
) -> int:
    """
    Do every run of `runs` that is not finished, not failed before (unless `retry_failed`) and not being done elsewhere.

    Args:
        all_runs: the whole plan: what caches must hold, and what `results.jsonl` collects.
        report: called after each run.
    Returns:
        The number of runs that failed here.
    Raises:
        DiskFullError: there is no room to go on; the run that met it is not counted as failed.
    """
    data = StudyData(study, all_runs, quiet)
    failed = 0
    tried: set[str] = set()
    # Selection by the trained model's loss waits for that model: such runs come after the others.
    for run in sorted(runs, key=lambda run: needs_of(run.point["selection"]) == TRAINED):
        if read_result(run) is not None or run.key in tried:
            continue
        tried.add(run.key)
        if read_failure(run) is not None and not retry_failed:
            logger.warning(f"{run.name} failed before and is left out; --retry-failed tries it again")
            continue
        with claim(run) as owned:
            if not owned or read_result(run) is not None:  # another process has it, or had it
                continue
            if not quiet:
                print(f"\n== {run.name}", flush=True)
            try:
                with room_to_write(study.folder, guess=False):
                    finish(study, run, data)
            except DiskFullError:  # no fault of the run: it and all others wait for room
                raise
            except NotYetError as error:
                logger.warning(f"{run.name} waits: {error}")
            except Exception as error:  # whatever it is, it is recorded and must not take the other runs with it
                write_failure(run, error)
                failed += 1
                print(f"{run.name} failed: {error}", file=sys.stderr, flush=True)
        collect(study, all_runs)
        if report is not None:
            try:
                report()
            except Exception:  # a plot must not stop the runs that remain
                logger.exception("The report could not be written")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return failed


def finish(study: StudyRecipe, run: PlannedRun, data: StudyData) -> list[ResultRow]:
    """`perform`, and what comes of it recorded: to be called by who has claimed the run."""
    started = time.monotonic()
    rows = perform(study, run, data)
    write_result(run, rows, time.monotonic() - started)
    if not study.keep_checkpoints:
        _remove_checkpoints(run.model_folder)
    return rows


def perform(study: StudyRecipe, run: PlannedRun, data: StudyData) -> list[ResultRow]:
    """Train a run's model (or go on with it), score the saved model on sound, and return its result rows."""
    if run.point["healing"] == "elastic":
        return perform_elastic(run, data, study)
    profile = profile_with_losses(run, data) if needs_of(run.point["selection"]) == TRAINED else None
    kept = data.kept_blocks(run, profile)
    blocks = len(data.encoder(run.recipe).encoder.layers)
    recipe = dataclasses.replace(run.recipe, test=[])
    count = recipe.prune_encoder_layers if isinstance(recipe.prune_encoder_layers, int) else None
    if count is None or kept != tuple(range(blocks - count)):
        recipe = dataclasses.replace(
            recipe, prune_encoder_layers=[index for index in range(blocks) if index not in kept]
        )
    if (same := same_system(run, kept, data.runs)) is not None:
        return same
    model: SlamAsrForConditionalGeneration | None = None
    healing: HealingRecord | None = None
    if run.point["healing"] in ("encoder", "lora"):
        model, healing = healed_model(study, run, recipe, kept, data)
    datasets = datasets_for(run.recipe, kept, data, None if model is None else model.audio_encoder)
    start = warm_start_folder(study, run, recipe)
    training = run_training(
        recipe,
        resume=True,
        datasets=datasets,
        data_counts=data.describe(run.recipe),
        model=model,
        warm_start_folder=start,
        healing=healing,
    )
    del model
    return score_run(run, recipe, training, data, run.folder)


def same_system(run: PlannedRun, kept: Sequence[int], runs: Sequence[PlannedRun]) -> list[ResultRow] | None:
    """The rows of a finished run that differs in nothing but how it chose the same blocks, as rows of `run`."""

    def content(one: PlannedRun) -> list[Any]:
        return [one.point["healing"], {**one.recipe.outcome(), "prune_encoder_layers": None}]

    own = content(run)
    for other in runs:
        rows = read_result(other) if other is not run and content(other) == own else None
        if rows and rows[0]["kept_encoder_layers"] == list(kept):
            logger.warning(f"{run.name} keeps the blocks of {other.name}, which is finished; its results are taken")
            return [
                {
                    **row,
                    "name": run.name,
                    "key": run.key,
                    "prune_encoder_layers": run.point["prune_encoder_layers"],
                    "selection": run.point["selection"],
                    "same_as": other.name,
                }
                for row in rows
            ]
    return None


def perform_elastic(run: PlannedRun, data: StudyData, study: StudyRecipe) -> list[ResultRow]:
    """One projector for several depths; each depth of the saved model is then scored by itself."""
    if not study.cache.enabled:
        raise UserError("An elastic run needs the feature cache: set cache.enabled to true.")
    depths = [data.elastic_depth(run, depth) for depth in run.depths]
    datasets: dict[str, Any] = {}
    for role in ("train", "validation"):
        if getattr(run.recipe, role):
            cache = data.features(run.recipe, role, depths)
            datasets[role] = ElasticRows([cache.dataset(depth) for depth in depths], in_turn=role != "train")
    # Its epochs are longer by the number of depths; it gets as many steps and validations as a run of one depth.
    eval_steps = run.recipe.eval_steps
    if eval_steps is None:
        sampler = make_sampler(run.recipe, datasets["train"].depths[0], build_processor(run.recipe))
        eval_steps = planned_steps(run.recipe, sampler)[1]
    recipe = dataclasses.replace(
        run.recipe,
        test=[],
        num_epochs=run.recipe.num_epochs / len(depths),
        eval_steps=eval_steps,
    )
    start = warm_start_folder(study, run, recipe)
    training = run_training(
        recipe, resume=True, datasets=datasets, data_counts=data.describe(run.recipe), warm_start_folder=start
    )
    rows: list[ResultRow] = []
    for depth in run.depths:
        prune = list(depth) if isinstance(depth, tuple) else depth
        rows += score_run(run, recipe, training, data, run.folder / f"depth-{prune}", prune=prune)
    return rows


def warm_start_folder(study: StudyRecipe, run: PlannedRun, recipe: Recipe) -> Path | None:
    """Where a run's CTC warm start is: one folder for all runs whose encoder, LLM and data are the same; None without one."""
    if recipe.warm_start is None:
        return None
    heal = heal_content(study) if study.heal is not None and run.point["healing"] != "none" else None
    depths = [list(depth) if isinstance(depth, tuple) else depth for depth in run.depths]
    key = shared_key(recipe, run.point["healing"], depths, heal, contents(run.recipe), study.features)
    return study.folder / "warm_starts" / key[:16]


def datasets_for(
    recipe: Recipe, kept: tuple[int, ...], data: StudyData, healed: SlamAsrEncoder | None = None
) -> dict[str, Any]:
    """Training and validation data of a run: cached states at its depth, or sound without a cache.

    Args:
        healed: the encoder whose states they are; the recipe's own when None.
    """
    found: dict[str, Any] = {}
    for role in ("train", "validation"):
        rows = data.rows(recipe, role)
        if rows is None:
            continue
        if not data.study.cache.enabled:
            found[role] = rows
        elif healed is None:
            found[role] = data.features(recipe, role, [kept]).dataset(kept)
        else:
            found[role] = data.build_cache(rows, healed, recipe, [kept]).dataset(kept)
    return found


def profile_with_losses(run: PlannedRun, data: StudyData) -> Any:
    """The profile with losses, by the model of the unpruned projector-only run with the same data and seed.

    Raises:
        UserError: the study has no such run.
        NotYetError: it is not finished.
    """
    wanted = {**run.point, "prune_encoder_layers": 0, "selection": "last", "healing": "none", "lora": False}
    baseline = next((other for other in data.runs if other.point == wanted), None)
    if baseline is None:
        raise UserError(
            f"selection {run.point['selection']} needs the unpruned projector-only run in the grid: add 0 to "
            "grid.prune_encoder_layers and false to grid.lora."
        )
    if read_result(baseline) is None:
        raise NotYetError(
            f"selection {run.point['selection']} needs {baseline.name}, which is not finished. Start the study again later."
        )
    pipe = load_pipeline(baseline.model_folder, device=run.recipe.loading_device)
    train = data.rows(run.recipe, "train")
    assert train is not None
    sample = sample_rows(train, data.study.profile_samples)
    return profile_encoder(
        pipe.model.audio_encoder,
        sample,
        pipe.processor.extract_features,
        model=pipe.model,
        processor=pipe.processor,
        quiet=data.quiet,
    )


def _remove_checkpoints(folder: Path) -> None:
    """Delete what only an unfinished run needs."""
    for path in list_checkpoints(folder):
        remove(path)
    shutil.rmtree(folder / "best", ignore_errors=True)
