"""Decoding: each utterance encoded once, its own length limit, loops, streams, batches equal to single."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, TextIteratorStreamer, TextStreamer
from transformers.utils import logging as transformers_logging

from modeling_slam_asr.generation_slam_asr import (
    DEFAULT_LENGTH,
    TranscriptLimit,
    requested_generation,
    token_limits,
    transcript_request,
)
from modeling_slam_asr.transcripts_slam_asr import SPARE_TOKENS, loop_period, read_transcript
from tests.modeling_slam_asr.conftest import talk

EOS = 2
MODES = {"greedy": {}, "beams": {"num_beams": 3}}


@pytest.fixture(scope="module")
def request_of(tiny_processor: Any) -> Callable[..., Any]:
    return tiny_processor.apply_transcription_request


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 4}, {"num_beams": 4, "num_return_sequences": 3}, {"do_sample": True, "num_return_sequences": 5}],
)
def test_each_utterance_is_encoded_once(tiny_model: Any, request_of: Callable[..., Any], options: dict) -> None:
    rows: list[int] = []
    hook = tiny_model.audio_encoder.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    try:
        output = tiny_model.generate(**request_of([talk(1.0), talk(0.5)]), max_new_tokens=4, **options)
    finally:
        hook.remove()
    assert rows == [2]
    assert len(output) == 2 * options.get("num_return_sequences", 1)


@pytest.mark.parametrize("mode", MODES)
def test_batch_equals_single(tiny_model: Any, request_of: Callable[..., Any], unreadable: list[int], mode: str) -> None:
    recordings = [talk(seconds, seed=i) for i, seconds in enumerate((0.4, 2.5, 1.1))]
    options = {"suppress_tokens": unreadable, **MODES[mode]}
    together = tiny_model.generate(**request_of(recordings), **options).tolist()
    for row, recording in zip(together, recordings, strict=True):
        alone = tiny_model.generate(**request_of(recording), **options)[0].tolist()
        limit = int(token_limits(torch.tensor([np.ceil(len(recording) / 1600) / 10]), 25.0))
        assert read_transcript(row, {EOS}, 0, limit).tokens == read_transcript(alone, {EOS}, 0, limit).tokens


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_each_row_has_the_limit_of_its_own_audio(
    tiny_model: Any, request_of: Callable[..., Any], options: dict[str, int]
) -> None:
    """The end token is forbidden, so only the limit (or a loop) can end a row."""
    inputs = request_of([talk(0.5), talk(3.0, seed=1)])
    tokens = tiny_model.generate(**inputs, suppress_tokens=[EOS, 0], **options)
    lengths = ((tokens != 0) & (tokens != EOS)).sum(-1).view(2, -1)  # beam search fills up with the end token
    limits = token_limits((inputs["input_ids"] == tiny_model.config.audio_token_id).sum(-1) * 0.1, 25.0)
    assert (lengths[0] <= limits[0]).all()
    assert (lengths[1] <= limits[1]).all()
    assert lengths[0].max() > limits[0] - 1  # nothing ends so short a row before its limit
    assert lengths[1].max() > limits[0]


def test_a_length_that_is_asked_for_counts(tiny_model: Any, request_of: Callable[..., Any]) -> None:
    assert tiny_model.generate(**request_of(talk(1.0)), max_new_tokens=3, suppress_tokens=[EOS]).shape == (1, 3)
    config = GenerationConfig(max_new_tokens=5, eos_token_id=EOS, pad_token_id=0, suppress_tokens=[EOS])
    assert tiny_model.generate(**request_of(talk(1.0)), generation_config=config).shape == (1, 5)
    assert config.max_new_tokens == 5


def test_a_max_length_counts_new_tokens(tiny_model: Any, request_of: Callable[..., Any]) -> None:
    inputs = request_of([talk(1.0), talk(3.0)])
    assert tiny_model.generate(**inputs, max_length=4, suppress_tokens=[EOS]).shape == (2, 4)
    long = tiny_model.generate(**inputs, max_length=1_000, suppress_tokens=[EOS])
    assert torch.equal(long, tiny_model.generate(**inputs, suppress_tokens=[EOS]))


@pytest.mark.parametrize("name", ["min_length", "min_new_tokens"])
def test_a_min_length_counts_new_tokens(tiny_model: Any, request_of: Callable[..., Any], name: str) -> None:
    """The bias makes the end token the best of all at every step."""
    options = {"sequence_bias": {(EOS,): 1e4}, name: 5}
    assert tiny_model.generate(**request_of([talk(1.0), talk(3.0)]), **options).shape == (2, 6)


def test_a_max_length_of_the_call_goes_before_the_checkpoints_limit(
    make_tiny_model: Callable[..., Any], request_of: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model, inputs = make_tiny_model().eval(), request_of([talk(1.0), talk(3.0)])
    forbidden = {"suppress_tokens": [EOS]}
    model.generation_config.max_new_tokens = 6
    transformers_logging.enable_propagation()
    try:
        for options in (
            {"max_length": 4, **forbidden},
            {"generation_config": GenerationConfig(max_length=4, **forbidden)},
            {"generation_config": GenerationConfig(max_new_tokens=2, **forbidden), "max_length": 4},
        ):
            assert model.generate(**inputs, **options).shape == (2, 4)
        assert model.generate(**inputs, max_length=9, **forbidden).shape == (2, 9)
        assert model.generate(**inputs, **forbidden).shape == (2, 6)
        model.generation_config.max_length = (
            3  # a checkpoint with both: as in transformers, and nobody is told again and again
        )
        assert model.generate(**inputs, **forbidden).shape == (2, 6)
        assert model.generate(**inputs, max_new_tokens=5, **forbidden).shape == (2, 5)
        assert not caplog.records
        for _ in range(2):
            assert model.generate(**inputs, max_length=4, max_new_tokens=7, **forbidden).shape == (2, 7)
    finally:
        transformers_logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == [
        "max_new_tokens=7 holds, and max_length=4 does not: give one of them."
    ]


MAYBE = st.none() | st.integers(1, 300)


@settings(deadline=None)
@given(
    own=st.tuples(MAYBE, MAYBE),
    given_=st.tuples(MAYBE, MAYBE),
    call=st.tuples(MAYBE, MAYBE),
    seconds=st.floats(0.1, 30),
)
def test_the_limit_is_the_nearest_that_was_asked_for(own: Any, given_: Any, call: Any, seconds: float) -> None:
    names = ("max_new_tokens", "max_length")
    configs = [GenerationConfig(**dict(zip(names, place, strict=True))) for place in (own, given_)]
    options = {name: value for name, value in zip(names, call, strict=True) if value is not None}
    made = transcript_request(*configs, options, torch.tensor([seconds]), 25.0)
    free = int(token_limits(torch.tensor([seconds]), 25.0))
    own = (own[0], None if own[1] == DEFAULT_LENGTH else own[1])
    tokens, length = next((place for place in (call, given_, own) if place != (None, None)), (None, None))
    expected = tokens if tokens is not None else min(free, length or free)
    assert made.limits.tolist() == [expected] == [made.config.max_new_tokens] and made.config.max_length is None


def test_what_a_generation_configuration_leaves_open_is_the_models(
    make_tiny_model: Callable[..., Any], request_of: Callable[..., Any]
) -> None:
    """The model's end tokens can be more than the LLM's: its tokenizer's is one too."""
    model = make_tiny_model().eval()
    model.generation_config.eos_token_id = [EOS, 60]
    options = {"prefix_allowed_tokens_fn": lambda row, tokens: [50 if len(tokens) < 3 else 60]}
    given = GenerationConfig(num_beams=2)
    tokens = model.generate(**request_of(talk(1.0)), generation_config=given, **options)
    assert tokens.tolist() == [[50, 50, 50, 60]]
    assert given.eos_token_id is None
    config, rest = requested_generation(model.generation_config, given, {"num_beams": 3, "streamer": None})
    assert (config.num_beams, config.eos_token_id, rest) == (3, [EOS, 60], {"streamer": None})


