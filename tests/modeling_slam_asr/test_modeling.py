"""The training loss."""

from typing import Any

import pytest
import torch

from modeling_slam_asr import modeling_slam_asr
from modeling_slam_asr.modeling_slam_asr import cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 64, 2**22])
def test_loss_and_gradient_are_torchs_own(dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_slam_asr, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(11, 30, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, 30, (11,), generator=generator)
    targets[::3] = -100
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / 5
    (wanted,) = torch.autograd.grad(3 * expected, logits)
    loss = cross_entropy(logits, targets, torch.tensor(5))
    (found,) = torch.autograd.grad(3 * loss, logits)
    assert loss.dtype == torch.float32 and found.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 2e-3, rtol=1e-2)
    copy = logits.detach().clone().requires_grad_()
    consumed = cross_entropy(copy * 1, targets, 5, consume=True)
    (found_over,) = torch.autograd.grad(3 * consumed, copy, retain_graph=True)
    assert torch.equal(found_over, found) and consumed.item() == loss.item()
    with pytest.raises(RuntimeError, match="return_logits=True"):
        torch.autograd.grad(3 * consumed, copy)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(logits, targets, 5), expected)


def test_rare_tokens_have_a_gradient_in_float16() -> None:
    """A share of a large batch's loss is below the smallest number of float16, until the loss is scaled up."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 30_000, generator=generator).half().requires_grad_()
    targets, scale = torch.randint(0, 30_000, (8,), generator=generator), 2.0**16
    exact = logits.detach().double().requires_grad_()
    torch.nn.functional.cross_entropy(exact, targets, reduction="sum").div(2_000).backward()
    (cross_entropy(logits, targets, 2_000) * scale).backward()
    assert torch.allclose(logits.grad.double() / scale, exact.grad, rtol=1e-2, atol=1e-9)


def test_without_labels_the_loss_is_zero() -> None:
    logits = torch.randn(3, 7, requires_grad=True)
    loss = cross_entropy(logits, torch.full((3,), -100), 1)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
    loss = cross_entropy(logits * 1, torch.full((3,), -100), 1, consume=True)
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_gradient_takes_the_place_of_the_logits() -> None:
    """A step's peak holds one tensor of the logits' size, not two."""
    logits = torch.randn(4, 9).requires_grad_()
    scaled = logits * 2
    loss = cross_entropy(scaled, torch.tensor([1, 2, -100, 3]), 3, consume=True)
    torch.testing.assert_close(scaled.detach().sum(-1), torch.zeros(4), atol=1e-6, rtol=0)  # of a gradient, not logits
    wanted = torch.autograd.grad(cross_entropy(logits * 2, torch.tensor([1, 2, -100, 3]), 3), logits)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], wanted)


def test_logits_are_left_out_on_request(tiny_model: Any, batch: Any) -> None:
    whole, short = tiny_model(**batch), tiny_model(**batch, return_logits=False)
    assert whole.logits is not None and short.logits is None
    assert short.loss.item() == whole.loss.item()
    parameter = next(tiny_model.projector.parameters())
    gradients = [torch.autograd.grad(output.loss, parameter)[0] for output in (whole, short)]
    assert torch.equal(*gradients)
