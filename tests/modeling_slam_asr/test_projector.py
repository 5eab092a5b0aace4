"""Projectors alone, and the CTC head on one: their numbers, lengths, losses and compression."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr import SlamAsrConfig
from modeling_slam_asr.projector_slam_asr import (
    AudioGeometry,
    CtcHead,
    build_projector,
    compress_frames,
    greedy_ctc,
)

from .reference import HIDDEN, OPTIONS, SIZE, reference_projector


@given(st.integers(1, 3000), st.integers(1, 9))
def test_audio_tokens(mel_frames: int, rate: int) -> None:
    joined = AudioGeometry(frames_per_token=rate)
    assert joined.token_count(mel_frames) == -(-mel_frames // 2) // rate
    assert joined.seconds_per_token() == rate / 50
    asked = AudioGeometry(fixed_tokens=7)
    assert (asked.token_count(mel_frames), asked.seconds_per_token(14.0)) == (7, 2.0)
    assert asked.encoder_frames(mel_frames / 100) == max(1, -(-mel_frames // 2))
    assert joined.encoder_frames(mel_frames / 100) % rate == 0


@pytest.mark.parametrize("kind", OPTIONS)
def test_projector_alone(kind: str, tiny_model: Any) -> None:
    config = SlamAsrConfig(**{**tiny_model.config.to_dict(), **OPTIONS[kind], "projector_hidden_size": HIDDEN})
    theirs, ours = reference_projector(kind).eval(), build_projector(config).eval()
    ours.load_state_dict(theirs.state_dict())
    frames = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 23, SIZE)).astype(np.float32))
    output, mask = ours(frames, torch.ones(2, 23, dtype=torch.bool))
    expected = theirs(frames)
    assert output.shape == expected.shape and mask.shape == expected.shape[:2] and mask.all()
    assert torch.allclose(output, expected, atol=1e-6)


# ------------------------------------------------------------------ the CTC head


def test_head_costs_its_width_and_two_numbers(make_ctc_model: Callable[..., Any], tiny_model: Any) -> None:
    model = make_ctc_model()
    width = model.config.text_config.hidden_size
    before, now = tiny_model.parameter_report(), model.parameter_report()
    assert now["projector"] - before["projector"] == width + 2
    assert now["trainable"] - before["trainable"] == width + 2


def test_without_a_head_nothing_changes(make_ctc_model: Callable[..., Any], tiny_model: Any, batch: Any) -> None:
    """The head draws its random numbers after the projector, so the same seed gives the same projector and loss."""
    assert torch.equal(make_ctc_model().eval()(**batch).loss, tiny_model(**batch).loss)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_scores_do_not_depend_on_the_embeddings_scale(scale: float) -> None:
    torch.manual_seed(0)
    head, rows, frames = CtcHead(16), torch.randn(7, 16), torch.randn(2, 5, 16)
    assert torch.allclose(head(frames, rows), head(frames, rows * scale), atol=1e-5)
    assert torch.allclose(head(frames, rows).exp().sum(-1), torch.ones(2, 5))


def test_loss_is_torchs_own(make_ctc_model: Callable[..., Any], batch: Any) -> None:
    model = make_ctc_model().eval()
    output = model(**batch, ctc_weight=1.0)
    tokens = model.ctc_tokens()
    expected = torch.zeros(())
    for row, labels in enumerate(batch["labels"]):
        target = [tokens.index(int(token)) + 1 for token in labels[labels != -100][:-1]]
        frames = output.ctc_log_probs[row, output.ctc_mask[row]]
        expected += torch.nn.functional.ctc_loss(
            frames,
            torch.tensor(target),
            torch.tensor(len(frames)),
            torch.tensor(len(target)),
            reduction="sum",
            zero_infinity=True,
        )
    assert output.logits is None
    assert torch.allclose(output.loss, expected / (batch["labels"] != -100).sum(), atol=1e-5)


def test_joint_loss_is_the_weighted_sum(make_ctc_model: Callable[..., Any], batch: Any) -> None:
    model = make_ctc_model().eval()
    plain, ctc, both = (model(**batch, ctc_weight=weight).loss for weight in (0.0, 1.0, 0.3))
    assert torch.allclose(both, 0.7 * plain + 0.3 * ctc, atol=1e-6)


def test_ctc_alone_trains_the_projector_and_leaves_the_llm(make_ctc_model: Callable[..., Any], batch: Any) -> None:
    model = make_ctc_model(lora={"r": 2}).train()
    model(**batch, ctc_weight=1.0).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("projector."):
            assert parameter.grad is not None, name
        elif parameter.requires_grad:
            assert parameter.grad is None, name


@pytest.mark.parametrize(
    "settings",
    [
        {"projector_ctc": True, "projector_type": "qformer"},
        {"projector_compress": "blank"},
        {"projector_ctc": True, "projector_compress": "silence"},
        {"projector_ctc": True, "projector_compress_keep": 0.0},
        {"projector_ctc": True, "projector_ctc_tokens": [5, 3]},
        {"projector_ctc": True, "projector_ctc_tokens": [10**9]},
        {"projector_ctc": True, "projector_ctc_tokens": []},
    ],
)
def test_settings_that_are_not_possible(settings: dict[str, Any], tiny_model: Any) -> None:
    # Copies: a configuration settles the attention of those that it is given, and the model is everybody's.
    base = {name: getattr(tiny_model.config, name).to_dict() for name in ("audio_config", "text_config")}
    with pytest.raises(ValueError, match="projector_"):
        SlamAsrConfig(**base, **settings)


def test_no_head_no_scores(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="no CTC head"):
        tiny_model.ctc_log_probs(torch.zeros(1, 2, 32))


def segments(best: list[int], blank: list[bool]) -> list[list[int]]:
    """Frames that belong together, the plain way."""
    found: list[list[int]] = []
    before = None
    for frame, (token, silent) in enumerate(zip(best, blank, strict=True)):
        if silent:
            before = None
        elif token == before:
            found[-1].append(frame)
        else:
            found.append([frame])
            before = token
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4), st.floats(0.05, 0.95))
def test_compression_is_the_plain_loop(seed: int, length: int, classes: int, keep: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(3, length, 4, generator=generator)
    log_probs = (3 * torch.randn(3, length, classes + 1, generator=generator)).log_softmax(-1)
    mask = torch.arange(length) < torch.tensor([length, length // 2, 0])[:, None]
    kept, kept_mask = compress_frames(frames, mask, log_probs, keep)
    for row in range(3):
        blank = [not m or float(p) > 1 - keep for m, p in zip(mask[row], log_probs[row, :, 0].exp(), strict=True)]
        expected = segments(log_probs[row, :, 1:].argmax(-1).tolist(), blank)
        assert int(kept_mask[row].sum()) == len(expected)
        for place, group in enumerate(expected):
            assert torch.allclose(kept[row, place], frames[row, group].mean(0), atol=1e-6)


def test_greedy_transcript() -> None:
    best = torch.tensor([[0, 2, 2, 0, 2, 1, 1, 3], [3, 3, 0, 0, 1, 1, 2, 2]])
    log_probs = torch.nn.functional.one_hot(best, 4).float().log_softmax(-1)
    mask = torch.arange(8) < torch.tensor([8, 5])[:, None]
    assert greedy_ctc(log_probs, mask) == [[2, 2, 1, 3], [3, 1]]
