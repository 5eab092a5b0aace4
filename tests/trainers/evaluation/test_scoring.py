"""Counts and rates: by hand, by jiwer, by an independent aligner with sclite's weights, and by ours."""

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.errors import UserError
from trainers.evaluation import get_normalizer, read_predictions, score, score_rows
from trainers.evaluation.alignment import align_words
from trainers.evaluation.scoring import normalize_and_align

from .counting import count, sclite_count

FIXED = Path(__file__).parent / "data" / "mixed.jsonl"
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "ab"]), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)


def test_fixed_file_by_hand_by_jiwer_by_sclite_and_by_ours() -> None:
    rows = read_predictions(FIXED)
    by_hand = np.array([row["counted_by_hand"] for row in rows])
    references = [get_normalizer(row["language"])(row["reference"]) for row in rows]
    predictions = [get_normalizer(row["language"])(row["prediction"]) for row in rows]
    by_sclite = [sclite_count(r.split(), p.split()) for r, p in zip(references, predictions, strict=True)]
    ours = normalize_and_align(
        [row["reference"] for row in rows],
        [row["prediction"] for row in rows],
        languages=[row["language"] for row in rows],
    ).words
    assert ours.tolist() == by_hand.tolist() == [list(c) for c in by_sclite]

    by_jiwer = jiwer.process_words(references, predictions)
    metrics = score_rows(rows, bootstrap=200)
    assert [metrics[k] for k in ("hits", "substitutions", "deletions", "insertions")] == by_hand.sum(axis=0).tolist()
    assert [by_jiwer.hits, by_jiwer.substitutions, by_jiwer.deletions, by_jiwer.insertions] == by_hand.sum(
        axis=0
    ).tolist()
    assert metrics["wer"] == pytest.approx(by_jiwer.wer)
    assert metrics["cer"] == pytest.approx(jiwer.process_characters(references, predictions).cer)
    assert metrics["reference_words"] == by_hand[:, :3].sum()
    assert metrics["sentence_error_rate"] == pytest.approx(9 / 12)
    assert (metrics["empty_references"], metrics["empty_predictions"]) == (1, 1)
    assert metrics["normalizer"] == "by language"
    assert set(metrics["normalizers"]) == {"da", "en", "nl"}


def test_tables_by_language_source_and_speaker_add_up() -> None:
    metrics = score_rows(read_predictions(FIXED), bootstrap=100)
    assert set(metrics["by_language"]) == {"da", "en", "nl"}
    assert set(metrics["by_source"]) == {"news", "talk"}
    assert len(metrics["by_speaker"]) == 6
    for table in ("by_language", "by_source", "by_speaker"):
        for field in ("substitutions", "reference_words", "utterances", "empty_references"):
            assert sum(group[field] for group in metrics[table].values()) == metrics[field]
    assert metrics["bootstrap"]["unit"] == "speaker"
    assert metrics["bootstrap"]["blocks"] == 7  # a name that stands in two sources is two speakers


