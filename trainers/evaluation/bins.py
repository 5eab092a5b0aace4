"""Error rates by bin, each with its interval, for words and for utterances."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainers.evaluation.bootstrap import (
    Blocks,
    BootstrapSettings,
    block_sums,
    interval,
    ratio_intervals,
    resample_ratios,
)
from trainers.results import ChangeBin, RateBin


def rate_table(
    labels: Sequence[str],
    errors: ArrayLike,
    words: ArrayLike,
    utterance: ArrayLike,
    blocks: Blocks,
    settings: BootstrapSettings | None,
    order: Sequence[str] | None = None,
) -> list[RateBin]:
    """One row per label: items, reference words, errors, rate and interval.

    labels, errors, words, utterance: one entry per item, which is a word or an utterance; `utterance` is its number.
    """
    errors, words = np.asarray(errors, dtype=np.float64), np.asarray(words, dtype=np.float64)
    names = [name for name in (order or sorted(set(labels))) if name in set(labels)]
    if not names:
        return []
    column = {name: index for index, name in enumerate(names)}
    cells = (np.asarray(utterance, dtype=np.int64), np.array([column[label] for label in labels], dtype=np.int64))
    utterances = len(blocks.index)
    shape = (utterances, len(names))
    wrong, spoken = _spread(errors, cells, shape), _spread(words, cells, shape)
    intervals = ratio_intervals(wrong, spoken, blocks, settings) if settings else [None] * len(names)
    if settings:  # one block alone says nothing about others
        spread = block_sums(spoken, blocks)
        intervals = [ci if (spread[:, i] > 0).sum() > 1 else None for i, ci in enumerate(intervals)]
    items = np.bincount(cells[1], minlength=len(names))
    total_wrong, total_spoken = wrong.sum(axis=0), spoken.sum(axis=0)
    return [
        {
            "bin": name,
            "items": int(items[i]),
            "words": int(total_spoken[i]),
            "errors": int(total_wrong[i]),
            "rate": float(total_wrong[i] / total_spoken[i]) if total_spoken[i] else None,
            "ci": intervals[i],
        }
        for i, name in enumerate(names)
    ]


def change_table(
    labels: Sequence[str],
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    utterance: ArrayLike,
    blocks: Blocks,
    settings: BootstrapSettings,
    order: Sequence[str] | None = None,
) -> list[ChangeBin]:
    """One row per label of the words of two systems: errors of both and the change of the rate, B minus A, with interval.

    labels, errors_a, errors_b, utterance: one entry per reference word.
    """
    before = rate_table(labels, errors_a, np.ones(len(labels)), utterance, blocks, None, order)
    after = rate_table(labels, errors_b, np.ones(len(labels)), utterance, blocks, None, order)
    names = [row["bin"] for row in before]
    if not names:
        return []
    column = {name: index for index, name in enumerate(names)}
    cells = (np.asarray(utterance, dtype=np.int64), np.array([column[label] for label in labels], dtype=np.int64))
    shape = (len(blocks.index), len(names))
    change = np.asarray(errors_b, dtype=np.float64) - np.asarray(errors_a, dtype=np.float64)
    words = _spread(np.ones(len(labels)), cells, shape)
    ratios = resample_ratios(_spread(change, cells, shape), words, blocks, settings)
    known = (block_sums(words, blocks) > 0).sum(axis=0) > 1
    return [
        {
            "bin": a["bin"],
            "words": a["words"],
            "a": a["errors"],
            "b": b["errors"],
            "change": (b["rate"] or 0.0) - (a["rate"] or 0.0),
            "change_ci": interval(ratios[:, i], blocks.count, settings) if known[i] else None,
        }
        for i, (a, b) in enumerate(zip(before, after, strict=True))
    ]


def bin_labels(values: Sequence[float], edges: Sequence[float], unit: str = "") -> tuple[list[str], list[str]]:
    """The label of each value and all labels in order. `edges` are the lower bounds of the bins after the first.

    Whole-number edges with no unit give labels such as "4-7", others "2-5 s".
    """
    whole = not unit
    names = []
    bounds = [None, *edges, None]
    for low, high in itertools.pairwise(bounds):
        suffix = f" {unit}" if unit else ""
        if low is None:
            names.append((f"0-{high - 1:g}" if high > 1 else "0") if whole and high else f"under {high:g}{suffix}")
        elif high is None:
            names.append(f"{low:g} or more{suffix}")
        else:
            names.append(
                (f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}") if whole else f"{low:g}-{high:g}{suffix}"
            )
    positions = np.searchsorted(np.asarray(edges, dtype=np.float64), np.asarray(values, dtype=np.float64), side="right")
    return [names[position] for position in positions], names


def _spread(
    values: NDArray[np.float64], cells: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int]
) -> NDArray[np.float64]:
    table = np.zeros(shape)
    np.add.at(table, cells, values)
    return table
