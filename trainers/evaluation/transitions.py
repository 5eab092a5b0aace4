"""What changed from system A to system B: utterances and words fixed, broken and kept, by type of error."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainers.evaluation.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE, Alignment
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, block_sums, interval, resample_sums
from trainers.evaluation.significance import mcnemar
from trainers.results import ERROR_TYPES


class Transitions(TypedDict):
    """Numbers of utterances by what became of their errors from A to B, and McNemar's test of `fixed` against `broken`."""

    fixed: int
    broken: int
    kept_right: int
    kept_wrong: int
    kept_wrong_improved: int
    kept_wrong_worsened: int
    kept_wrong_same: int
    mcnemar_p_value: float


class ErrorTypeChange(TypedDict):
    """One type of error in A and in B; `change` is of the rate over all reference words."""

    a: int
    b: int
    change: float | None
    change_ci: list[float] | None
    relative_change: float | None
    relative_change_ci: list[float] | None
    utterances: Transitions


class ChangedExample(TypedDict):
    """An utterance whose number of errors changed, with the words of both systems."""

    id: str
    reference: str
    a: str
    b: str
    errors_a: int
    errors_b: int


_STATE_NAMES = {EQUAL: "right", SUBSTITUTE: "substituted", DELETE: "deleted"}


def utterance_transitions(errors_a: ArrayLike, errors_b: ArrayLike) -> Transitions:
    """Utterances by what became of their errors. fixed: wrong in A, right in B; broken: the other way round.

    Utterances wrong in both are split into improved, worsened and the same number of errors.
    """
    a, b = np.asarray(errors_a), np.asarray(errors_b)
    fixed, broken = int(((a > 0) & (b == 0)).sum()), int(((a == 0) & (b > 0)).sum())
    both = (a > 0) & (b > 0)
    return {
        "fixed": fixed,
        "broken": broken,
        "kept_right": int(((a == 0) & (b == 0)).sum()),
        "kept_wrong": int(both.sum()),
        "kept_wrong_improved": int((both & (b < a)).sum()),
        "kept_wrong_worsened": int((both & (b > a)).sum()),
        "kept_wrong_same": int((both & (b == a)).sum()),
        "mcnemar_p_value": mcnemar(fixed, broken),
    }


def error_type_changes(
    words_a: NDArray[np.int64], words_b: NDArray[np.int64], blocks: Blocks, settings: BootstrapSettings
) -> dict[str, ErrorTypeChange]:
    """For substitutions, deletions, insertions and all errors: both counts, the change in per cent of the reference
    words (as a fraction) and relative to A, with intervals, and the utterance-level transitions of that type.

    words_a, words_b: shape (utterances, 4) with hits, substitutions, deletions, insertions.
    """
    columns_a = np.concatenate([words_a[:, 1:], words_a[:, 1:].sum(axis=1, keepdims=True)], axis=1)
    columns_b = np.concatenate([words_b[:, 1:], words_b[:, 1:].sum(axis=1, keepdims=True)], axis=1)
    spoken = words_a[:, :3].sum(axis=1, keepdims=True)
    totals = resample_sums(block_sums(np.concatenate([columns_a, columns_b, spoken], axis=1), blocks), blocks, settings)
    totals = totals[totals[:, -1] > 0]
    words = int(spoken.sum())
    result: dict[str, ErrorTypeChange] = {}
    for i, name in enumerate((*ERROR_TYPES, "all")):
        before, after = int(columns_a[:, i].sum()), int(columns_b[:, i].sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(totals[:, i] > 0, totals[:, 4 + i] / totals[:, i] - 1, np.nan)
        change = (totals[:, 4 + i] - totals[:, i]) / totals[:, -1]
        result[name] = {
            "a": before,
            "b": after,
            "change": (after - before) / words if words else None,
            "change_ci": interval(change, blocks, settings),
            "relative_change": after / before - 1 if before else None,
            "relative_change_ci": interval(relative, blocks, settings) if before else None,
            "utterances": utterance_transitions(columns_a[:, i], columns_b[:, i]),
        }
    return result


def word_transitions(first: Sequence[Alignment], second: Sequence[Alignment]) -> dict[str, dict[str, int]]:
    """Reference words by their state in A and in B: right, substituted or deleted."""
    table = {name: dict.fromkeys(_STATE_NAMES.values(), 0) for name in _STATE_NAMES.values()}
    for a, b in zip(first, second, strict=True):
        for state_a, state_b in zip(_word_states(a), _word_states(b), strict=True):
            table[state_a][state_b] += 1
    return table


def changed_examples(
    first: Sequence[Alignment], second: Sequence[Alignment], ids: Sequence[str], top: int = 20
) -> dict[str, list[ChangedExample]]:
    """The utterances whose number of errors fell and rose most."""
    change = np.array([b.errors - a.errors for a, b in zip(first, second, strict=True)])
    order = np.argsort(change, kind="stable")
    picked = {
        "improved": [i for i in order[:top] if change[i] < 0],
        "worsened": [i for i in order[::-1][:top] if change[i] > 0],
    }
    return {
        name: [
            {
                "id": ids[i],
                "reference": " ".join(first[i].reference),
                "a": " ".join(first[i].hypothesis),
                "b": " ".join(second[i].hypothesis),
                "errors_a": first[i].errors,
                "errors_b": second[i].errors,
            }
            for i in rows
        ]
        for name, rows in picked.items()
    }


def _word_states(alignment: Alignment) -> list[str]:
    return [_STATE_NAMES[kind] for kind, _, _ in alignment.pairs() if kind != INSERT]