def test_what_cannot_hear_is_refused(tiny_model: Any, request_of: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="assistant_model is not possible"):
        tiny_model.generate(**request_of(talk(0.5)), assistant_model=tiny_model.language_model)
    with pytest.raises(ValueError, match="guidance_scale is not possible"):
        tiny_model.generate(**request_of(talk(0.5)), guidance_scale=1.5)
    assert len(tiny_model.generate(**request_of(talk(0.5)), guidance_scale=1.0, max_new_tokens=2)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_runaway_is_ended(tiny_model: Any, request_of: Callable[..., Any], mode: str) -> None:
    def round_and_round(row: int, tokens: torch.Tensor) -> list[int]:
        return [50 + len(tokens) % 3]

    tokens = tiny_model.generate(**request_of(talk(20.0)), prefix_allowed_tokens_fn=round_and_round, **MODES[mode])
    assert tokens.shape[1] == 48  # 40 for a loop, noticed at the next multiple of 8
    transcript = read_transcript(tokens[0].tolist(), {EOS}, 0, int(token_limits(torch.tensor([20.0]), 25.0)))
    assert (transcript.tokens, transcript.end, transcript.loop) == ([50, 51, 52], None, True)


def test_limits() -> None:
    request = transcript_request(GenerationConfig(), None, {"streamer": None}, torch.tensor([1.0, 2.0]), 25.0)
    assert request.limits.tolist() == [25 + SPARE_TOKENS, 50 + SPARE_TOKENS]
    assert (request.config.max_new_tokens, request.options) == (50 + SPARE_TOKENS, {"streamer": None})
    limit = request.stopping_criteria()[-1]
    rows = torch.arange(4 * 35).view(4, 35)  # two beams each
    assert limit(rows, None).tolist() == [True, True, False, False]
    assert TranscriptLimit(torch.tensor([5]))(torch.arange(4)[None], None).tolist() == [False]
    loop_and_text = torch.stack([torch.full((40,), 7), torch.arange(40)])
    assert TranscriptLimit(torch.tensor([50, 50]))(loop_and_text, None).tolist() == [True, False]
    tenths = torch.arange(1, 301)  # the pipeline counts mel frames, the model audio tokens
    assert torch.equal(token_limits(tenths * (5 / 50), 25.0), token_limits(tenths * 10 / 100, 25.0))


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([7, 8] * 4, False),  # "ja ja ja ja"
        ([7] * 39, False),
        ([7] * 40, True),
        ([1, 2, 3, *[7] * 40], True),
        ([*[7] * 40, 8], False),
        ([5, 6] * 20, True),
        (list(range(12)) * 5, False),  # a refrain
        (list(range(12)) * 6, True),
        (list(range(48)) * 6, True),
        ([6, *[5, 6] * 20], True),  # cut anywhere in its copies
        ([], False),
    ],
)
def test_loops(tokens: list[int], loop: bool) -> None:
    assert (loop_period(tokens) is not None) is loop
    assert read_transcript(tokens, {EOS + 1000}, None, 10_000).loop is loop


