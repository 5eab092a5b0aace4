"""The training loss over a large vocabulary, without float32 copies of all logits."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

_CHUNK = 2**21  # logits in float32 at a time


class _CrossEntropy(torch.autograd.Function):
    """The gradient is made along with the loss, so no probabilities are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, count: torch.Tensor, consume: bool
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits.device)
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = logits.detach() if consume else torch.empty_like(logits)
        labelled = targets != -100
        for rows in labelled.nonzero().squeeze(-1).split(max(1, _CHUNK // logits.shape[-1])):
            log_probabilities = logits[rows].float().log_softmax(-1)
            target = targets[rows, None]
            loss -= log_probabilities.gather(1, target).sum()
            if gradient is not None:
                change = log_probabilities.exp_()
                change.scatter_add_(1, target, -torch.ones_like(target, dtype=change.dtype))
                gradient[rows] = change.div_(count).to(gradient)
        if gradient is not None:
            gradient[~labelled] = 0
        ctx.gradient, ctx.consume = gradient, consume
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gradient = ctx.gradient
        if not ctx.consume:
            return gradient * upstream.to(gradient), None, None, None
        if gradient is None:
            raise RuntimeError(
                "This loss has been differentiated, and its gradient is used up. Compute it with return_logits=True to "
                "differentiate it more than once."
            )
        ctx.gradient = None
        return gradient.mul_(upstream.to(gradient)), None, None, None


@torch.compiler.disable  # how many rows have a label is known at run time only
def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, count: int | torch.Tensor, consume: bool = False
) -> torch.Tensor:
    """
    Cross-entropy of `logits` `(rows, vocab)` and `targets` `(rows)`, summed and divided by `count`, in float32.

    Rows whose target is -100 count nothing. The gradient has the dtype of `logits`; it cannot be differentiated again.

    Args:
        consume: write the gradient over the logits, which nobody needs any more: with a large vocabulary they are the
            largest tensor of a training step. The gradient can then be asked for once.
    """
    return _CrossEntropy.apply(logits, targets, count, consume)
