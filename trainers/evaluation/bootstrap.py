"""Bootstrap intervals of ratios (errors over words), resampling utterances or whole speakers.

Sources: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP 2004);
Liu & Peng, "Statistical testing on ASR performance via blockwise bootstrap" (Interspeech 2020); Hesterberg, "What
teachers should know about the bootstrap" (2015) for expanded percentiles, which keep the coverage with few blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trainers.results import BootstrapRecord

DEFAULT_RESAMPLES = 10_000
POWER = 0.8
_CHUNK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Blocks:
    """What is resampled as one piece. `index[i]` is the block of utterance i, in 0..count-1."""

    unit: str
    count: int
    index: NDArray[np.int64]


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are made; stands in the result."""

    resamples: int = DEFAULT_RESAMPLES
    confidence: float = 0.95
    seed: int = 42

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"The bootstrap needs at least 1 resample, got {self.resamples}.")
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"The confidence level must lie between 0 and 1 (for example 0.95), got {self.confidence}."
            )

    def describe(self, blocks: Blocks) -> BootstrapRecord:
        return {
            "method": "percentile bootstrap, expanded", "unit": blocks.unit, "blocks": blocks.count,
            "resamples": self.resamples, "confidence": self.confidence, "seed": self.seed,
        }  # fmt: skip


def make_blocks(utterances: int, speakers: Sequence[str | None] | None = None) -> Blocks:
    """Blocks by speaker when at least two speakers are known, else every utterance by itself.

    An utterance without a speaker is a block of its own.
    """
    if speakers is not None and len({s for s in speakers if s is not None}) >= 2:
        numbers: dict[Any, int] = {}
        index = [
            numbers.setdefault(("utterance", i) if speaker is None else ("speaker", speaker), len(numbers))
            for i, speaker in enumerate(speakers)
        ]
        return Blocks("speaker", len(numbers), np.array(index, dtype=np.int64))
    return Blocks("utterance", utterances, np.arange(utterances, dtype=np.int64))


def block_sums(values: ArrayLike, blocks: Blocks) -> NDArray[np.float64]:
    """Sum `values` of shape (utterances, k) into shape (blocks, k)."""
    array = np.asarray(values, dtype=np.float64)
    sums = np.zeros((blocks.count, array.shape[1]))
    np.add.at(sums, blocks.index, array)
    return sums


def resample_sums(sums: NDArray[np.float64], settings: BootstrapSettings) -> NDArray[np.float64]:
    """Column totals of every resample: (blocks, k) -> (resamples, k). All columns share the same draws."""
    totals = [counts @ sums for counts in _draw_counts(len(sums), settings)]
    return np.concatenate(totals)


def ratio_intervals(
    numerators: ArrayLike, denominators: ArrayLike, blocks: Blocks, settings: BootstrapSettings | None
) -> list[list[float] | None]:
    """Interval of each ratio sum(numerator) / sum(denominator).

    numerators, denominators: shape (utterances, k). Returns k intervals `[low, high]`, `None` where undefined and without
    settings. Where no error was seen, resampling would claim certainty: the upper end is then the exact binomial bound for
    independent units.
    """
    numerators, denominators = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if settings is None:
        return [None] * numerators.shape[1]
    ratios = resample_ratios(numerators, denominators, blocks, settings)
    intervals: list[list[float] | None] = []
    for column in range(numerators.shape[1]):
        errors, units = numerators[:, column].sum(), denominators[:, column].sum()
        if not units:
            intervals.append(None)
        elif not errors:
            intervals.append([0.0, 1 - float(((1 - settings.confidence) / 2) ** (1 / units))])
        else:
            intervals.append(interval(ratios[:, column], blocks.count, settings))
    return intervals


def resample_ratios(
    numerators: ArrayLike, denominators: ArrayLike, blocks: Blocks, settings: BootstrapSettings
) -> NDArray[np.float64]:
    """Ratios of every resample, shape (resamples, k); NaN where a resample's denominator is 0."""
    stacked = np.concatenate(
        [np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1
    )
    totals = resample_sums(block_sums(stacked, blocks), settings)
    half = stacked.shape[1] // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(totals[:, half:] > 0, totals[:, :half] / totals[:, half:], np.nan)


def ratio_standard_error(numerator: ArrayLike, denominator: ArrayLike, blocks: Blocks) -> float | None:
    """Standard error of sum(numerator) / sum(denominator) over blocks, by linearisation; `None` where undefined.

    numerator, denominator: shape (utterances,).
    """
    sums = block_sums(np.stack([np.asarray(numerator), np.asarray(denominator)], axis=1), blocks)
    total = sums[:, 1].sum()
    if not total or blocks.count < 2:
        return None
    residuals = sums[:, 0] - sums[:, 0].sum() / total * sums[:, 1]
    return float(np.sqrt(blocks.count / (blocks.count - 1) * (residuals**2).sum()) / total)


def minimum_detectable_difference(error: float, alpha: float) -> float:
    """The true difference that a two-sided test at level `alpha` finds in 80 of 100 cases.

    error: standard error of the difference. For two systems on different test sets, or as an upper bound before there is a
    second system, that is sqrt(2) times the standard error of one error rate.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) * error)


def interval(samples: NDArray[np.float64], blocks: int, settings: BootstrapSettings) -> list[float] | None:
    """Expanded percentile interval of bootstrap `samples` that came from `blocks` blocks; `None` if all are NaN."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return None
    tail = expanded_tail((1 - settings.confidence) / 2, blocks)
    low, high = np.quantile(samples, [tail, 1 - tail])
    return [float(low), float(high)]


def expanded_tail(tail: float, blocks: int, *, inverse: bool = False) -> float:
    """The percentile that gives a mean's interval the width of Student's t interval (Hesterberg 2015), or back again."""
    if blocks < 2:
        return tail
    factor = np.sqrt(blocks / (blocks - 1))
    if inverse:
        return float(stats.t.cdf(stats.norm.ppf(tail) / factor, blocks - 1))
    return float(stats.norm.cdf(factor * stats.t.ppf(tail, blocks - 1)))


def _draw_counts(blocks: int, settings: BootstrapSettings) -> Iterator[NDArray[np.float64]]:
    """How often every block is drawn in each resample, in chunks of shape (some resamples, blocks)."""
    generator = np.random.default_rng(settings.seed)
    chunk = max(1, _CHUNK_DRAWS // max(blocks, 1))
    for start in range(0, settings.resamples, chunk):
        rows = min(chunk, settings.resamples - start)
        draws = generator.integers(0, blocks, size=(rows, blocks), dtype=np.int32)
        draws += np.arange(rows, dtype=np.int32)[:, None] * blocks
        yield np.bincount(draws.ravel(), minlength=rows * blocks).reshape(rows, blocks).astype(np.float64)
