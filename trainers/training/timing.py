"""How long a run takes here, measured on a few of its own steps."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.recipe import Recipe
from trainers.training.arguments import planned_steps
from trainers.training.run import TrainingRun
from trainers.training.telling import Progress

_STEPS = 4
_GIB = 2**30


@dataclass
class Measured:
    """
    Minutes of the run and what they are made of; GiB of the GPU at its peak, None without one.

    warm_start: whether the run has one, whose time is not among the minutes.
    """

    minutes: float
    seconds_a_step: float
    seconds_a_validation: float | None
    peak_gib: float | None
    warm_start: bool


def measure(recipe: Recipe, datasets: Mapping[str, Any]) -> Measured:
    """Train a few steps and transcribe one batch of the validation set, with the recipe's own model; nothing is kept.

    The first step is not counted: it makes the optimiser's state and, on a GPU, loads kernels.
    """
    never = 10**6
    with tempfile.TemporaryDirectory() as folder:
        own = dataclasses.replace(
            recipe, output_dir=folder, max_steps=_STEPS, eval_steps=never, save_steps=never, logging_steps=never,
            early_stopping_patience=None, report_to=[],
        )  # fmt: skip
        trainer = TrainingRun(own, {"train": datasets["train"]}).prepared_trainer()
        timer = StepTimer()
        trainer.add_callback(timer)
        trainer.remove_callback(Progress)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        step = statistics.median(timer.seconds[1:])
        steps, each_epoch = planned_steps(recipe, trainer.train_sampler)
        validation, each, total = datasets.get("validation"), None, steps * step
        if validation is not None:
            some = validation.select(range(min(len(validation), recipe.eval_batch_size)))
            started = time.monotonic()
            trainer.transcribe(some, "measuring")
            each = (time.monotonic() - started) * len(validation) / len(some)
            total += each * (steps // (recipe.eval_steps or each_epoch) + 1)
        peak = torch.cuda.max_memory_allocated() / _GIB if trainer.args.device.type == "cuda" else None
    return Measured(total / 60, step, each, peak, recipe.begins_with_warm_start)


class StepTimer(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.monotonic() - self._started)
