"""What inserted words are: loops, invented continuations, or others; and empty and runaway outputs."""

from collections.abc import Sequence
from typing import Any

from trainers.evaluation.alignment import INSERT, Alignment
from trainers.results import OutputErrors

LONGEST_LOOP = 20
MINIMUM_CONTINUATION = 2
RUNAWAY_FACTOR = 2
RUNAWAY_MARGIN = 5


def repeated_positions(words: Sequence[str]) -> list[bool]:
    """Which words belong to the second or a later copy of a sequence repeated in place.

    One word must stand three times in a row to count ("nee nee" is speech), a longer sequence twice.
    """
    repeated = [False] * len(words)
    for size in range(1, min(LONGEST_LOOP, len(words) // 2) + 1):
        start = 0
        while start + 2 * size <= len(words):
            end = start + size
            while end < len(words) and words[end] == words[end - size]:
                end += 1
            copies = (end - start) // size
            if copies >= (3 if size == 1 else 2):
                repeated[start + size : end] = [True] * (end - start - size)
                start = end - size + 1
            else:
                start += 1
    return repeated


def insertion_kinds(*alignments: Alignment) -> dict[str, int]:
    """Count the inserted words of utterances by kind.

    loops: a repeated copy that the reference does not have. continuations: at least two inserted words at the end, which
    the recogniser made up after the speech. on_empty_reference: all words where nothing was said.
    """
    kinds = dict.fromkeys(("loops", "continuations", "on_empty_reference", "others"), 0)
    for alignment in alignments:
        if not alignment.reference:
            kinds["on_empty_reference"] += len(alignment.hypothesis)
            continue
        repeated = repeated_positions(alignment.hypothesis)
        for op in alignment.operations:
            if op.type != INSERT:
                continue
            looped = sum(repeated[op.hyp_start_idx : op.hyp_end_idx])
            rest = op.hyp_end_idx - op.hyp_start_idx - looped
            at_end = op.ref_start_idx == len(alignment.reference)
            kinds["loops"] += looped
            kinds["continuations" if at_end and rest >= MINIMUM_CONTINUATION else "others"] += rest
    return kinds


def is_runaway(alignment: Alignment) -> bool:
    """An output more than twice as long as what was said, and more than five words longer."""
    spoken, written = len(alignment.reference), len(alignment.hypothesis)
    return written > RUNAWAY_FACTOR * spoken and written > spoken + RUNAWAY_MARGIN


def output_table(alignments: Sequence[Alignment], truncated: Sequence[Any] | None = None) -> dict[str, OutputErrors]:
    """Empty, runaway and truncated outputs: how many, and the share of all word errors in them."""
    total = sum(a.errors for a in alignments)
    flags = {
        "empty": [bool(a.reference) and not a.hypothesis for a in alignments],
        "runaway": [is_runaway(a) for a in alignments],
    }
    if truncated is not None:
        flags["truncated"] = [bool(value) for value in truncated]
    table: dict[str, OutputErrors] = {}
    for name, flag in flags.items():
        errors = sum(a.errors for a, chosen in zip(alignments, flag, strict=True) if chosen)
        table[name] = {"utterances": sum(flag), "errors": errors, "share_of_errors": errors / total if total else 0.0}
    return table