@given(pairs=PAIRS)
def test_any_texts_agree_with_jiwer_and_an_independent_aligner(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [list(texts) for texts in zip(*pairs, strict=True)]
    ours = score(references, predictions, normalizer="none", bootstrap=0)
    by_jiwer = jiwer.process_words(references, predictions)
    assert (ours["hits"], ours["substitutions"]) == (by_jiwer.hits, by_jiwer.substitutions)
    assert (ours["deletions"], ours["insertions"]) == (by_jiwer.deletions, by_jiwer.insertions)
    for alignment in align_words(references, predictions):
        hits, substitutions, deletions, insertions = count(alignment.reference, alignment.hypothesis)
        assert alignment.errors == substitutions + deletions + insertions
        assert alignment.hits + alignment.substitutions + alignment.deletions == len(alignment.reference)
        assert alignment.hits + alignment.substitutions + alignment.insertions == len(alignment.hypothesis)
        # sclite's weights may trade more errors for more hits, never fewer errors
        assert sum(sclite_count(alignment.reference, alignment.hypothesis)[1:]) >= alignment.errors
        assert hits >= 0
    if ours["reference_words"]:
        assert ours["wer"] == pytest.approx(by_jiwer.wer)
        assert ours["cer"] == pytest.approx(jiwer.cer(references, predictions))
    else:
        assert ours["wer"] is None


@given(pairs=PAIRS)
def test_corpus_rate_is_errors_over_words_not_a_mean_of_sentences(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [list(texts) for texts in zip(*pairs, strict=True)]
    whole = score(references, predictions, normalizer="none", bootstrap=0)
    parts = [score([r], [p], normalizer="none", bootstrap=0) for r, p in pairs]
    errors = sum(part["substitutions"] + part["deletions"] + part["insertions"] for part in parts)
    words = sum(part["reference_words"] for part in parts)
    assert whole["wer"] == (pytest.approx(errors / words) if words else None)


def test_alignment_pairs() -> None:
    (alignment,) = align_words(["a b c"], ["a x c d"])
    assert alignment.pairs() == [
        ("equal", "a", "a"), ("substitute", "b", "x"), ("equal", "c", "c"), ("insert", None, "d"),
    ]  # fmt: skip


def test_language_chooses_the_normalizer_and_it_is_recorded() -> None:
    assert score(["21"], ["een en twintig"], language="nl", bootstrap=0)["wer"] == 0
    result = score(["21"], ["een en twintig"], language="nl", normalizer="basic", bootstrap=0)
    assert result["wer"] == 3
    assert result["normalizer"] == "basic"
    assert score(["a"], ["a"], bootstrap=0)["normalizer"] == "basic"


def test_intervals_hold_the_rate_and_do_not_change_with_the_run() -> None:
    rng = np.random.default_rng(0)
    references = ["a b c d e"] * 60
    predictions = [" ".join(w if rng.random() > 0.2 else "x" for w in "abcde") for _ in references]
    first, second = (score(references, predictions, normalizer="none", bootstrap=500) for _ in range(2))
    assert first == second
    assert first["wer_ci"][0] < first["wer"] < first["wer_ci"][1]
    assert first["wer_ci"] != score(references, predictions, normalizer="none", bootstrap=500, seed=1)["wer_ci"]
    wide = score(references, predictions, normalizer="none", bootstrap=500, confidence=0.99)["wer_ci"]
    assert wide[0] < first["wer_ci"][0] and wide[1] > first["wer_ci"][1]
    assert score(references, predictions, normalizer="none", bootstrap=0)["wer_ci"] is None


def test_no_errors_is_not_certainty() -> None:
    low, high = score(["a b c d"] * 25, ["a b c d"] * 25, normalizer="none", bootstrap=100)["wer_ci"]
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_no_reference_words_is_no_rate() -> None:
    result = score(["", ""], ["a", ""], normalizer="none", bootstrap=100)
    assert result["wer"] is None and result["wer_ci"] is None
    assert (result["insertions"], result["empty_references"], result["empty_predictions"]) == (1, 2, 1)
    assert "undefined" in result["notes"][0]
    json.dumps(result, allow_nan=False)


def test_few_utterances_are_noted() -> None:
    assert "One utterance" in score(["a b"], ["a c"], bootstrap=100)["notes"][0]
    assert "Only 3 utterances" in score(["a b"] * 3, ["a c"] * 3, bootstrap=100)["notes"][0]


def test_unequal_or_empty_lists_are_user_errors() -> None:
    with pytest.raises(UserError, match="2 references and 1 predictions"):
        score(["a", "b"], ["a"])
    with pytest.raises(UserError, match="nothing to score"):
        score([], [])
    with pytest.raises(UserError, match="'by_source' has 1 values for 2"):
        score(["a", "b"], ["a", "b"], groups={"by_source": ["x"]})
    with pytest.raises(ValueError, match="between 0 and 1"):
        score(["a"], ["a"], confidence=95)
