"""Simulated systems with a known difference: intervals cover and tests reject at their nominal rates. Slow.

A population of utterances is made once and aligned; each trial draws a test set from it, so the truth is known exactly.
Utterances and speakers have difficulties of their own, shared by both systems, so errors come in clumps and the systems
are correlated, as real ones are; each speaker also suits one system better than the other.
"""

import functools
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainers.evaluation.alignment import Alignment, align_words
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, make_blocks, ratio_intervals
from trainers.evaluation.significance import matched_pairs, paired_bootstrap

pytestmark = pytest.mark.slow

TRIALS = 1000
RESAMPLES = 500
SPEAKERS, UTTERANCES_EACH = 1000, 12
WORD_ERROR_RATE = 0.15


class Population(NamedTuple):
    """Aligned output of two systems on the same utterances; `words` and `errors` have one entry (or row) for each."""

    first: list[Alignment]
    second: list[Alignment]
    words: NDArray[np.int64]
    errors: NDArray[np.int64]
    speaker: NDArray[np.int64]


@functools.cache
def population(difference: float) -> Population:
    """Two systems whose word error probabilities are about `difference` apart. Half of the errors are substitutions."""
    rng = np.random.default_rng(11)
    speaker = np.repeat(np.arange(SPEAKERS), UTTERANCES_EACH)
    difficulty = rng.gamma(4, 1 / 4, len(speaker)) * rng.gamma(4, 1 / 4, SPEAKERS)[speaker]
    references = [[f"w{i}" for i in range(2 + rng.poisson(8))] for _ in speaker]
    systems = []
    for rate in (WORD_ERROR_RATE, WORD_ERROR_RATE + difference):
        suits = rng.gamma(16, 1 / 16, SPEAKERS)[speaker]
        texts = []
        for words, hard in zip(references, difficulty * suits, strict=True):
            p = min(rate * hard, 0.95)
            draws = rng.random(len(words))
            texts.append(" ".join(_heard(word, draw, p) for word, draw in zip(words, draws, strict=True)))
        systems.append(align_words([" ".join(words) for words in references], texts))
    errors = np.array([[a.errors for a in system] for system in systems]).T
    lengths = np.array([len(words) for words in references])
    return Population(systems[0], systems[1], lengths, errors, speaker)


def _heard(word: str, draw: float, p: float) -> str:
    if draw > p:
        return word
    return "x" if draw < p / 2 else "" if draw < 0.75 * p else f"{word} y"


def draw_test_set(rng: np.random.Generator, by_speaker: bool) -> tuple[NDArray[np.int64], Blocks]:
    """Utterances of 200 different speakers, or all utterances of 25 speakers, with their blocks."""
    if by_speaker:
        speakers = rng.integers(0, SPEAKERS, 25)
        rows = (speakers[:, None] * UTTERANCES_EACH + np.arange(UTTERANCES_EACH)).ravel()
        return rows, make_blocks(len(rows), [(None, str(i)) for i in np.repeat(np.arange(25), UTTERANCES_EACH)])
    return rng.integers(0, SPEAKERS * UTTERANCES_EACH, 200), make_blocks(200)


def assert_rate(hits: int, nominal: float, tolerance: float) -> None:
    """The share of hits is `nominal`, give or take `tolerance` and what chance does in TRIALS trials (99.9 %)."""
    low, high = stats.binom.interval(0.999, TRIALS, nominal) / np.float64(TRIALS)
    assert low - tolerance <= hits / TRIALS <= high + tolerance, hits / TRIALS


@pytest.mark.parametrize("by_speaker", [False, True])
def test_intervals_of_one_system_cover(by_speaker: bool) -> None:
    everyone, rng = population(0.0), np.random.default_rng(1)
    truth = everyone.errors[:, 0].sum() / everyone.words.sum()
    covered = 0
    for trial in range(TRIALS):
        rows, blocks = draw_test_set(rng, by_speaker)
        settings = BootstrapSettings(RESAMPLES, seed=trial)
        (bounds,) = ratio_intervals(everyone.errors[rows, :1], everyone.words[rows, None], blocks, settings)
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
    assert_rate(covered, 0.95, tolerance=0.015)


@pytest.mark.parametrize("by_speaker", [False, True])
def test_no_difference_is_rejected_at_the_level(by_speaker: bool) -> None:
    """The names of the two systems are swapped at random, by speaker: in truth there is no difference."""
    everyone, rng = population(0.0), np.random.default_rng(2)
    by_bootstrap = by_segments = 0
    for trial in range(TRIALS):
        rows, blocks = draw_test_set(rng, by_speaker)
        swap = rng.random(blocks.count)[blocks.index] < 0.5
        errors = np.where(swap[:, None], everyone.errors[rows, ::-1], everyone.errors[rows])
        settings = BootstrapSettings(RESAMPLES, seed=trial)
        result = paired_bootstrap(errors[:, 0], errors[:, 1], everyone.words[rows], blocks, settings)
        by_bootstrap += result["p_value"] < 0.05
        pairs = [
            (everyone.second[i], everyone.first[i]) if s else (everyone.first[i], everyone.second[i])
            for i, s in zip(rows, swap, strict=True)
        ]
        by_segments += matched_pairs([a for a, _ in pairs], [b for _, b in pairs])["p_value"] < 0.05
    assert_rate(by_bootstrap, 0.05, tolerance=0.015)
    if not by_speaker:  # segments of one speaker are not independent, which this test takes for granted
        assert_rate(by_segments, 0.05, tolerance=0.015)


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_known_difference_is_covered_and_found_as_often_as_predicted(by_speaker: bool) -> None:
    everyone, rng = population(0.03), np.random.default_rng(3)
    truth = (everyone.errors[:, 1] - everyone.errors[:, 0]).sum() / everyone.words.sum()
    covered = by_bootstrap = by_segments = 0
    standard_errors = []
    for trial in range(TRIALS):
        rows, blocks = draw_test_set(rng, by_speaker)
        settings = BootstrapSettings(RESAMPLES, seed=trial)
        result = paired_bootstrap(
            everyone.errors[rows, 0], everyone.errors[rows, 1], everyone.words[rows], blocks, settings
        )
        covered += result["difference_ci"][0] <= truth <= result["difference_ci"][1]
        by_bootstrap += result["p_value"] < 0.05
        standard_errors.append(result["standard_error"])
        pairs = [everyone.first[i] for i in rows], [everyone.second[i] for i in rows]
        by_segments += matched_pairs(*pairs)["p_value"] < 0.05
    assert_rate(covered, 0.95, tolerance=0.015)
    # what minimum_detectable_difference builds on
    power = float(stats.norm.sf(stats.norm.ppf(0.975) - truth / np.mean(standard_errors)))
    assert_rate(by_bootstrap, power, tolerance=0.06)
    if not by_speaker:
        assert_rate(by_segments, power, tolerance=0.08)


def test_ten_thousand_resamples_of_ten_thousand_utterances() -> None:
    rng = np.random.default_rng(4)
    words = rng.integers(1, 30, 10_000)
    wrong = rng.binomial(words, 0.1)
    (bounds,) = ratio_intervals(wrong[:, None], words[:, None], make_blocks(10_000), BootstrapSettings(10_000))
    rate = wrong.sum() / words.sum()
    half = 1.96 * np.sqrt(rate * (1 - rate) / words.sum())
    assert bounds == pytest.approx([rate - half, rate + half], abs=0.1 * half)
