"""Joint decoding: the CTC head's prefix scores beside the LLM's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.projector_slam_asr import CtcPrefixScores, CtcScores

from .conftest import noise

TOKENS, END, VOCAB = [10, 11, 12], 13, 15  # 14 is a token that the head does not know


def make_scores(seed: int, lengths: list[int]) -> CtcScores:
    """Random posteriors of utterances of these lengths, three classes and blank."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(lengths), max(lengths), 4, generator=generator) * 2
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return CtcScores(logits.log_softmax(-1), mask)


def walk(scores: CtcScores, transcripts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the scores along transcripts, one an utterance, end included; and log-sums of all that could come next, at each step."""
    joint = CtcPrefixScores(scores, TOKENS, {END}, 0.5)
    total, sums = torch.zeros(len(transcripts)), []
    for length in range(len(transcripts[0]) + 1):
        ids = torch.tensor([row[:length] for row in transcripts], dtype=torch.long).reshape(len(transcripts), length)
        found = 2 * joint(ids, torch.zeros(len(transcripts), VOCAB))  # an LLM that finds all alike
        sums.append(found[:, [*TOKENS, END]].logsumexp(-1))
        following = [row[length] if length < len(row) else END for row in transcripts]
        total = total + found[torch.arange(len(transcripts)), following]
    return total, torch.stack(sums)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(TOKENS), min_size=0, max_size=5),
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
def test_scores_along_a_transcript_are_its_ctc_probability(
    seed: int, transcript: list[int], lengths: list[int]
) -> None:
    scores = make_scores(seed, lengths)
    total, sums = walk(scores, [transcript] * len(lengths))
    targets = torch.tensor([[token - 9 for token in transcript]] * len(lengths)).reshape(len(lengths), -1)
    loss = torch.nn.functional.ctc_loss(
        scores.log_probs.transpose(0, 1), targets, torch.tensor(lengths),
        torch.full((len(lengths),), len(transcript)), reduction="none",
    )  # fmt: skip
    possible = torch.isfinite(loss)
    assert torch.allclose(total[possible], -loss[possible], atol=2e-3)
    assert (total[~possible] < -60).all()  # more tokens than frames
    # What can come next shares out the prefix's probability, as long as the prefix itself is possible.
    assert torch.allclose(sums[0], torch.zeros(len(lengths)), atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations([0, 1, 2]))
def test_a_beam_takes_its_history_along(seed: int, order: list[int]) -> None:
    scores = make_scores(seed, [9])
    joint = CtcPrefixScores(scores, TOKENS, {END}, 0.5)
    llm = torch.zeros(3, VOCAB)
    joint(torch.zeros(3, 0, dtype=torch.long), llm)
    first = torch.tensor([[10], [11], [12]])
    joint(first, llm)
    second = torch.cat([first[order], torch.tensor([[12], [10], [10]])], dim=1)
    found = joint(second, llm)
    for row, ids in zip(found, second, strict=True):
        alone = CtcPrefixScores(scores, TOKENS, {END}, 0.5)
        for length in range(3):
            expected = alone(ids[None, :length], llm[:1])
        assert torch.allclose(row, expected[0], atol=1e-3)


def test_an_unknown_token_costs_and_is_possible() -> None:
    scores = make_scores(3, [9])
    joint = CtcPrefixScores(scores, TOKENS, {END}, 0.5)
    found = joint(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, VOCAB))[0]
    assert torch.isfinite(found[14]) and found[14] < found[TOKENS].max()
    later = joint(torch.tensor([[14]]), torch.zeros(1, VOCAB))[0]
    assert torch.isfinite(later).all()


def test_two_unknown_tokens_need_no_blank_between() -> None:
    """They are two, though the head has one score for all that it does not know; a known one again needs its blank."""
    joint = CtcPrefixScores(make_scores(3, [2]), TOKENS, {END}, 0.5)
    joint(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, VOCAB))
    assert joint(torch.tensor([[14]]), torch.zeros(1, VOCAB))[0, 9] > -10
    joint = CtcPrefixScores(make_scores(3, [2]), TOKENS, {END}, 0.5)
    joint(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, VOCAB))
    assert joint(torch.tensor([[10]]), torch.zeros(1, VOCAB))[0, 10] < -60


def test_where_no_token_is_possible_the_llm_decides() -> None:
    """As where the end is forbidden (`min_new_tokens`) and all frames are used up."""
    joint, written = CtcPrefixScores(make_scores(3, [2]), TOKENS, {END}, 0.3), [10, 11, 12, 10]
    llm = torch.arange(float(VOCAB))[None].masked_fill(torch.arange(VOCAB) == END, -torch.inf)
    found = [joint(torch.tensor([written[:length]]).long(), llm)[0] for length in range(len(written) + 1)]
    assert [int(scores.argmax()) for scores in found[2:]] == [VOCAB - 1] * 3
    assert all(scores[END] == -torch.inf for scores in found)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_batch_is_single(make_ctc_model: Callable[..., Any], tiny_processor: Any, options: dict[str, Any]) -> None:
    model = make_ctc_model().eval()
    sounds = [noise(1.4, 1), noise(0.6, 2), noise(0.9, 3)]
    together = model.generate(
        **tiny_processor.apply_transcription_request(sounds), ctc_weight=0.4, max_new_tokens=10, **options
    )
    many = options.get("num_return_sequences", 1)
    for number, sound in enumerate(sounds):
        alone = model.generate(
            **tiny_processor.apply_transcription_request(sound), ctc_weight=0.4, max_new_tokens=10, **options
        )
        rows = together[number * many : (number + 1) * many]
        read = [tiny_processor.batch_decode(tokens, skip_special_tokens=True) for tokens in (rows, alone)]
        assert read[0] == read[1]


def test_the_head_has_its_say(make_ctc_model: Callable[..., Any], tiny_processor: Any) -> None:
    """The more weight, the likelier the transcript is to the head; with nearly all, it is no longer what the LLM wrote."""
    model = make_ctc_model().eval()
    asked = tiny_processor.apply_transcription_request(noise(1.6, 5))
    scores = model.merge_inputs(**asked, ctc=True).ctc
    ends = {tiny_processor.tokenizer.eos_token_id}

    @torch.no_grad()
    def heard(tokens: list[int]) -> float:
        joint, total = CtcPrefixScores(scores, model.ctc_tokens(), ends, 0.999), 0.0
        for length, token in enumerate(tokens):
            total += float(joint(torch.tensor([tokens[:length]]), torch.zeros(1, model.config.vocab_size))[0, token])
        return total

    alone = model.generate(**asked, max_new_tokens=12)
    joined = model.generate(**asked, max_new_tokens=12, ctc_weight=0.99)
    assert heard(joined[0].tolist()) > heard(alone[0].tolist())
    model.generation_config.ctc_weight = 0.99  # as a recipe's `decoding.ctc_weight` sets it
    assert torch.equal(model.generate(**asked, max_new_tokens=12), joined)
    assert torch.equal(model.generate(**asked, max_new_tokens=12, ctc_weight=0.0), alone)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_decoding_of_one_utterance_drafts_and_a_draft_changes_nothing(
    make_ctc_model: Callable[..., Any], tiny_processor: Any, seed: int
) -> None:
    model = make_ctc_model().eval()
    asked = tiny_processor.apply_transcription_request(noise(1.0 + seed / 4, seed))
    passes: list[int] = []
    model.language_model.register_forward_pre_hook(lambda *_: passes.append(1))

    def count(**options: Any) -> tuple[list[int], int]:
        passes.clear()
        return model.generate(**asked, max_new_tokens=20, ctc_weight=0.95, **options)[0].tolist(), len(passes)

    plain, alone = count(ctc_draft=False)
    assert alone == len(plain) > 3
    drafted = count()
    assert drafted == count(ctc_draft=True) and drafted[0] == plain and drafted[1] < alone / 1.5
    model.generation_config.ctc_draft = False  # a model may say otherwise
    assert count() == (plain, alone)
    two = tiny_processor.apply_transcription_request([noise(1.0, seed), noise(1.5, seed)])
    passes.clear()
    tokens = model.generate(**two, max_new_tokens=20, ctc_weight=0.95, prompt_columns=False)
    assert len(passes) == tokens.shape[1]  # a batch has no draft


def test_only_with_a_head_and_in_its_range(
    make_ctc_model: Callable[..., Any], tiny_model: Any, tiny_processor: Any
) -> None:
    asked = tiny_processor.apply_transcription_request(noise(1.0))
    with pytest.raises(ValueError, match=r"ctc_weight=0\.3"):
        tiny_model.generate(**asked, ctc_weight=0.3)
    with pytest.raises(ValueError, match="ctc_weight=1"):
        make_ctc_model().generate(**asked, ctc_weight=1)
