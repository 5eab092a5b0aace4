"""The CTC head in a model: both save forms, compression, drafts, alignment, times of words."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LlamaForCausalLM, MambaForCausalLM, Qwen3NextForCausalLM

from modeling_slam_asr import SlamAsrForConditionalGeneration
from modeling_slam_asr.configuration_slam_asr import COMPRESSIONS
from modeling_slam_asr.generation_slam_asr import DraftTextStreamer, can_draft, draft_decoding, pad_left
from modeling_slam_asr.projector_slam_asr import CtcPrefixScores, CtcScores, expected_embeddings
from modeling_slam_asr.transcripts_slam_asr import align_tokens, ctc_words

from .conftest import noise


def blank_bias(model: Any, bias: float) -> Any:
    """The model with its CTC blank made likelier or less likely."""
    with torch.no_grad():
        model.projector.ctc.bias.fill_(bias)
    return model.eval()


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("form", ["standalone", "adapter"])
def test_saved_and_loaded(
    make_ctc_model: Callable[..., Any], tmp_path: Path, batch: Any, form: str, compress: str
) -> None:
    model = blank_bias(make_ctc_model(projector_compress=compress), 0.7)
    model.save_pretrained(tmp_path, checkpoint_form=form)
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.config.projector_ctc_tokens == model.config.projector_ctc_tokens
    for weight in (0.0, 1.0):
        assert torch.equal(loaded(**batch, ctc_weight=weight).loss, model(**batch, ctc_weight=weight).loss)


def test_drafts_are_for_llms_whose_cache_can_be_taken_back() -> None:
    config = GenerationConfig()
    assert can_draft(config, {}, LlamaForCausalLM)
    assert not can_draft(config, {}, Qwen3NextForCausalLM)  # a recurrent state keeps what was guessed
    assert not can_draft(config, {}, MambaForCausalLM)


def test_rows_without_labels_teach_nothing(make_ctc_model: Callable[..., Any], batch: Any) -> None:
    model = make_ctc_model().train()
    model(**{**batch, "labels": torch.full_like(batch["labels"], -100)}, ctc_weight=1.0).loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.projector.parameters())
    model(**batch, ctc_weight=1.0).loss.backward()
    assert model.projector.ctc.bias.grad.any()


def test_the_heads_own_transcript_keeps_the_prompt_s_columns(
    make_ctc_model: Callable[..., Any], tiny_processor: Any
) -> None:
    model, request = blank_bias(make_ctc_model(), -5.0), tiny_processor(noise(1.0, 3))
    plain = model.generate(**request, ctc_only=True)
    tokens = model.generate(**request, ctc_only=True, prompt_columns=True)
    assert torch.equal(tokens[:, request["input_ids"].shape[1] :], plain) and plain.shape[1] > 1
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens"):
        model.generate(**request, ctc_weight=0.3, prompt_lookup_num_tokens=2)


# ------------------------------------------------------------------ compression


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_padding_moves_left(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows).long()
    numbers = torch.arange(mask.numel()).reshape(mask.shape)
    packed, moved = pad_left(mask, numbers)
    assert packed.shape[1] == int(mask.sum(-1).max())
    for row in range(len(rows)):
        assert moved[row, packed[row].bool()].tolist() == numbers[row, mask[row].bool()].tolist()
        assert packed[row].tolist() == sorted(packed[row].tolist())


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_compressed_batch_is_single(make_ctc_model: Callable[..., Any], tiny_processor: Any, compress: str) -> None:
    """Loss and transcripts of a batch, with utterances of very different length, are those of each alone."""
    model = blank_bias(make_ctc_model(projector_compress=compress, projector_compress_keep=0.5), 2.2)
    waves = [noise(2.0, 1), noise(0.5, 2), noise(1.2, 3)]
    texts = ["en to tre", "fem", "to"]
    together = tiny_processor(waves, text=texts)
    merged = model.merge_inputs(**together)
    places = (together["input_ids"] == model.config.audio_token_id).sum(-1)
    kept = merged.audio.sum(-1)
    assert (kept < places).any() and (kept > 0).all(), "the blank is neither everywhere nor nowhere"
    total = 0.0
    for wave, text, count in zip(waves, texts, kept, strict=True):
        alone = tiny_processor([wave], text=[text])
        own = model.merge_inputs(**alone)
        assert int(own.audio.sum()) == int(count)
        total += float(model(**alone).loss) * int((alone["labels"] != -100).sum())
    assert total / int((together["labels"] != -100).sum()) == pytest.approx(float(model(**together).loss), abs=1e-5)
    asked = tiny_processor.apply_transcription_request(waves)
    for options in ({"num_beams": 1}, {"num_beams": 3}):
        batch = model.generate(**asked, max_new_tokens=12, **options)
        for row, wave in enumerate(waves):
            alone = model.generate(**tiny_processor.apply_transcription_request(wave), max_new_tokens=12, **options)[0]
            assert batch[row, : len(alone)].tolist() == alone.tolist()


def test_the_llm_reads_its_own_tokens(make_ctc_model: Callable[..., Any], tiny_processor: Any) -> None:
    """With `tokens` it reads what the head expects, by the plain loop; the loss teaches the projector through it."""
    model = make_ctc_model(projector_compress="tokens")
    sound = tiny_processor([noise(1.0, 1)], text=["en to"])
    frames, mask = model.get_audio_features(
        sound["input_features"], sound["input_features_mask"], return_dict=True
    ).padded()
    probabilities = model.ctc_log_probs(frames)[0, mask[0]].exp().tolist()
    table = model.get_input_embeddings()(torch.tensor(list(model.ctc_tokens())))
    groups: list[list[torch.Tensor]] = []
    before = None
    for row in probabilities:
        said = (
            max(range(1, len(row)), key=row.__getitem__) if row[0] <= 1 - model.config.projector_compress_keep else None
        )
        if said is not None:
            expected = sum(p * vector for p, vector in zip(row[1:], table, strict=True)) / sum(row[1:])
            groups = [*groups[:-1], [*groups[-1], expected]] if said == before else [*groups, [expected]]
        before = said
    merged = model.merge_inputs(**sound)
    read = merged.inputs_embeds[0, merged.audio[0]]
    assert torch.allclose(read, torch.stack([torch.stack(group).mean(0) for group in groups]), atol=1e-5)
    model.train()(**sound).loss.backward()
    assert model.projector.linear1.weight.grad.abs().sum() > 0


def test_a_certain_frame_is_its_token() -> None:
    embeddings = torch.randn(3, 8)
    log_probs = torch.full((1, 2, 4), -1e4)
    log_probs[0, 0, 2] = log_probs[0, 1, 3] = 0.0
    assert torch.allclose(expected_embeddings(log_probs, embeddings)[0], embeddings[1:], atol=1e-6)


def test_scores_are_the_same_under_autocast(make_ctc_model: Callable[..., Any]) -> None:
    """Training in bfloat16 and inference see one and the same head."""
    model = make_ctc_model()
    frames = torch.randn(2, 30, model.config.text_config.hidden_size)
    plain = model.ctc_log_probs(frames)
    embeddings = torch.randn(plain.shape[-1] - 1, 8)
    scores = CtcScores(plain, torch.ones(2, 30, dtype=torch.bool))

    def joint() -> torch.Tensor:
        processor = CtcPrefixScores(scores, model.ctc_tokens(), [0], 0.5)
        return processor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, model.config.vocab_size))

    expected = (plain, expected_embeddings(plain, embeddings), joint())
    with torch.autocast("cpu", torch.bfloat16):
        assert (frames @ frames.mT).dtype == torch.bfloat16
        found = (model.ctc_log_probs(frames), expected_embeddings(plain, embeddings), joint())
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}])
def test_only_blanks_give_nothing(
    make_ctc_model: Callable[..., Any], tiny_processor: Any, options: Any, compress: str
) -> None:
    model = blank_bias(make_ctc_model(projector_compress=compress), 1e4)
    asked = tiny_processor.apply_transcription_request([noise(1.0, 1), noise(0.4, 2)])
    texts = tiny_processor.batch_decode(model.generate(**asked, **options), skip_special_tokens=True)
    assert texts == [""] * (2 * options.get("num_return_sequences", 1))


def test_pipeline_marks_blanks_as_no_speech(make_ctc_model: Callable[..., Any], make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe(blank_bias(make_ctc_model(projector_compress="blank"), 1e4))
    answer = pipe({"array": noise(1.5, 1) * np.linspace(0, 1, 24_000, dtype=np.float32), "sampling_rate": 16_000})
    assert answer == {"text": "", "no_speech": True}


# ------------------------------------------------------------------ drafts


class Passes:
    """Counts the LLM's forward passes."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        self.hook = model.language_model.register_forward_pre_hook(self)

    def __call__(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("draft_of", ["ctc", "truth", "wrong", "half", "nonsense", "empty"])
def test_draft_gives_the_greedy_transcript(
    make_ctc_model: Callable[..., Any], tiny_processor: Any, seed: int, draft_of: str
) -> None:
    model = blank_bias(make_ctc_model(), 0.0)
    asked = tiny_processor.apply_transcription_request(noise(1.0 + seed / 4, seed))
    passes = Passes(model)
    plain = model.generate(**asked, max_new_tokens=30)
    alone, passes.count = passes.count, 0
    if draft_of == "ctc":
        drafted = model.generate(**asked, ctc_draft=True, max_new_tokens=30)
    else:
        truth = plain[0].tolist()
        wrong = [
            *truth[:5],
            7,
            7,
            *truth[6:14],
            *truth[15:20],
            7,
            *truth[20:],
        ]  # two for one, one too few, one too many
        draft = {"truth": truth, "wrong": wrong, "half": truth[::2], "nonsense": [7] * 9, "empty": []}[draft_of]
        drafted = model.generate(**asked, custom_generate=draft_decoding(draft), max_new_tokens=30)
    assert drafted.tolist() == plain.tolist()
    assert passes.count <= alone
    # A pass reads eight tokens of the draft and writes one more than it keeps; each place where the draft is wrong ends one.
    if draft_of in ("truth", "wrong"):
        assert passes.count <= math.ceil(len(truth) / 9) + {"truth": 0, "wrong": 3}[draft_of]


def test_the_heads_own_transcript(make_ctc_model: Callable[..., Any], tiny_processor: Any, tiny_model: Any) -> None:
    """`ctc_only` gives the greedy CTC transcript and leaves the LLM alone."""
    model = make_ctc_model().eval()
    asked = tiny_processor.apply_transcription_request([noise(1.3, 1), noise(0.4, 2)])
    passes = Passes(model)
    tokens = model.generate(**asked, ctc_only=True)
    assert passes.count == 0
    expected = model.ctc_transcripts(model.merge_inputs(**asked, ctc=True).ctc)
    assert any(expected)
    for row, own in zip(tokens.tolist(), expected, strict=True):
        assert row[: len(own)] == own and set(row[len(own) :]) == {tiny_processor.tokenizer.eos_token_id}
    with pytest.raises(ValueError, match="no CTC head"):
        tiny_model.generate(**asked, ctc_only=True)


def test_streamed_text_begins_with_the_draft(
    make_ctc_model: Callable[..., Any], tiny_processor: Any, unreadable: list[int]
) -> None:
    model = make_ctc_model().eval()
    asked = tiny_processor.apply_transcription_request(noise(1.5, 4))
    options = {"max_new_tokens": 12, "suppress_tokens": unreadable}
    said = tiny_processor.batch_decode(model.generate(**asked, **options), skip_special_tokens=True)[0]
    guess = tiny_processor.batch_decode(model.generate(**asked, ctc_only=True), skip_special_tokens=True)[0]
    streamer = DraftTextStreamer(tiny_processor.tokenizer, skip_special_tokens=True)
    model.generate(**asked, **options, streamer=streamer)
    texts = list(streamer)
    assert texts[0] == guess and texts[-1] == said and len(texts) > 1


def test_draft_is_refused_where_it_cannot_be(
    make_ctc_model: Callable[..., Any], tiny_model: Any, tiny_processor: Any
) -> None:
    asked = tiny_processor.apply_transcription_request(noise(1.0))
    with pytest.raises(ValueError, match="ctc_draft"):
        tiny_model.generate(**asked, ctc_draft=True)
    with pytest.raises(ValueError, match="ctc_draft"):
        make_ctc_model().generate(**asked, ctc_draft=True, num_beams=2)


# ------------------------------------------------------------------ alignment


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.lists(st.integers(1, 2), min_size=1, max_size=3))
def test_alignment_is_the_best_of_all_paths(seed: int, frames: int, targets: list[int]) -> None:
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), frames))
    need = len(targets) + sum(a == b for a, b in itertools.pairwise(targets))
    if frames < need:
        with pytest.raises(ValueError, match=f"need {need} frames"):
            align_tokens(log_probs, targets)
        return

    def score(path: tuple[int, ...]) -> float:
        said = [c for i, c in enumerate(path) if c and (i == 0 or c != path[i - 1])]
        return sum(log_probs[i, c] for i, c in enumerate(path)) if said == targets else -np.inf

    best = max(score(path) for path in itertools.product(range(3), repeat=frames))
    found = align_tokens(log_probs, targets)
    path = np.zeros(frames, dtype=int)
    for (first, past, _), target in zip(found, targets, strict=True):
        path[int(first) : int(past)] = target
    assert score(tuple(path.tolist())) == pytest.approx(best)


