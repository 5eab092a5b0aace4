"""All reference words of a test set, one by one: which are wrong, and the kinds of words to count them by."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.evaluation.alignment import EQUAL, INSERT, Alignment
from trainers.evaluation.bins import bin_labels
from trainers.evaluation.scoring import ScoredUtterances
from trainers.evaluation.word_classes import compound_test, name_words, numeral_test

FREQUENCY_EDGES = (1, 2, 5, 20, 100)
LENGTH_EDGES = (4, 7, 10, 14)
POSITIONS = ("only word", "first word", "first half", "second half", "last word")
CLASSES = ("numerals", "names", "compounds", "other words")

Labels = tuple[list[str], Sequence[str]]
"""A label for each word, and all labels in order."""


class WordTokens:
    """The reference words of `alignments`, flat. `utterance[i]` is the number of word i's utterance."""

    def __init__(self, alignments: Sequence[Alignment]) -> None:
        self.alignments = alignments
        self.words = [word for a in alignments for word in a.reference]
        self.utterance = np.repeat(np.arange(len(alignments)), [len(a.reference) for a in alignments])

    def labels(
        self, *, languages: Sequence[str | None] | None, names: set[str] | None, word_counts: Mapping[str, int] | None
    ) -> dict[str, Labels]:
        """The labels to count words by: `by_frequency`, `by_length`, `by_position`, `by_class`.

        languages: of each utterance. names: see `names_in`. word_counts: see `trainers.evaluation.error_analysis`.
        """
        counts = Counter(self.words) if word_counts is None else word_counts
        return {
            "by_frequency": bin_labels([counts.get(word, 0) for word in self.words], FREQUENCY_EDGES),
            "by_length": bin_labels([len(word) for word in self.words], LENGTH_EDGES),
            "by_position": (self._positions(), POSITIONS),
            "by_class": (self._classes(languages, names, word_counts), CLASSES),
        }

    def _positions(self) -> list[str]:
        labels = []
        for alignment in self.alignments:
            length = len(alignment.reference)
            if length == 1:
                labels.append("only word")
                continue
            for position in range(length):
                if position in (0, length - 1):
                    labels.append("last word" if position else "first word")
                else:
                    labels.append("first half" if position < length / 2 else "second half")
        return labels

    def _classes(
        self, languages: Sequence[str | None] | None, names: set[str] | None, word_counts: Mapping[str, int] | None
    ) -> list[str]:
        """A word stands in the first class that it fits."""
        vocabulary = set(self.words) | set(word_counts or ())
        spoken = [None if languages is None else languages[i] for i in self.utterance.tolist()]
        tests = {language: (numeral_test(language), compound_test(language, vocabulary)) for language in set(spoken)}
        classes: dict[tuple[str | None, str], str] = {}
        for language, word in set(zip(spoken, self.words, strict=True)):
            is_numeral, is_compound = tests[language]
            if is_numeral(word):
                classes[language, word] = "numerals"
            elif names and word in names:
                classes[language, word] = "names"
            else:
                classes[language, word] = "compounds" if is_compound(word) else "other words"
        return [classes[key] for key in zip(spoken, self.words, strict=True)]


def wrong_words(alignments: Sequence[Alignment]) -> NDArray[np.bool_]:
    """Whether each reference word is substituted or deleted, in the order of `WordTokens`."""
    return np.array([kind != EQUAL for a in alignments for kind, _, _ in a.pairs() if kind != INSERT], dtype=bool)


def names_in(scored: ScoredUtterances, raw_references: Sequence[str]) -> set[str] | None:
    """Names by their capitals, normalised as their utterances were; `None` where no reference has a capital."""
    found: set[str] | None = None
    for name, normalizer in scored.normalizers_used.items():
        raw = [text for text, used in zip(raw_references, scored.normalizers, strict=True) if used == name]
        names = name_words(raw, normalizer)
        found = found if names is None else (found or set()) | names
    return found
