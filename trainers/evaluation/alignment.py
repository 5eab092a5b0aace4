"""Word and character alignments and their counts, by jiwer (rapidfuzz)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from jiwer import AlignmentChunk
from numpy.typing import NDArray

EQUAL, SUBSTITUTE, DELETE, INSERT = "equal", "substitute", "delete", "insert"


@dataclass(frozen=True)
class Alignment:
    """A minimal alignment (unit costs) of the words of one reference and one hypothesis."""

    reference: list[str]
    hypothesis: list[str]
    operations: list[AlignmentChunk]

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def hits(self) -> int:
        return sum(op.ref_end_idx - op.ref_start_idx for op in self.operations if op.type == EQUAL)

    @property
    def substitutions(self) -> int:
        return sum(op.ref_end_idx - op.ref_start_idx for op in self.operations if op.type == SUBSTITUTE)

    @property
    def deletions(self) -> int:
        return sum(op.ref_end_idx - op.ref_start_idx for op in self.operations if op.type == DELETE)

    @property
    def insertions(self) -> int:
        return sum(op.hyp_end_idx - op.hyp_start_idx for op in self.operations if op.type == INSERT)

    def error_runs(self) -> list[list[AlignmentChunk]]:
        """The stretches of errors between correct words."""
        runs = itertools.groupby(self.operations, key=lambda op: op.type == EQUAL)
        return [list(run) for right, run in runs if not right]

    def pairs(self) -> list[tuple[str, str | None, str | None]]:
        """One `(kind, reference word or None, hypothesis word or None)` per aligned position."""
        result: list[tuple[str, str | None, str | None]] = []
        for op in self.operations:
            reference: Sequence[str | None] = self.reference[op.ref_start_idx : op.ref_end_idx]
            hypothesis: Sequence[str | None] = self.hypothesis[op.hyp_start_idx : op.hyp_end_idx]
            if op.type == DELETE:
                hypothesis = [None] * len(reference)
            elif op.type == INSERT:
                reference = [None] * len(hypothesis)
            result += [(op.type, r, h) for r, h in zip(reference, hypothesis, strict=True)]
        return result


def align_words(references: Sequence[str], hypotheses: Sequence[str]) -> list[Alignment]:
    """Align normalised texts, utterance by utterance, on their whitespace-separated words. Empty texts are allowed."""
    return _align(references, hypotheses, jiwer.ReduceToListOfListOfWords())


def count_characters(references: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.int64]:
    """Character counts, shape (utterances, 4): hits, substitutions, deletions, insertions.

    A space between words counts as a character; runs of white space count once.
    """
    return count_operations(_align(references, hypotheses, jiwer.ReduceToListOfListOfChars()))


def count_operations(alignments: Sequence[Alignment]) -> NDArray[np.int64]:
    """Counts, shape (utterances, 4): hits, substitutions, deletions, insertions."""
    counts = [(a.hits, a.substitutions, a.deletions, a.insertions) for a in alignments]
    return np.array(counts, dtype=np.int64).reshape(len(counts), 4)


def _align(references: Sequence[str], hypotheses: Sequence[str], split: jiwer.AbstractTransform) -> list[Alignment]:
    if not references:
        return []
    output = jiwer.process_words(
        [" ".join(text.split()) for text in references],
        [" ".join(text.split()) for text in hypotheses],
        reference_transform=split,
        hypothesis_transform=split,
    )
    return [
        Alignment(reference, hypothesis, operations)
        for reference, hypothesis, operations in zip(
            output.references, output.hypotheses, output.alignments, strict=True
        )
    ]