def test_a_loop_is_cut_down_to_its_first_copy() -> None:
    row = [9, 9, 4, *[5, 6, 7] * 15, 5]
    assert read_transcript(row, {EOS}, 0, 500).tokens == [9, 9, 4, 5, 6, 7]
    assert read_transcript(row, {EOS}, 0, 500, trim_loop=False).tokens == row


@pytest.mark.parametrize("pad", [0, EOS, None])
def test_reading_a_row(pad: int | None) -> None:
    filler = [] if pad is None else [pad, pad]
    ended = read_transcript([5, 6, EOS, *filler], {EOS}, pad, 10)
    assert (ended.tokens, ended.end, ended.loop) == ([5, 6], EOS, False)
    stopped = read_transcript([5, 6, 7, *filler], {EOS}, pad, 3)
    assert (stopped.tokens, stopped.end) == ([5, 6, 7], None)
    assert read_transcript([5, 6, 7], {EOS}, pad, 3).end is None


@pytest.mark.parametrize("skip_prompt", [False, True])
def test_iterator_streamer(
    tiny_model: Any, tiny_processor: Any, request_of: Callable[..., Any], unreadable: list[int], skip_prompt: bool
) -> None:
    inputs, options = request_of(talk(2.0)), {"suppress_tokens": unreadable, "max_new_tokens": 20}
    whole = tiny_processor.tokenizer.decode(tiny_model.generate(**inputs, **options)[0], skip_special_tokens=True)
    streamer = TextIteratorStreamer(
        tiny_processor.tokenizer, skip_prompt=skip_prompt, timeout=60, skip_special_tokens=True
    )
    thread = Thread(target=tiny_model.generate, kwargs={**inputs, **options, "streamer": streamer})
    thread.start()
    parts = list(streamer)
    thread.join()
    assert "".join(parts) == whole
    assert len(whole) > 10