def test_pipeline_gives_words_times_and_confidence(
    make_ctc_model: Callable[..., Any], make_pipe: Callable[..., Any], unreadable: list[int]
) -> None:
    """The head's alignment needs no attention weights, so the LLM is not asked for them."""
    model = make_ctc_model().eval()
    pipe = make_pipe(model, generate_kwargs={"suppress_tokens": unreadable, "max_new_tokens": 6})
    sound = {"array": noise(2.0, 3) * np.linspace(0.2, 1, 32_000, dtype=np.float32), "sampling_rate": 16_000}
    asked: list[Any] = []
    model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: asked.append(kwargs.get("output_attentions")), with_kwargs=True
    )
    answer = pipe(sound, return_timestamps="word")
    assert not any(asked)
    assert "".join(answer["text"].split()) == "".join(chunk["text"] for chunk in answer["chunks"])
    times = [time for chunk in answer["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2.0 and answer["approximate_timestamps"]
    sure = pipe(sound, return_timestamps="word", return_confidence="tokens", ctc_weight=0.3)
    guessed = pipe(sound, return_timestamps="estimate", return_confidence=True, ctc_weight=0.3)
    by_llm = [chunk["confidence"] for chunk in guessed["chunks"]]
    by_both = [chunk["confidence"] for chunk in sure["chunks"]]
    said = [token["log_prob"] for token in sure["tokens"] if token["text"].strip()]
    assert min(by_llm) == pytest.approx(np.exp(min(said)), rel=1e-4)
    assert all(0 < both <= llm * (1 + 1e-6) for both, llm in zip(by_both, by_llm, strict=True)) and by_both != by_llm
    alone = [pipe(sound, return_timestamps=kind, return_confidence=True)["chunks"] for kind in ("word", "estimate")]
    assert [chunk["confidence"] for chunk in alone[0]] == [chunk["confidence"] for chunk in alone[1]]


def test_words_lie_where_their_tokens_are_heard() -> None:
    """A word lasts until the next begins; where there is a pause, until that begins, however early its tokens are marked."""
    aligned = np.array([[2, 3, 0.0], [3, 4, 0.0], [9, 11, 0.0]])

    def times(active: np.ndarray) -> list[tuple[float, float]]:
        words = ctc_words(["he", "j", " du"], aligned, 0.1, active, 5.0, 6.3)
        assert [word.text.strip() for word in words] == ["hej", "du"]
        return [(round(word.start, 2), round(word.end, 2)) for word in words]

    active = np.ones(65, dtype=bool)
    assert times(active) == [(5.15, 5.85), (5.85, 6.3)]
    active[30:35] = False  # 0.1 s of silence may be a stop consonant
    assert times(active) == [(5.15, 5.85), (5.85, 6.3)]
    active[30:40] = False
    assert times(active) == [(5.15, 5.6), (5.85, 6.3)]
    active[58:] = active[:9] = False
    assert times(active) == [(5.18, 5.6), (5.85, 6.16)]
    assert ctc_words([], np.zeros((0, 3)), 0.1, active, 5.0, 6.3) == []
