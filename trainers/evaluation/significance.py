"""Do two systems differ? Paired bootstrap, matched-pairs segment test, McNemar's test, Holm's correction, power.

Sources: Bisani & Ney, ICASSP 2004 (paired bootstrap, probability of improvement); Gillick & Cox, ICASSP 1989, and Pallett,
Fisher & Fiscus, ICASSP 1990 (matched pairs sentence-segment word error test, "MAPSSWE", as in NIST's sc_stats); Holm,
Scandinavian Journal of Statistics 1979.
"""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trainers.evaluation.alignment import DELETE, INSERT, SUBSTITUTE, Alignment
from trainers.evaluation.bootstrap import (
    Blocks,
    BootstrapSettings,
    block_sums,
    expanded_tail,
    interval,
    minimum_detectable_difference,
    resample_sums,
)

MINIMUM_GOOD_WORDS = 2


class PairedBootstrap(TypedDict):
    """The difference of two word error rates, B minus A; None where the references hold no words."""

    difference: float | None
    difference_ci: list[float] | None
    relative_difference: float | None
    relative_difference_ci: list[float] | None
    p_value: float | None
    probability_of_improvement: float | None
    standard_error: float | None
    minimum_detectable_difference: float | None
    p_value_holm: NotRequired[float | None]
    """once all pairs are known"""


class MatchedPairs(TypedDict):
    """The mean difference in errors per segment, B minus A; no `statistic` where every segment differs by the same."""

    segments: int
    mean_difference: float
    statistic: float | None
    p_value: float
    p_value_holm: NotRequired[float | None]
    """once all pairs are known"""


def paired_bootstrap(
    errors_a: ArrayLike, errors_b: ArrayLike, reference_words: ArrayLike, blocks: Blocks, settings: BootstrapSettings
) -> PairedBootstrap:
    """The difference of two systems' error rates on the same utterances, B minus A, with interval and p-value.

    All arguments have one entry per utterance. The p-value is two-sided and inverts the interval: it is below 1 - confidence
    exactly where the interval excludes 0. `probability_of_improvement` is the share of resamples in which B is better.
    """
    columns = np.stack([np.asarray(x, dtype=np.float64) for x in (errors_a, errors_b, reference_words)], axis=1)
    words = columns[:, 2].sum()
    if not words:
        return {
            "difference": None, "difference_ci": None, "relative_difference": None, "relative_difference_ci": None,
            "p_value": None, "probability_of_improvement": None, "standard_error": None, "minimum_detectable_difference": None,
        }  # fmt: skip
    totals = resample_sums(block_sums(columns, blocks), blocks, settings)
    totals = totals[totals[:, 2] > 0]
    samples = (totals[:, 1] - totals[:, 0]) / totals[:, 2]
    difference = float((columns[:, 1].sum() - columns[:, 0].sum()) / words)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(totals[:, 0] > 0, totals[:, 1] / totals[:, 0] - 1, np.nan)
    errors = float(columns[:, 0].sum())
    error = standard_error(samples, blocks)
    return {
        "difference": difference,
        "difference_ci": interval(samples, blocks, settings),
        "relative_difference": float(columns[:, 1].sum() / errors - 1) if errors else None,
        "relative_difference_ci": interval(relative, blocks, settings) if errors else None,
        "p_value": _p_value(samples, difference, blocks),
        "probability_of_improvement": float((samples < 0).mean() + 0.5 * (samples == 0).mean()),
        "standard_error": error,
        "minimum_detectable_difference": minimum_detectable_difference(error, 1 - settings.confidence),
    }


def standard_error(samples: NDArray[np.float64], blocks: Blocks) -> float:
    """The standard deviation of bootstrap samples, corrected for the number of blocks."""
    return float(samples.std() * np.sqrt(blocks.effective / (blocks.effective - 1))) if blocks.effective > 1 else 0.0


def matched_pairs(first: Sequence[Alignment], second: Sequence[Alignment]) -> MatchedPairs:
    """MAPSSWE: the mean difference in errors per segment, B minus A, against 0.

    A segment is a stretch with errors of either system, parted from the next by at least two words in a row that both have
    right, or by the utterance's end. The p-value comes from Student's t, which for many segments is sc_stats' normal.
    """
    differences = np.array([b - a for pair in zip(first, second, strict=True) for a, b in segment_errors(*pair)])
    segments = len(differences)
    if not segments:
        return {"segments": 0, "mean_difference": 0.0, "statistic": 0.0, "p_value": 1.0}
    mean = float(differences.mean())
    deviation = float(differences.std(ddof=1)) if segments > 1 else 0.0
    if deviation:
        statistic = mean / (deviation / np.sqrt(segments))
        p_value = float(2 * stats.t.sf(abs(statistic), segments - 1))
    else:  # every segment differs by the same: the sign test is all that is left
        statistic = None
        p_value = min(1.0, 2 * 0.5**segments) if mean else 1.0
    return {
        "segments": segments,
        "mean_difference": mean,
        "statistic": None if statistic is None else float(statistic),
        "p_value": p_value,
    }


def segment_errors(first: Alignment, second: Alignment) -> list[tuple[int, int]]:
    """Errors of both systems in each segment of one utterance."""
    if first.reference != second.reference:
        raise ValueError(f"The references differ: {first.reference!r} and {second.reference!r}.")
    wrong_a, inserted_a = _errors_by_position(first)
    wrong_b, inserted_b = _errors_by_position(second)
    segments: list[tuple[int, int]] = []
    good_words = MINIMUM_GOOD_WORDS
    for position in range(len(first.reference) + 1):
        for a, b, is_word in (
            (inserted_a[position], inserted_b[position], False),
            (wrong_a[position], wrong_b[position], position < len(first.reference)),
        ):
            if a or b:
                if good_words >= MINIMUM_GOOD_WORDS:
                    segments.append((0, 0))
                segments[-1] = (segments[-1][0] + int(a), segments[-1][1] + int(b))
                good_words = 0
            elif is_word:
                good_words += 1
    return segments


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided p-value that an utterance is as likely to be fixed as to be broken (McNemar's test)."""
    return float(stats.binomtest(fixed, fixed + broken, 0.5).pvalue) if fixed + broken else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: reject where the adjusted value is below the level. `None` stays out of the family."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, index) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * p))
        adjusted[index] = running
    return adjusted


def _p_value(samples: NDArray[np.float64], difference: float, blocks: Blocks) -> float:
    if difference == 0 or blocks.effective < 2:
        return 1.0
    beyond = np.count_nonzero(samples <= 0 if difference > 0 else samples >= 0)
    quantile = (beyond + 1) / (len(samples) + 1)
    return min(1.0, 2 * expanded_tail(quantile, blocks.effective, inverse=True))


def _errors_by_position(alignment: Alignment) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whether each reference word is wrong, and how many words are inserted before it; both of length words + 1."""
    length = len(alignment.reference) + 1
    wrong, inserted = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.int64)
    for op in alignment.operations:
        if op.type in (SUBSTITUTE, DELETE):
            wrong[op.ref_start_idx : op.ref_end_idx] = 1
        elif op.type == INSERT:
            inserted[op.ref_start_idx] += op.hyp_end_idx - op.hyp_start_idx
    return wrong, inserted
