"""What both pretraining jobs share: the schedule, the optimisers, and checkpoints to go on from."""

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm


class Muon(torch.optim.Muon):
    """
    Muon whose Newton-Schulz iteration runs in `iteration_dtype`, with updates scaled as `adjust_lr_fn="match_rms_adamw"` does.

    PyTorch's iterates in bfloat16: a quarter of the time where a processor has instructions for it, and thirty times as long
    where it has none.
    """

    iteration_dtype = torch.float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - momentum)
                momentary = parameter.grad.lerp(buffer, momentum).to(self.iteration_dtype)
                update = orthogonalized(momentary, group["ns_coefficients"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.to(parameter), alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))


def orthogonalized(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int = 5) -> torch.Tensor:
    """Nearly the orthogonal factor of a 2-D `matrix`: its singular values brought to between 0.5 and 1.5 or so."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Training:
    """
    Runs steps of a model with Muon for the matrices of its blocks and AdamW for the rest, and survives interruption.

    A checkpoint (torch.save, for the run's own use, read with `weights_only=True`) holds model, optimisers and step;
    batches depend on the step alone, so a resumed run sees what an uninterrupted one would.

    Args:
        model: its 2-D parameters whose names match `is_block_matrix` go to Muon.
        checkpoint: file to write every `save_seconds` and to resume from.
    """

    def __init__(
        self,
        model: nn.Module,
        is_block_matrix: Callable[[str], bool],
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        checkpoint: Path,
        save_seconds: float = 120.0,
    ) -> None:
        self.model, self.steps, self.learning_rate = model, steps, learning_rate
        self.checkpoint, self.save_seconds = checkpoint, save_seconds
        named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        matrices = [value for name, value in named if value.ndim == 2 and is_block_matrix(name)]
        taken = {id(value) for value in matrices}
        others = [value for _, value in named if id(value) not in taken]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        self.step = 0
        self.seconds = 0.0
        self.mean_loss = math.nan  # of the last fifty steps or so
        if checkpoint.is_file():
            self._load()

    def run(self, loss_of_step: Callable[[int], torch.Tensor], description: str) -> None:
        """Take the remaining steps. `loss_of_step(step)` makes the batch of that step and returns its mean loss."""
        started = saved = time.monotonic()
        before = self.seconds
        with tqdm(total=self.steps, initial=self.step, desc=description, unit="step", mininterval=5.0) as progress:
            while self.step < self.steps:
                rate = self.learning_rate * schedule(self.step, self.steps)
                for optimizer in self.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                loss = loss_of_step(self.step)
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                self.step += 1
                value = float(loss.detach())
                self.mean_loss = value if math.isnan(self.mean_loss) else 0.98 * self.mean_loss + 0.02 * value
                progress.set_postfix(loss=f"{self.mean_loss:.3f}", refresh=False)
                progress.update()
                now = time.monotonic()
                self.seconds = before + now - started
                if now - saved > self.save_seconds or self.step == self.steps:
                    self._save()
                    saved = now

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "mean_loss": self.mean_loss,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_suffix(".partial")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.mean_loss = state["step"], state["seconds"], state["mean_loss"]


def schedule(step: int, steps: int, warmup: float = 0.04, floor: float = 0.02) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine down to `floor`."""
    if step < warmup * steps:
        return (step + 1) / (warmup * steps + 1)
    progress = (step - warmup * steps) / max(1.0, (1 - warmup) * steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save_half(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write `tensors` as fp16 safetensors, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(
        {name: value.detach().half().contiguous() for name, value in tensors.items()}, temporary, {"format": "pt"}
    )
    os.replace(temporary, path)


def seconds_and_machine(seconds: float) -> dict[str, Any]:
    """What a result needs beside it to be read: how long it took, and with how many threads."""
    return {"train_seconds": round(seconds), "threads": torch.get_num_threads(), "torch": torch.__version__}
