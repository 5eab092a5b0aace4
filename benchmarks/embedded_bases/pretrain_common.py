"""What both pretraining jobs share: the schedule and the optimisers."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from trainers.files import replacing
from trainers.training.loop import TrainingLoop

WARMUP, FLOOR = 0.04, 0.02  # shares of the steps, and of the peak learning rate


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


def orthogonalized(matrix: torch.Tensor, coefficients: tuple[float, float, float]) -> torch.Tensor:
    """Nearly the orthogonal factor of a 2-D `matrix`: its singular values brought to between 0.5 and 1.5 or so."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def training_loop(
    model: nn.Module,
    is_block_matrix: Callable[[str], bool],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    checkpoint: Path,
    description: str,
) -> TrainingLoop:
    """A loop with Muon for the 2-D parameters whose names match `is_block_matrix`, and AdamW for the rest."""
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    matrices = [value for name, value in named.items() if value.ndim == 2 and is_block_matrix(name)]
    taken = {id(value) for value in matrices}
    others = [value for value in named.values() if id(value) not in taken]
    return TrainingLoop(
        named,
        [
            Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
        ],
        steps=steps,
        rate_factor=lambda step: schedule(step, steps),
        checkpoint=checkpoint,
        description=description,
        save_seconds=120.0,
    )


def schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine down to `FLOOR`."""
    if step < WARMUP * steps:
        return (step + 1) / (WARMUP * steps + 1)
    progress = (step - WARMUP * steps) / max(1.0, (1 - WARMUP) * steps)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save_half(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write `tensors` as fp16 safetensors, whole or not at all."""
    halves = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(halves, temporary, {"format": "pt"})


def seconds_and_machine(seconds: float) -> dict[str, Any]:
    """What a result needs beside it to be read: how long it took, and with how many threads."""
    return {"train_seconds": round(seconds), "threads": torch.get_num_threads(), "torch": torch.__version__}