def test_text_streamer(
    tiny_model: Any, tiny_processor: Any, request_of: Callable[..., Any], unreadable: list[int], capsys: Any
) -> None:
    options = {"suppress_tokens": unreadable, "max_new_tokens": 20}
    streamer = TextStreamer(tiny_processor.tokenizer, skip_special_tokens=True)
    tokens = tiny_model.generate(**request_of(talk(2.0)), streamer=streamer, **options)
    assert capsys.readouterr().out.rstrip("\n") == tiny_processor.tokenizer.decode(tokens[0], skip_special_tokens=True)


def test_sampling_follows_the_seed(tiny_model: Any, request_of: Callable[..., Any]) -> None:
    inputs, options = request_of(talk(1.0)), {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(tiny_model.generate(**inputs, **options).tolist())
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2, "num_return_sequences": 2}, {"return_dict_in_generate": True}]
)
def test_prompt_columns(
    tiny_model: Any, tiny_processor: Any, request_of: Callable[..., Any], options: dict[str, Any]
) -> None:
    """For programs that cut `input_ids` off each row; decoding gives the same text with and without the cut."""
    inputs, options = request_of([talk(1.0), talk(0.5)]), {"max_new_tokens": 6, **options}
    width = inputs["input_ids"].shape[1]
    plain, output = (tiny_model.generate(**inputs, **options, prompt_columns=asked) for asked in (False, True))
    if "return_dict_in_generate" in options:
        plain, output = plain.sequences, output.sequences
    assert (output[:, :width] == tiny_model.config.audio_token_id).all()
    assert torch.equal(output[:, width:], plain)
    texts = tiny_processor.batch_decode(plain, skip_special_tokens=True)
    for tokens in (output, output.tolist(), list(output), output.numpy(), plain):
        assert tiny_processor.batch_decode(tokens, skip_special_tokens=True) == texts
        assert tiny_processor.decode(tokens, skip_special_tokens=True) == texts
    assert tiny_processor.decode(output[0], skip_special_tokens=True) == texts[0]
    assert all(texts)


@pytest.mark.parametrize("utterances", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_the_output_layer_reads_contiguous_memory(
    make_tiny_model: Callable[..., Any], request_of: Callable[..., Any], mode: str, utterances: int
) -> None:
    """
    On a CPU a sliced view would be multiplied with one copy of the output matrix for each row. Of one row it calls itself contiguous.
    """
    model = make_tiny_model()
    model.resize_token_embeddings(320)
    read: list[tuple[tuple[int, ...], bool]] = []

    def look(module: Any, inputs: tuple[torch.Tensor]) -> None:
        read.append((tuple(inputs[0].shape), inputs[0].stride() == torch.empty(inputs[0].shape).stride()))

    # The arguments that the layer itself reads: hooks before this one have changed them already.
    model.get_output_embeddings().register_forward_pre_hook(look)
    sounds = [talk(1.0), talk(0.5), talk(0.8)][:utterances]
    model.generate(**request_of(sounds), max_new_tokens=3, **MODES[mode])
    rows = utterances * MODES[mode].get("num_beams", 1)
    assert [shape[:2] for shape, _ in read] == [(rows, 1)] * len(read), "the prefill's other positions are multiplied"
    assert len(read) >= 2 and all(contiguous for _, contiguous in read)


def test_what_generates_and_what_reads_share_their_limits(tiny_model: Any, request_of: Callable[..., Any]) -> None:
    inputs = request_of([talk(1.0), talk(0.5)])
    request = tiny_model.transcript_request(inputs["input_ids"], inputs["input_features_mask"], suppress_tokens=[EOS])
    tokens = tiny_model.generate(**inputs, request=request)
    assert torch.equal(tokens, tiny_model.generate(**inputs, suppress_tokens=[EOS]))
    read = request.read(tokens, trim_loops=False)
    assert [len(transcript.tokens) for transcript in read if not transcript.loop] == [
        limit for limit, transcript in zip(request.limits.tolist(), read, strict=True) if not transcript.loop
    ]
    assert all(transcript.end is None for transcript in read)
