"""Bootstrap intervals of ratios (errors over words), resampling utterances or whole speakers within each test set.

Sources: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP 2004);
Liu & Peng, "Statistical testing on ASR performance via blockwise bootstrap" (Interspeech 2020); Hesterberg, "What
teachers should know about the bootstrap" (2015) for expanded percentiles, which keep the coverage with few blocks; Davison &
Hinkley, "Bootstrap Methods and their Application" (1997), chapter 3.2, for resampling within strata.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trainers.results import BootstrapRecord, Origin

DEFAULT_RESAMPLES = 10_000
POWER = 0.8
FEW_BLOCKS = 10
_CHUNK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Blocks:
    """
    What is resampled as one piece.

    unit: "speaker", "utterance" or "speaker or utterance". index: the block of each utterance, in 0..count-1.
    stratum: of each block, in 0..strata-1. As many blocks are drawn of each stratum as it has.
    """

    unit: str
    count: int
    index: NDArray[np.int64]
    stratum: NDArray[np.int64]

    @property
    def strata(self) -> int:
        return int(self.stratum.max(initial=0)) + 1

    @property
    def effective(self) -> int:
        """How many blocks of one stratum have as many degrees of freedom."""
        return self.count - self.strata + 1


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
            "method": "percentile bootstrap, expanded", "unit": blocks.unit, "blocks": blocks.count, "strata": blocks.strata,
            "resamples": self.resamples, "confidence": self.confidence, "seed": self.seed,
        }  # fmt: skip


def make_blocks(utterances: int, origins: Sequence[Origin] | None = None) -> Blocks:
    """
    What to resample: within each test set its speakers, where it has at least two, else its utterances.

    The make-up of a test of several sets is thus the same in every resample, and a set of one voice stands for that voice. An
    utterance without a speaker is a block of its own. Sets of fewer than `FEW_BLOCKS` blocks count as one set together:
    resampled alone, so few vary too little.
    """
    if origins is None:
        origins = [(None, None)] * utterances
    alone = _block_names([(source, True) for source, _ in origins], origins)
    sizes = Counter(test_set for test_set, _ in set(alone))
    names = _block_names(
        [test_set if sizes[test_set] >= FEW_BLOCKS else (None, False) for test_set, _ in alone], origins
    )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    strata = {test_set: number for number, test_set in enumerate(dict.fromkeys(test_set for test_set, _ in names))}
    spoken = {test_set for test_set, block in names if not isinstance(block, int)}
    unit = " or ".join(sorted({"speaker" if test_set in spoken else "utterance" for test_set in strata}))
    index = np.array([numbers[name] for name in names], dtype=np.int64)
    return Blocks(unit, len(numbers), index, np.array([strata[test_set] for test_set, _ in numbers], dtype=np.int64))


def block_sums(values: ArrayLike, blocks: Blocks) -> NDArray[np.float64]:
    """Sum `values` of shape (utterances, k) into shape (blocks, k)."""
    array = np.asarray(values, dtype=np.float64)
    sums = np.zeros((blocks.count, array.shape[1]))
    np.add.at(sums, blocks.index, array)
    return sums


def resample_sums(sums: NDArray[np.float64], blocks: Blocks, settings: BootstrapSettings) -> NDArray[np.float64]:
    """Column totals of every resample: (blocks, k) -> (resamples, k). All columns share the same draws."""
    return np.concatenate([counts @ sums for counts in draw_counts(blocks, settings)])


def ratio_intervals(
    numerators: ArrayLike, denominators: ArrayLike, blocks: Blocks, settings: BootstrapSettings | None
) -> list[list[float] | None]:
    """Interval of each ratio sum(numerator) / sum(denominator).

    numerators, denominators: shape (utterances, k). Returns k intervals `[low, high]`, `None` where undefined, without
    settings, and where errors stand in a single block, which says nothing of others. Where no error was seen, resampling would claim certainty: the upper end is then the exact binomial bound for
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
            intervals.append(interval(ratios[:, column], blocks, settings) if blocks.count > 1 else None)
    return intervals


def resample_ratios(
    numerators: ArrayLike, denominators: ArrayLike, blocks: Blocks, settings: BootstrapSettings
) -> NDArray[np.float64]:
    """Ratios of every resample, shape (resamples, k); NaN where a resample's denominator is 0."""
    stacked = np.concatenate(
        [np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1
    )
    totals = resample_sums(block_sums(stacked, blocks), blocks, settings)
    half = stacked.shape[1] // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(totals[:, half:] > 0, totals[:, :half] / totals[:, half:], np.nan)


def ratio_standard_error(numerator: ArrayLike, denominator: ArrayLike, blocks: Blocks) -> float | None:
    """Standard error of sum(numerator) / sum(denominator) over blocks, by linearisation; `None` where undefined.

    numerator, denominator: shape (utterances,).
    """
    sums = block_sums(np.stack([np.asarray(numerator), np.asarray(denominator)], axis=1), blocks)
    total = sums[:, 1].sum()
    if not total or blocks.effective < 2:
        return None
    residuals = sums[:, 0] - sums[:, 0].sum() / total * sums[:, 1]
    members = np.bincount(blocks.stratum)
    centred = residuals - (np.bincount(blocks.stratum, residuals) / members)[blocks.stratum]
    spread = np.bincount(blocks.stratum, centred**2)
    return float(np.sqrt((members / np.maximum(members - 1, 1) * spread).sum()) / total)


def minimum_detectable_difference(error: float, alpha: float) -> float:
    """The true difference that a two-sided test at level `alpha` finds in 80 of 100 cases.

    error: standard error of the difference. For two systems on different test sets, or as an upper bound before there is a
    second system, that is sqrt(2) times the standard error of one error rate.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) * error)


def interval(samples: NDArray[np.float64], blocks: Blocks, settings: BootstrapSettings) -> list[float] | None:
    """Expanded percentile interval of bootstrap `samples` that came from `blocks`; `None` if all are NaN."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return None
    tail = expanded_tail((1 - settings.confidence) / 2, blocks.effective)
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


def draw_counts(blocks: Blocks, settings: BootstrapSettings) -> Iterator[NDArray[np.float64]]:
    """How often every block is drawn in each resample, in chunks of shape (some resamples, blocks)."""
    generator = np.random.default_rng(settings.seed)
    strata = [np.flatnonzero(blocks.stratum == number).astype(np.int32) for number in range(blocks.strata)]
    chunk = max(1, _CHUNK_DRAWS // max(blocks.count, 1))
    for start in range(0, settings.resamples, chunk):
        rows = min(chunk, settings.resamples - start)
        drawn = [
            members[generator.integers(0, len(members), size=(rows, len(members)), dtype=np.int32)]
            for members in strata
        ]
        draws = np.concatenate(drawn, axis=1) + np.arange(rows, dtype=np.int32)[:, None] * blocks.count
        yield np.bincount(draws.ravel(), minlength=rows * blocks.count).reshape(rows, blocks.count).astype(np.float64)


def _block_names(
    test_sets: Sequence[tuple[str | None, bool]], origins: Sequence[Origin]
) -> list[tuple[tuple[str | None, bool], Origin | int]]:
    """Each utterance's test set and block: its speaker, or its own number."""
    voices: dict[tuple[str | None, bool], set[Origin]] = {}
    for test_set, origin in zip(test_sets, origins, strict=True):
        voices.setdefault(test_set, set()).update([] if origin[1] is None else [origin])
    return [
        (test_set, i if origin[1] is None or len(voices[test_set]) < 2 else origin)
        for i, (test_set, origin) in enumerate(zip(test_sets, origins, strict=True))
    ]
