"""A training loop for what the Trainer does not train: encoders that are healed, base models that are pretrained."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from trainers.errors import UserError
from trainers.files import replacing


class TrainingLoop:
    """
    Takes steps on a loss, and survives interruption.

    A checkpoint (`torch.save`, for the run's own use, read with `weights_only=True`) holds weights, optimisers and step;
    batches depend on the step alone, so a resumed run sees what an uninterrupted one would.

    Args:
        parameters: what is trained, by name. Their gradients are clipped to norm 1 together.
        optimizers: with the peak learning rates; `rate_factor(step)` is the share of them that a step takes.
        checkpoint: file to write every `save_steps` or `save_seconds` and at the end, and to go on from.
        description: names the training in the progress bar and in errors.
    Attributes:
        step: steps taken. seconds: time they took. mean_loss: of the last fifty or so.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        steps: int,
        rate_factor: Callable[[int], float],
        checkpoint: Path,
        description: str,
        save_steps: int | None = None,
        save_seconds: float = math.inf,
        quiet: bool = False,
    ) -> None:
        self.parameters, self.optimizers = dict(parameters), list(optimizers)
        self.steps, self.rate_factor = steps, rate_factor
        self.checkpoint, self.save_steps, self.save_seconds = checkpoint, save_steps, save_seconds
        self.description, self.quiet = description, quiet
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0
        self.seconds = 0.0
        self.mean_loss = math.nan
        if checkpoint.is_file():
            self._load()

    def run(self, loss_of_step: Callable[[int], torch.Tensor]) -> None:
        """Take the remaining steps. `loss_of_step(step)` makes the batch of that step and returns its mean loss.

        Raises:
            UserError: a loss is not finite.
        """
        started = saved = time.monotonic()
        before = self.seconds
        with tqdm(
            total=self.steps, initial=self.step, desc=self.description, unit="step", mininterval=1, disable=self.quiet
        ) as bar:
            while self.step < self.steps:
                value = self._take(loss_of_step(self.step))
                self.mean_loss = value if math.isnan(self.mean_loss) else 0.98 * self.mean_loss + 0.02 * value
                bar.set_postfix(loss=f"{self.mean_loss:.4f}", refresh=False)
                bar.update()
                now = time.monotonic()
                self.seconds = before + now - started
                due = self.save_steps is not None and self.step % self.save_steps == 0
                if due or now - saved > self.save_seconds or self.step == self.steps:
                    self._save_state()
                    saved = now

    def _take(self, loss: torch.Tensor) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"The loss of the {self.description} is {value} in step {self.step + 1}: lower the learning rate."
            )
        factor = self.rate_factor(self.step)
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return value

    def _save_state(self) -> None:
        state = {
            "weights": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "mean_loss": self.mean_loss,
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        device = next(iter(self.parameters.values())).device
        state = torch.load(self.checkpoint, map_location=device, weights_only=True)
        try:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(state["weights"][name])
            optimizers = state["optimizers"] if "optimizers" in state else [state["optimizer"]]  # as healing in 0.1.0
            for optimizer, saved in zip(self.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(saved)
            self.step = int(state["step"])
            self.seconds, self.mean_loss = state.get("seconds", 0.0), state.get("mean_loss", math.nan)
        except KeyError as error:
            raise UserError(
                f"{str(self.checkpoint)!r} is no checkpoint of this training: it has no {error}. Remove it to begin anew."
            ) from error
