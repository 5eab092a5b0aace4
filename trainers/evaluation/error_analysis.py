"""Where the errors are: confusions, kinds of insertions, and error rates by kind of word and of utterance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainers.evaluation.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE, Alignment
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, make_blocks
from trainers.evaluation.insertions import KINDS, insertion_kinds, output_table
from trainers.evaluation.scoring import ScoredUtterances
from trainers.evaluation.tables import Bins, bin_labels, rate_table
from trainers.evaluation.word_classes import compound_test, name_words, numeral_test

TOP = 30
FREQUENCY_EDGES = (1, 2, 5, 20, 100)
WORD_LENGTH_EDGES = (4, 7, 10, 14)
UTTERANCE_LENGTH_EDGES = (1, 4, 8, 13, 21)
DURATION_EDGES = (2, 5, 10, 20, 30)
SPEECH_RATE_EDGES = (1, 2, 3, 4)
POSITIONS = ("only word", "first word", "first half", "second half", "last word")
ANALYSIS_RESAMPLES = 2_000


def analyze(
    scored: ScoredUtterances,
    *,
    raw_references: Sequence[str] | None = None,
    languages: Sequence[str | None] | None = None,
    speakers: Sequence[str | None] | None = None,
    durations: Sequence[float | None] | None = None,
    truncated: Sequence[Any] | None = None,
    word_counts: Mapping[str, int] | None = None,
    settings: BootstrapSettings | None = None,
) -> dict[str, Any]:
    """The error analysis of one system.

    raw_references: for finding names by their capitals. durations: seconds. word_counts: how often each normalised word
    stands in the training texts; without it, words are binned by how often the references have them.
    Word-level rates count substitutions and deletions over reference words (an insertion belongs to no reference word);
    utterance-level rates are WER.
    """
    blocks = make_blocks(len(scored.alignments), speakers)
    kinds = [insertion_kinds(a) for a in scored.alignments]
    words = WordTokens(scored.alignments, blocks, settings)
    names = _names(scored, raw_references) if raw_references is not None else None
    return {
        "confusions": confusions(scored.alignments),
        "spacing_errors": spacing_errors(scored.alignments),
        "insertion_kinds": {kind: sum(row[kind] for row in kinds) for kind in KINDS},
        "outputs": output_table(scored.alignments, truncated),
        "words": {
            "by_frequency": words.by_frequency(word_counts),
            "frequency_source": "training texts" if word_counts is not None else "the references themselves",
            "by_length": words.by_number([len(word) for word in words.words], WORD_LENGTH_EDGES),
            "by_position": words.by_label(words.positions(), POSITIONS),
            "by_class": words.by_class(languages, names, word_counts),
            "names_known": names is not None,
        },
        "utterances": utterance_tables(scored, durations, blocks, settings),
    }


class WordTokens:
    """All reference words of a test set, flat, with whether each is wrong."""

    def __init__(self, alignments: Sequence[Alignment], blocks: Blocks, settings: BootstrapSettings | None) -> None:
        self.alignments, self.blocks, self.settings = alignments, blocks, settings
        self.words = [word for a in alignments for word in a.reference]
        self.utterance = np.repeat(np.arange(len(alignments)), [len(a.reference) for a in alignments])
        wrong = [np.zeros(len(a.reference), dtype=bool) for a in alignments]
        for flags, alignment in zip(wrong, alignments, strict=True):
            for op in alignment.operations:
                if op.kind in (SUBSTITUTE, DELETE):
                    flags[op.ref_start : op.ref_end] = True
        self.wrong = np.concatenate(wrong) if wrong else np.zeros(0, dtype=bool)

    def by_label(self, labels: Sequence[str], order: Sequence[str] | None = None) -> Bins:
        ones = np.ones(len(self.words))
        return rate_table(labels, self.wrong, ones, self.utterance, self.blocks, self.settings, order)

    def by_number(self, values: Sequence[float], edges: Sequence[float]) -> Bins:
        labels, names = bin_labels(values, edges)
        return self.by_label(labels, names)

    def by_frequency(self, word_counts: Mapping[str, int] | None) -> Bins:
        counts = Counter(self.words) if word_counts is None else word_counts
        return self.by_number([counts.get(word, 0) for word in self.words], FREQUENCY_EDGES)

    def positions(self) -> list[str]:
        """Where in its utterance each word stands."""
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

    def by_class(
        self, languages: Sequence[str | None] | None, names: set[str] | None, word_counts: Mapping[str, int] | None
    ) -> Bins:
        """Numerals, names, compounds and the rest; a word stands in the first class that it fits."""
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
        labels = [classes[key] for key in zip(spoken, self.words, strict=True)]
        return self.by_label(labels, ("numerals", "names", "compounds", "other words"))


def _names(scored: ScoredUtterances, raw_references: Sequence[str]) -> set[str] | None:
    """Names by their capitals, normalised as their utterances were; `None` where no reference has a capital."""
    found: set[str] | None = None
    for name, normalizer in scored.normalizers_used.items():
        raw = [text for text, used in zip(raw_references, scored.normalizers, strict=True) if used == name]
        names = name_words(raw, normalizer)
        found = found if names is None else (found or set()) | names
    return found


def confusions(alignments: Sequence[Alignment], top: int = TOP) -> dict[str, list[dict[str, Any]]]:
    """The most frequent substituted pairs, deleted words and inserted words."""
    counters: dict[str, Counter[tuple[str | None, str | None]]] = {
        kind: Counter() for kind in (SUBSTITUTE, DELETE, INSERT)
    }
    for alignment in alignments:
        for kind, reference, hypothesis in alignment.pairs():
            if kind != EQUAL:
                counters[kind][reference, hypothesis] += 1
    names = {SUBSTITUTE: "substitutions", DELETE: "deletions", INSERT: "insertions"}
    return {
        names[kind]: [
            {"reference": reference, "prediction": hypothesis, "count": count}
            for (reference, hypothesis), count in sorted(counter.items(), key=lambda item: (-item[1], str(item[0])))[
                :top
            ]
        ]
        for kind, counter in counters.items()
    }


def spacing_errors(alignments: Sequence[Alignment]) -> dict[str, Any]:
    """Errors that are only spaces: "brand weer" for "brandweer". Their number, the word errors they make, and examples."""
    found: Counter[tuple[str, str]] = Counter()
    errors = 0
    for alignment in alignments:
        for reference, hypothesis, count in error_regions(alignment):
            if reference and hypothesis and "".join(reference) == "".join(hypothesis):
                found[" ".join(reference), " ".join(hypothesis)] += 1
                errors += count
    total = sum(a.errors for a in alignments)
    return {
        "regions": sum(found.values()),
        "errors": errors,
        "share_of_errors": errors / total if total else 0.0,
        "examples": [{"reference": r, "prediction": h, "count": n} for (r, h), n in found.most_common(TOP)],
    }


def error_regions(alignment: Alignment) -> list[tuple[list[str], list[str], int]]:
    """The stretches between correct words: reference words, hypothesis words, and the number of errors."""
    regions: list[tuple[list[str], list[str], int]] = []
    open_region = False
    for kind, reference, hypothesis in alignment.pairs():
        if kind == EQUAL:
            open_region = False
            continue
        if not open_region:
            regions.append(([], [], 0))
            open_region = True
        ref_words, hyp_words, count = regions[-1]
        regions[-1] = (
            ref_words + ([reference] if reference is not None else []),
            hyp_words + ([hypothesis] if hypothesis is not None else []),
            count + 1,
        )
    return regions


def utterance_tables(
    scored: ScoredUtterances,
    durations: Sequence[float | None] | None,
    blocks: Blocks,
    settings: BootstrapSettings | None,
) -> dict[str, Bins]:
    """WER by length of the utterance in words, and by seconds and words a second where durations are known."""
    lengths = scored.reference_words
    everyone = np.arange(len(lengths))

    def table(rows: np.ndarray, values: Sequence[float], edges: Sequence[float], unit: str = "") -> Bins:
        labels, names = bin_labels(values, edges, unit)
        return rate_table(labels, scored.errors[rows], lengths[rows], rows, blocks, settings, names)

    tables = {"by_words": table(everyone, lengths.tolist(), UTTERANCE_LENGTH_EDGES)}
    timed = np.array([i for i, d in enumerate(durations or []) if d], dtype=np.int64)
    if durations is not None and len(timed):
        seconds = [float(durations[i] or 0) for i in timed]
        rates = [float(lengths[i]) / s for i, s in zip(timed, seconds, strict=True)]
        tables["by_duration"] = table(timed, seconds, DURATION_EDGES, "s")
        tables["by_speech_rate"] = table(timed, rates, SPEECH_RATE_EDGES, "words/s")
    return tables
