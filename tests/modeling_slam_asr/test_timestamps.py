"""Words with times, second looks at transcripts, and transcripts of overlapping windows: nothing lost, nothing twice."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.pipeline_slam_asr import alignment_matrix, eager_twin, look_again
from modeling_slam_asr.transcripts_slam_asr import (
    Word,
    attention_words,
    confidence,
    estimate_words,
    join_texts,
    join_words,
    merge_overlap,
    split_words,
    token_pieces,
    warp,
)
from modeling_slam_asr.windows_slam_asr import active_frames, is_steady
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


@pytest.mark.parametrize("hiss", [0.0, 1e-3])
def test_a_lone_word_has_its_own_time(hiss: float) -> None:
    """As in one channel of a telephone call: less than a fiftieth of the window is sound, and the rest is no steady noise alone."""
    rate = 16_000
    samples = np.concatenate([np.zeros(20 * rate), talk(0.25), np.zeros(4 * rate)])
    samples = (samples + hiss * np.random.default_rng(0).standard_normal(len(samples))).astype(np.float32)
    active = active_frames(samples, rate)
    (word,) = estimate_words("ja", active, 0.0, len(samples) / rate)
    assert word.start == pytest.approx(20.0, abs=0.03) and word.end == pytest.approx(20.2, abs=0.06)
    assert not is_steady(samples, rate) and is_steady(samples[: 20 * rate], rate)
    speech = (
        0.003 * samples[20 * rate :][np.arange(10 * rate) % (rate // 2)]
    )  # soft, half of the time, with a knock in it
    speech[:2000] *= 300
    assert active_frames(speech, rate).mean() > 0.3


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_eager_twin_shares_its_tensors_and_nothing_else(make_tiny_model: Any, implementation: str) -> None:
    llm = make_tiny_model(attn_implementation=implementation).language_model
    twin = eager_twin(llm)
    assert twin.config._attn_implementation == "eager"
    assert llm.config._attn_implementation == implementation
    shared = [mine is theirs for mine, theirs in zip(llm.parameters(), twin.parameters(), strict=True)]
    assert shared and all(shared)
    tokens = torch.arange(5)[None]
    torch.testing.assert_close(twin(tokens).logits, llm(tokens).logits)


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


def timed(words: list[str], durations: list[float]) -> list[Word]:
    """Words one after the other."""
    placed, clock = [], 0.0
    for word, duration in zip(words, durations, strict=True):
        placed.append(Word(f" {word}", clock, clock + duration))
        clock += duration
    return placed


def windows_of(words: list[Word], cuts: list[float], overlap: float) -> list[tuple[float, float, list[Word]]]:
    """Each window's start, end and the words whose middle lies in it."""
    end = words[-1].end
    starts = [0.0] + [cut - overlap for cut in cuts]
    ends = [*cuts, end]
    return [
        (a, b, [w for w in words if a <= w.middle < b or (b == end and w.middle <= b)])
        for a, b in zip(starts, ends, strict=True)
    ]


def merged(windows: list[tuple[float, float, list[Word]]], slack: float) -> list[str]:
    held: list[Word] = []
    before_end = 0.0
    for start, end, words in windows:
        if held:
            left, right = merge_overlap(held, words, start, before_end, slack)
            held = left + right
        else:
            held = list(words)
        before_end = end
    return [word.text.strip() for word in held]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_comes_back_when_times_are_known(data: st.DataObject) -> None:
    """Few different words and many repetitions, any durations, any cuts: the worst case for an alignment by text alone."""
    words = data.draw(st.lists(st.sampled_from(["ja", "nee", "de", "de hond"]), min_size=1, max_size=60))
    words = " ".join(words).split()
    durations = data.draw(st.lists(st.floats(0.05, 1.5), min_size=len(words), max_size=len(words)))
    text = timed(words, durations)
    overlap = data.draw(st.floats(0.5, 5.0))
    cuts: list[float] = []
    clock = overlap
    while clock < text[-1].end - 0.1 and len(cuts) < 6:
        clock += data.draw(st.floats(overlap, 20.0))
        if clock < text[-1].end:
            cuts.append(clock)
    assert merged(windows_of(text, cuts, overlap), slack=0.0) == words


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(8, 120))
def test_a_text_comes_back_when_times_are_rough(seed: int, count: int) -> None:
    """Times wrong by up to 0.8 s in each window, as estimates are; words repeat, but not within an overlap."""
    rng = random.Random(seed)
    words = [f"w{i % 40}" for i in range(count)]
    text = timed(words, [rng.uniform(0.1, 0.8) for _ in words])
    overlap = 4.0
    cuts = [cut for cut in (10.0 + 7 * i for i in range(20)) if cut < text[-1].end - 0.5]
    windows = []
    for start, end, held in windows_of(text, cuts, overlap):
        shift = rng.uniform(-0.8, 0.8)
        windows.append((start, end, [Word(w.text, w.start + shift, w.end + shift) for w in held]))
    assert merged(windows, slack=2.0) == words


