"""Where the errors are: confusions, kinds of insertions, and error rates by kind of word and of utterance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from trainers.evaluation.alignment import DELETE, INSERT, SUBSTITUTE, Alignment
from trainers.evaluation.bins import bin_labels, rate_table
from trainers.evaluation.bootstrap import Blocks, BootstrapSettings, make_blocks
from trainers.evaluation.insertions import insertion_kinds, output_table
from trainers.evaluation.scoring import ScoredUtterances
from trainers.evaluation.word_tokens import WordTokens, names_in, wrong_words
from trainers.results import ERROR_TYPES, Confusion, ErrorAnalysis, Origin, RateBin, SpacingErrors, WordTables

TOP = 30
UTTERANCE_LENGTH_EDGES = (1, 4, 8, 13, 21)
DURATION_EDGES = (2, 5, 10, 20, 30)
SPEECH_RATE_EDGES = (1, 2, 3, 4)
ANALYSIS_RESAMPLES = 2_000


def analyze(
    scored: ScoredUtterances,
    *,
    raw_references: Sequence[str] | None = None,
    languages: Sequence[str | None] | None = None,
    origins: Sequence[Origin] | None = None,
    durations: Sequence[float | None] | None = None,
    truncated: Sequence[Any] | None = None,
    word_counts: Mapping[str, int] | None = None,
    settings: BootstrapSettings | None = None,
) -> ErrorAnalysis:
    """The error analysis of one system.

    raw_references: for finding names by their capitals. durations: seconds. word_counts: how often each normalised word
    stands in the training texts; without it, words are binned by how often the references have them.
    Word-level rates count substitutions and deletions over reference words (an insertion belongs to no reference word);
    utterance-level rates are WER.
    """
    blocks = make_blocks(len(scored.alignments), origins)
    tokens, wrong = WordTokens(scored.alignments), wrong_words(scored.alignments)
    names = names_in(scored, raw_references) if raw_references is not None else None
    words = {
        name: rate_table(labels, wrong, np.ones(len(wrong)), tokens.utterance, blocks, settings, order)
        for name, (labels, order) in tokens.labels(languages=languages, names=names, word_counts=word_counts).items()
    }
    return {
        "confusions": confusions(scored.alignments),
        "spacing_errors": spacing_errors(scored.alignments),
        "insertion_kinds": insertion_kinds(*scored.alignments),
        "outputs": output_table(scored.alignments, truncated),
        "words": cast(
            WordTables,
            {
                **words,
                "frequency_source": "training texts" if word_counts is not None else "the references themselves",
                "names_known": names is not None,
            },
        ),
        "utterances": utterance_tables(scored, durations, blocks, settings),
    }


def confusions(alignments: Sequence[Alignment]) -> dict[str, list[Confusion]]:
    """The most frequent substituted pairs, deleted words and inserted words."""
    counts = Counter(pair for alignment in alignments for pair in alignment.pairs())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return {
        name: [Confusion(reference=r, prediction=h, count=n) for (kind, r, h), n in ordered if kind == wanted][:TOP]
        for name, wanted in zip(ERROR_TYPES, (SUBSTITUTE, DELETE, INSERT), strict=True)
    }


def spacing_errors(alignments: Sequence[Alignment]) -> SpacingErrors:
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
    return [
        (
            alignment.reference[run[0].ref_start_idx : run[-1].ref_end_idx],
            alignment.hypothesis[run[0].hyp_start_idx : run[-1].hyp_end_idx],
            sum(max(op.ref_end_idx - op.ref_start_idx, op.hyp_end_idx - op.hyp_start_idx) for op in run),
        )
        for run in alignment.error_runs()
    ]


def utterance_tables(
    scored: ScoredUtterances,
    durations: Sequence[float | None] | None,
    blocks: Blocks,
    settings: BootstrapSettings | None,
) -> dict[str, list[RateBin]]:
    """WER by length of the utterance in words, and by seconds and words a second where durations are known."""
    lengths = scored.reference_words
    everyone = np.arange(len(lengths))

    def table(rows: np.ndarray, values: Sequence[float], edges: Sequence[float], unit: str = "") -> list[RateBin]:
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
