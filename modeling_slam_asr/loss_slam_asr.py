"""The training loss over a large vocabulary, without float32 copies of all logits."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

_CHUNK = 2**22  # logits in float32 at a time


class _CrossEntropy(torch.autograd.Function):
    """The gradient is made along with the loss, so no probabilities are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits.device)
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        for rows in (targets != -100).nonzero().squeeze(-1).split(max(1, _CHUNK // logits.shape[-1])):
            log_probabilities = logits[rows].float().log_softmax(-1)
            target = targets[rows, None]
            loss -= log_probabilities.gather(1, target).sum()
            if gradient is not None:
                change = log_probabilities.exp_()
                change.scatter_add_(1, target, -torch.ones_like(target, dtype=change.dtype))
                gradient[rows] = change.div_(count).to(gradient)
        ctx.save_for_backward(gradient)
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient), None, None


@torch.compiler.disable  # how many rows have a label is known at run time only
def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, count: int | torch.Tensor) -> torch.Tensor:
    """
    Cross-entropy of `logits` `(rows, vocab)` and `targets` `(rows)`, summed and divided by `count`, in float32.

    Rows whose target is -100 count nothing. The gradient has the dtype of `logits`; it cannot be differentiated again.
    """
    return _CrossEntropy.apply(logits, targets, count)
