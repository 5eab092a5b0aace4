"""Times of words: dynamic time warping, choice of heads, estimates, and the model left as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.scoring_slam_asr import look_again
from modeling_slam_asr.timestamps_slam_asr import (
    active_frames,
    alignment_matrix,
    attention_words,
    eager_attention,
    estimate_words,
    token_pieces,
    warp,
)
from tests.modeling_slam_asr.conftest import talk


def diagonal(tokens: int, positions: int, sharpness: float = 2.0) -> np.ndarray:
    """Attention that walks evenly through the audio: (tokens, positions), rows sum to 1."""
    centres = (np.arange(tokens) + 0.5) * positions / tokens
    weights = np.exp(-((np.arange(positions)[None] + 0.5 - centres[:, None]) ** 2) / sharpness)
    return weights / weights.sum(1, keepdims=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=15))
def test_warping_finds_the_path(lengths: list[int]) -> None:
    """Each row owns a run of columns; a cost that is lower there gives the runs back."""
    cost = np.ones((len(lengths), sum(lengths)))
    starts = np.cumsum([0, *lengths[:-1]])
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        cost[row, start : start + length] = 0.0
    assert warp(cost).tolist() == starts.tolist()


def test_words_of_a_steady_walk() -> None:
    pieces = ["en", " to", " tr", "e", ""]  # the last is the end token
    words = attention_words(pieces, diagonal(5, 50), 0.1, start=10.0, sound=(10.0, 15.0))
    assert [word.text for word in words] == ["en", " to", " tre"]
    assert [(word.start, word.end) for word in words] == [
        pytest.approx(times, abs=0.15) for times in ((10.0, 11.0), (11.0, 12.0), (12.0, 14.0))
    ]


def test_words_that_share_a_token_and_tokens_without_text() -> None:
    words = attention_words(["", "a b", " c"], diagonal(3, 30), 0.1, 0.0, (0.2, 2.9))
    assert [word.text for word in words] == ["a", " b", " c"]
    assert all(0.2 <= word.start <= word.end <= 2.9 for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert attention_words([""], diagonal(1, 5), 0.1, 0.0, (0.0, 0.5)) == []


def test_the_heads_that_walk_are_chosen() -> None:
    """Two of twelve heads follow the audio; the others look at one place or everywhere."""
    rng = np.random.default_rng(0)
    tokens, positions, prompt = 20, 80, 7
    heads = [rng.dirichlet(np.ones(positions), tokens) for _ in range(5)]
    heads += [np.eye(positions)[np.full(tokens, 3)] * 0.9 for _ in range(5)]
    heads += [diagonal(tokens, positions) * share for share in (0.05, 0.9)]  # a head may spend little on audio
    length = prompt + positions + tokens
    layers = [torch.zeros(6, tokens, length), torch.zeros(6, tokens, length)]
    for index, head in enumerate(heads):
        layers[index // 6][index % 6, :, prompt : prompt + positions] = torch.from_numpy(head)
    matrix = alignment_matrix(layers, torch.arange(prompt, prompt + positions), heads=2)
    assert np.abs(warp(-matrix) - np.arange(tokens) * positions / tokens).max() <= 2


def test_pieces_join_to_the_text(tiny_processor: Any) -> None:
    tokenizer = tiny_processor.tokenizer
    for text in ("en to tre", "små fugle — fem", " x  y", "日本", ""):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        pieces = token_pieces(tokenizer, [*ids, tokenizer.eos_token_id])
        assert "".join(pieces) == text
        assert len(pieces) == len(ids) + 1
        assert pieces[-1] == ""


def test_estimates_keep_out_of_silence() -> None:
    rate = 16_000
    samples = np.concatenate([np.zeros(rate), talk(2.0), np.zeros(rate), talk(2.0), np.zeros(rate)]).astype(np.float32)
    active = active_frames(samples, rate)
    end = 5.0 + len(samples) / rate
    words = estimate_words("twee drie vier acht", active, 5.0, end)
    assert [word.text for word in words] == ["twee", " drie", " vier", " acht"]
    assert words[0].start == pytest.approx(6.0, abs=0.1)
    assert words[1].end == pytest.approx(8.0, abs=0.6)
    assert words[2].start > 7.8
    assert words[3].end == pytest.approx(end - 1.0, abs=0.1)
    assert estimate_words("", active, 0.0, 1.0) == []
    assert active_frames(np.zeros(100, dtype=np.float32), rate).all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_implementation_is_restored(make_tiny_model: Any, implementation: str) -> None:
    model = make_tiny_model(attn_implementation=implementation)
    with eager_attention(model.language_model):
        assert model.language_model.config._attn_implementation == "eager"
    assert model.language_model.config._attn_implementation == implementation
    with pytest.raises(RuntimeError), eager_attention(model.language_model):
        raise RuntimeError
    assert model.language_model.config._attn_implementation == implementation


def test_attention_rows_are_those_that_predict_the_tokens(tiny_model: Any, tiny_processor: Any) -> None:
    inputs = tiny_processor.apply_transcription_request([talk(1.0), talk(0.4, seed=1)])
    looks = look_again(tiny_model, [[60, 61, 62], [63]], **inputs, attentions=True)
    plain = look_again(tiny_model, [[60, 61, 62], [63]], **inputs)
    for look, other, audio, tokens in zip(looks, plain, (10, 5), (3, 1), strict=True):
        assert len(look.audio) == audio
        assert len(look.attentions or []) == tiny_model.config.text_config.num_hidden_layers
        for layer in look.attentions or []:
            assert layer.shape[1] == tokens
            torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:2]), atol=1e-4, rtol=0)
            # causal: the row that predicts the first token sees the request only
            assert layer[:, 0, -tokens:].abs().max() == 0
        torch.testing.assert_close(look.log_probs, other.log_probs, atol=1e-4, rtol=0)


def test_words_in_the_pipeline(pipe: Any) -> None:
    recording = talk(3.0)
    answer = pipe(recording, return_timestamps="word", max_new_tokens=30)
    plain = pipe(recording, max_new_tokens=30)
    assert answer["text"] == plain["text"]
    assert answer["approximate_timestamps"] is True
    assert [chunk["text"] for chunk in answer["chunks"]] == answer["text"].split()
    times = [time for chunk in answer["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= len(recording) / 16_000 + 0.01
    assert pipe.model.language_model.config._attn_implementation == "sdpa"


def test_words_of_a_q_former_have_no_times(make_tiny_model: Any, make_pipe: Any, tiny_processor: Any) -> None:
    pipe = make_pipe(make_tiny_model(projector_type="qformer", projector_num_queries=8, projector_num_layers=1))
    with pytest.raises(ValueError, match="Q-Former"):
        pipe(talk(1.0), return_timestamps="word")
