"""Error rates by bin, each with its interval, for words and for utterances."""

import itertools
from collections import Counter
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
    names, (wrong, spoken) = _sums(labels, utterance, blocks, order, errors, words)
    if not names:
        return []
    intervals, known = ratio_intervals(wrong, spoken, blocks, settings), _in_several_blocks(spoken, blocks)
    items, total_wrong, total_spoken = Counter(labels), wrong.sum(axis=0), spoken.sum(axis=0)
    return [
        {
            "bin": name,
            "items": items[name],
            "words": int(total_spoken[i]),
            "errors": int(total_wrong[i]),
            "rate": float(total_wrong[i] / total_spoken[i]) if total_spoken[i] else None,
            "ci": intervals[i] if known[i] else None,
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
    names, (wrong_a, wrong_b, words) = _sums(labels, utterance, blocks, order, errors_a, errors_b, np.ones(len(labels)))
    if not names:
        return []
    ratios, known = resample_ratios(wrong_b - wrong_a, words, blocks, settings), _in_several_blocks(words, blocks)
    before, after, spoken = wrong_a.sum(axis=0), wrong_b.sum(axis=0), words.sum(axis=0)
    return [
        {
            "bin": name,
            "words": int(spoken[i]),
            "a": int(before[i]),
            "b": int(after[i]),
            "change": float(after[i] / spoken[i] - before[i] / spoken[i]),
            "change_ci": interval(ratios[:, i], blocks, settings) if known[i] else None,
        }
        for i, name in enumerate(names)
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


def _sums(
    labels: Sequence[str], utterance: ArrayLike, blocks: Blocks, order: Sequence[str] | None, *columns: ArrayLike
) -> tuple[list[str], list[NDArray[np.float64]]]:
    """The labels that occur, in order, and each column's sums by utterance and label, shape (utterances, labels)."""
    there = set(labels)
    names = [name for name in order or sorted(there) if name in there]
    number = {name: index for index, name in enumerate(names)}
    cells = (np.asarray(utterance, dtype=np.int64), np.array([number[label] for label in labels], dtype=np.int64))
    tables = [np.zeros((len(blocks.index), len(names))) for _ in columns]
    for table, column in zip(tables, columns, strict=True):
        np.add.at(table, cells, np.asarray(column, dtype=np.float64))
    return names, tables


def _in_several_blocks(words: NDArray[np.float64], blocks: Blocks) -> NDArray[np.bool_]:
    """Whether each label's words stand in more than one block: one alone says nothing about others."""
    return (block_sums(words, blocks) > 0).sum(axis=0) > 1
