"""Bootstrap and tests on small cases worked out by hand or by another formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainers.evaluation.alignment import align_words
from trainers.evaluation.bootstrap import (
    BootstrapSettings,
    block_sums,
    expanded_tail,
    make_blocks,
    minimum_detectable_difference,
    ratio_intervals,
    ratio_standard_error,
    resample_sums,
)
from trainers.evaluation.significance import holm, matched_pairs, mcnemar, paired_bootstrap, segment_errors
from trainers.results import Origin

SETTINGS = BootstrapSettings(resamples=4000, seed=3)


def of_one_set(*speakers: str | None) -> list[Origin]:
    return [("set", speaker) for speaker in speakers]


def test_interval_is_the_normal_one_for_many_utterances() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(5, 25, 2000)
    errors = rng.binomial(words, 0.15)
    blocks = make_blocks(2000)
    (bounds,) = ratio_intervals(errors[:, None], words[:, None], blocks, SETTINGS)
    error = ratio_standard_error(errors, words, blocks)
    assert error is not None
    rate = errors.sum() / words.sum()
    assert bounds == pytest.approx([rate - 1.96 * error, rate + 1.96 * error], rel=0.01)


@pytest.mark.parametrize(("errors", "known"), [([2], False), ([0], True), ([2, 1], True)])
def test_one_utterance_with_errors_has_no_interval(errors: list[int], known: bool) -> None:
    """Resampling one block gives the same rate each time, which would claim certainty."""
    wrong = np.array(errors)[:, None]
    (bounds,) = ratio_intervals(wrong, np.full_like(wrong, 7), make_blocks(len(errors)), SETTINGS)
    assert (bounds is not None) == known


def test_speakers_are_resampled_whole() -> None:
    blocks = make_blocks(6, of_one_set("a", "a", "b", None, "b", None))
    assert (blocks.unit, blocks.count, blocks.strata) == ("speaker", 4, 1)
    sums = block_sums(np.arange(6)[:, None], blocks)
    assert sums[:, 0].tolist() == [1, 6, 3, 5]
    totals = set(resample_sums(sums, blocks, BootstrapSettings(300))[:, 0])
    assert totals <= {a + b + c + d for a in sums[:, 0] for b in sums[:, 0] for c in sums[:, 0] for d in sums[:, 0]}
    assert make_blocks(6, of_one_set(*["a"] * 6)).unit == "utterance"


def test_each_test_set_keeps_its_share_and_its_kind_of_block() -> None:
    """A set of one voice is resampled by utterances, one of many voices by speakers; both keep their number of blocks."""
    origins: list[Origin] = [("one voice", "a")] * 12 + [("many", f"b{i % 15}") for i in range(30)] + [("few", "a")] * 3
    blocks = make_blocks(len(origins), origins)
    assert (blocks.unit, blocks.count, blocks.strata, blocks.effective) == ("speaker or utterance", 12 + 15 + 3, 3, 28)
    assert len(set(blocks.index[:12])) == 12 and len(set(blocks.index[12:42])) == 15
    of_set = np.stack([blocks.stratum == number for number in range(3)], axis=1).astype(float)
    totals = resample_sums(of_set, blocks, BootstrapSettings(50))
    assert (totals == [12, 15, 3]).all()
    shares = resample_sums(block_sums(np.arange(45)[:, None], blocks), blocks, BootstrapSettings(50))
    assert len(set(shares[:, 0])) > 20


def test_sets_too_small_to_resample_alone_count_as_one() -> None:
    origins: list[Origin] = [(f"set {i // 2}", f"speaker {i // 2}") for i in range(40)]
    blocks = make_blocks(40, origins)
    assert (blocks.unit, blocks.count, blocks.strata) == ("speaker", 20, 1)
    same_name: list[Origin] = [(f"set {i % 3}", "1") for i in range(9)]
    assert make_blocks(9, same_name).count == 3  # one name in three sets: three voices


def test_intervals_of_several_sets_are_those_of_a_stratified_mean() -> None:
    """Against the textbook's standard error; pooled, the sets' different rates and sizes would widen it sevenfold."""
    rng = np.random.default_rng(3)
    rates, sizes, length = (0.05, 0.8), (400, 100), (40, 10)
    words = np.repeat(length, sizes)
    errors = rng.binomial(words, np.repeat(rates, sizes))
    origins: list[Origin] = [("read", None)] * sizes[0] + [("shouted", None)] * sizes[1]
    blocks = make_blocks(500, origins)
    (bounds,) = ratio_intervals(errors[:, None], words[:, None], blocks, SETTINGS)
    assert bounds is not None
    parts = [errors[:400], errors[400:]]
    error = np.sqrt(sum(len(part) * part.var(ddof=1) for part in parts)) / words.sum()
    rate = errors.sum() / words.sum()
    assert bounds == pytest.approx([rate - 1.96 * error, rate + 1.96 * error], rel=0.02)
    assert ratio_standard_error(errors, words, blocks) == pytest.approx(error)
    pooled = ratio_standard_error(errors, words, make_blocks(500))
    assert pooled is not None and pooled > 2 * error


def test_speaker_blocks_widen_the_interval_when_speakers_differ() -> None:
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(20), 30)
    words = np.full(600, 10)
    errors = rng.binomial(words, 0.05 + 0.3 * rng.random(20)[speaker])
    (plain,) = ratio_intervals(errors[:, None], words[:, None], make_blocks(600), SETTINGS)
    (by_speaker,) = ratio_intervals(
        errors[:, None], words[:, None], make_blocks(600, of_one_set(*speaker.astype(str))), SETTINGS
    )
    assert plain is not None and by_speaker is not None
    assert by_speaker[1] - by_speaker[0] > 2 * (plain[1] - plain[0])


@given(tail=st.floats(0.001, 0.499), blocks=st.integers(5, 500))
def test_expanded_tail_inverts(tail: float, blocks: int) -> None:
    assert expanded_tail(expanded_tail(tail, blocks), blocks, inverse=True) == pytest.approx(tail, rel=1e-6)
    assert expanded_tail(tail, blocks) <= tail + 1e-12


def test_paired_bootstrap_sees_what_unpaired_cannot() -> None:
    rng = np.random.default_rng(2)
    words = rng.integers(5, 20, 500)
    errors_a = rng.binomial(words, 0.2)
    errors_b = errors_a - (rng.random(500) < 0.1) * (errors_a > 0)
    result = paired_bootstrap(errors_a, errors_b, words, make_blocks(500), SETTINGS)
    assert result["difference"] == pytest.approx((errors_b.sum() - errors_a.sum()) / words.sum())
    assert result["difference_ci"][1] < 0
    assert result["p_value"] < 0.01 and result["probability_of_improvement"] == 1
    assert result["relative_difference"] == pytest.approx(errors_b.sum() / errors_a.sum() - 1)
    single = ratio_standard_error(errors_a, words, make_blocks(500))
    assert single is not None and result["standard_error"] < single / 2


def test_p_value_and_interval_say_the_same() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        words = rng.integers(5, 15, 60)
        a, b = rng.binomial(words, 0.3), rng.binomial(words, 0.24)
        result = paired_bootstrap(a, b, words, make_blocks(60), BootstrapSettings(500))
        low, high = result["difference_ci"]
        clear = min(abs(low), abs(high)) > 0.005  # on the very edge quantiles interpolate
        assert not clear or (result["p_value"] < 0.05) == (low > 0 or high < 0)


def test_equal_systems() -> None:
    result = paired_bootstrap([1, 0, 2], [1, 0, 2], [5, 5, 5], make_blocks(3), SETTINGS)
    assert result["difference"] == 0 and result["p_value"] == 1 and result["probability_of_improvement"] == 0.5
    assert result["difference_ci"] == [0, 0]


def test_segments_end_at_two_words_right_in_both() -> None:
    reference = "a b c d e f g h i j"
    (first,) = align_words([reference], ["a X c d e f g h Y j"])
    (second,) = align_words([reference], ["a b c Z e f g h i j k"])
    # b wrong in A, d wrong in B with one good word between: one segment. i and the inserted k: one good word, one segment.
    assert segment_errors(first, second) == [(1, 1), (1, 1)]
    (third,) = align_words([reference], ["a b c d e f g h i j"])
    assert segment_errors(first, third) == [(1, 0), (1, 0)]
    assert segment_errors(third, third) == []


def test_segments_with_insertions_and_empty_references() -> None:
    (first,) = align_words(["a b c d"], ["x a b c d"])
    (second,) = align_words(["a b c d"], ["a b y z c d"])
    assert segment_errors(first, second) == [(1, 0), (0, 2)]
    (silent,) = align_words([""], ["x y"])
    (right,) = align_words([""], [""])
    assert segment_errors(silent, right) == [(2, 0)]
    with pytest.raises(ValueError, match="references differ"):
        segment_errors(first, silent)


def test_matched_pairs_is_the_t_test_of_segment_differences() -> None:
    references = ["a b c d e f"] * 6
    first = align_words(
        references, ["x b c d e f", "a b c d e f", "x y c d e f", "a b c d x f", "a b x d e f", "x b c d e f"]
    )
    second = align_words(
        references, ["a b c d e f", "x b c d e f", "x b c d e f", "a b c d e f", "a b c d e f", "x b c d e f"]
    )
    differences = [-1, 1, -1, -1, -1, 0]
    result = matched_pairs(first, second)
    assert (result["segments"], result["mean_difference"]) == (6, pytest.approx(-0.5))
    assert result["p_value"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_matched_pairs_without_spread() -> None:
    first = align_words(["a b"] * 5, ["x b"] * 5)
    right = align_words(["a b"] * 5, ["a b"] * 5)
    assert matched_pairs(right, right) == {"segments": 0, "mean_difference": 0.0, "statistic": 0.0, "p_value": 1.0}
    assert matched_pairs(first, right)["p_value"] == pytest.approx(2 * 0.5**5)
    assert matched_pairs(first, first)["p_value"] == 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(q is not None and p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = [q or 0.0 for _, q in sorted(zip(p_values, adjusted, strict=True), key=lambda pair: pair[0])]
    assert ranked == sorted(ranked)


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(7, 7) == 1


def test_minimum_detectable_difference() -> None:
    assert minimum_detectable_difference(0.01, 0.05) == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-5)
    assert minimum_detectable_difference(0.01, 0.01) == pytest.approx(0.01 * (2.575829 + 0.841621), rel=1e-5)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="at least 1 resample, got 0"):
        BootstrapSettings(0)
    assert math.isclose(BootstrapSettings().confidence, 0.95)