def test_words_cut_through_at_the_edges_are_left_out() -> None:
    words = timed(["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "again"], [0.5] * 10)
    left = [*words[:6], Word(" th", 3.0, 3.2)]
    right = [Word(" own", 1.3, 1.5), *words[3:]]
    kept = merge_overlap(left, right, 1.3, 3.2, slack=0.3)
    assert join_words([*kept[0], *kept[1]]) == "the quick brown fox jumps over the lazy dog again"


def test_capitals_and_punctuation_do_not_hinder_an_alignment() -> None:
    words = timed(["En", "toen", "ging", "hij", "naar", "huis", "want", "het", "was"], [0.5] * 9)
    left = [*words[:5], Word(" Huis.", 2.5, 3.0)]
    right = [Word(" Naar", 2.0, 2.5), *words[5:]]
    kept = merge_overlap(left, right, 2.0, 3.0, slack=0.2)
    text = join_words([*kept[0], *kept[1]]).lower().replace(".", "")
    assert text == "en toen ging hij naar huis want het was"


def test_disagreement_is_settled_by_time() -> None:
    left, right = timed(["a", "b", "c", "d"], [1.0] * 4), timed(["w", "x", "y", "z"], [1.0] * 4)
    for word in right:
        word.start, word.end = word.start + 2, word.end + 2
    kept = merge_overlap(left, right, 2.0, 4.0)
    assert [w.text.strip() for part in kept for w in part] == ["a", "b", "c", "x", "y", "z"]


def test_an_empty_side_loses_nothing() -> None:
    words = timed(["a", "b"], [1.0, 1.0])
    assert merge_overlap(words, [], 5.0, 6.0) == (words, [])
    assert merge_overlap([], words, 0.0, 0.0) == ([], words)


@given(st.text(max_size=60))
def test_splitting_keeps_every_letter(text: str) -> None:
    assert "".join(split_words(text)) == text[: len(text.rstrip())] or "".join(split_words(text)) == text.rstrip()


def test_scripts_without_spaces_are_split_by_character() -> None:
    assert split_words("今日は good 日") == ["今", "日", "は", " good", " 日"]
    assert join_texts(["今日は", "良い"]) == "今日は良い"
    assert join_texts(["", "a", "", "b"]) == "a b"


@pytest.mark.parametrize(("a", "b"), [("Huis.", "huis"), ("Café", "cafe\u0301"), ("don't", "dont")])
def test_keys(a: str, b: str) -> None:
    assert Word(a).key == Word(b).key
    assert Word("-").key == "-"


def test_log_probs_are_those_of_generation(tiny_model: Any, tiny_processor: Any) -> None:
    inputs = tiny_processor.apply_transcription_request([talk(1.0), talk(0.4, seed=1)])
    output = tiny_model.generate(
        **inputs, max_new_tokens=6, suppress_tokens=[2], output_logits=True, return_dict_in_generate=True
    )
    looks = look_again(tiny_model, output.sequences.tolist(), **inputs)
    logits = torch.stack(output.logits, dim=1).log_softmax(-1)
    expected = logits.gather(-1, output.sequences[..., None]).squeeze(-1)
    for look, row in zip(looks, expected, strict=True):
        torch.testing.assert_close(look.log_probs, row, atol=1e-5, rtol=0)
        assert look.attentions is None


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_log_probs_are_those_of_the_training_forward(tiny_model: Any, tiny_processor: Any, padding_side: str) -> None:
    """The loss over a transcript and its end token is minus the mean log-probability."""
    recordings, texts = [talk(1.0), talk(0.4, seed=1)], ["en to tre", "fem"]
    request = tiny_processor.apply_transcription_request(recordings, padding_side=padding_side)
    looks = look_again(tiny_model, [tiny_processor.transcript_ids(text) for text in texts], **request)
    for recording, text, look in zip(recordings, texts, looks, strict=True):
        loss = tiny_model(**tiny_processor(recording, text=text)).loss
        assert -look.log_probs.mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_an_empty_transcript(tiny_model: Any, tiny_processor: Any) -> None:
    looks = look_again(tiny_model, [[]], **tiny_processor.apply_transcription_request(talk(0.4)))
    assert looks[0].log_probs.tolist() == []
    assert confidence([]) is None


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_the_pipeline_reports_them(pipe: Any, tiny_processor: Any, options: dict[str, int]) -> None:
    recording = talk(1.0)
    answer = pipe(recording, return_confidence="tokens", max_new_tokens=8, **options)
    log_probs = [token["log_prob"] for token in answer["tokens"]]
    assert answer["confidence"] == pytest.approx(math.exp(sum(log_probs) / len(log_probs)))
    assert "".join(token["text"] for token in answer["tokens"]).strip() == answer["text"]
    ids = tiny_processor.tokenizer(answer["text"], add_special_tokens=False).input_ids
    inputs = tiny_processor(recording, text="")
    generated = pipe.model.generate(
        **tiny_processor.apply_transcription_request(recording), max_new_tokens=8, **options,
        suppress_tokens=pipe._forward_params["suppress_tokens"],
    )[0]  # fmt: skip
    row = torch.cat([inputs["input_ids"][0][:-1], generated])[None]
    logits = pipe.model(input_ids=row, input_features=inputs["input_features"]).logits[0, -len(generated) - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, generated[:, None]).squeeze(-1)
    assert log_probs == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(ids) > 0


def test_confidence_does_not_change_the_text_and_encodes_once(pipe: Any) -> None:
    rows: list[int] = []
    block = pipe.model.audio_encoder.layers[0]
    recordings = [talk(1.0), talk(0.6, seed=3)]
    plain = pipe(recordings, batch_size=2, max_new_tokens=8)
    hook = block.register_forward_hook(lambda module, args, output: rows.append(1))
    try:
        scored = pipe(recordings, batch_size=2, max_new_tokens=8, return_confidence=True)
    finally:
        hook.remove()
    assert [a["text"] for a in plain] == [a["text"] for a in scored]
    assert rows == [1]
    assert all(0 < a["confidence"] < 1 for a in scored)
    assert "confidence" not in plain[0]


def test_sampled_transcripts_are_scored_too(pipe: Any, make_pipe: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    answer = pipe(talk(1.0), do_sample=True, max_new_tokens=6, return_confidence=True, return_timestamps=True)
    assert answer["chunks"][0]["confidence"] == answer["confidence"]
