"""Paired comparison of systems on the same utterances: the content of `comparison.json`."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

from trainers.errors import UserError
from trainers.evaluation.bins import change_table
from trainers.evaluation.bootstrap import DEFAULT_RESAMPLES, Blocks, BootstrapSettings, make_blocks
from trainers.evaluation.insertions import insertion_kinds
from trainers.evaluation.language_prior import DEFAULT_RESAMPLES as PRIOR_RESAMPLES
from trainers.evaluation.language_prior import LanguagePrior, TextScorer, language_prior
from trainers.evaluation.normalizers import Normalizer
from trainers.evaluation.predictions import pair_predictions, row_origins, texts
from trainers.evaluation.scoring import ScoredUtterances, normalize_and_align, row_languages, summarize
from trainers.evaluation.significance import MatchedPairs, PairedBootstrap, holm, matched_pairs, paired_bootstrap
from trainers.evaluation.transitions import (
    ChangedExample,
    ErrorTypeChange,
    Transitions,
    changed_examples,
    error_type_changes,
    utterance_transitions,
    word_transitions,
)
from trainers.evaluation.word_tokens import Labels, WordTokens, names_in, wrong_words
from trainers.results import BootstrapRecord, ChangeBin, Metrics, PredictionRow

TESTS: tuple[Literal["paired_bootstrap", "matched_pairs"], ...] = ("paired_bootstrap", "matched_pairs")


class Pair(TypedDict):
    """System `a` against system `b`."""

    a: str
    b: str
    paired_bootstrap: PairedBootstrap
    matched_pairs: MatchedPairs
    error_types: dict[str, ErrorTypeChange]
    insertion_kinds: dict[str, dict[str, int]]
    utterances: Transitions
    words: dict[str, dict[str, int]]
    examples: dict[str, list[ChangedExample]]
    word_changes: dict[str, list[ChangeBin]]
    language_prior: NotRequired[LanguagePrior]
    differs: NotRequired[bool]
    """whether both tests reject, once all pairs are known"""


class Comparison(TypedDict):
    """The content of `comparison.json`."""

    systems: dict[str, Metrics]
    utterances: int
    normalizer: str
    language: str | None
    alpha: float
    bootstrap: BootstrapRecord
    comparisons: list[Pair]


def compare(
    systems: Mapping[str, Sequence[PredictionRow]],
    *,
    normalizer: str | Normalizer | None = None,
    language: str | None = None,
    bootstrap: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 42,
    word_counts: Mapping[str, int] | None = None,
    text_scorer: TextScorer | None = None,
    most_prior_errors: int | None = None,
) -> Comparison:
    """Compare two or more systems, every pair of them, on rows as `read_predictions` gives them.

    word_counts: counts of normalised words in the training texts, for the changes by word frequency.
    text_scorer: log-probabilities of texts under a language model alone; with it, each pair gets a `language_prior`,
    made from `most_prior_errors` errors at most.

    The rows are brought into the first system's order by id. p-values are Holm-adjusted over all pairs, one family for
    each test. Raises `UserError` where the systems do not answer the same utterances.
    """
    if len(systems) < 2:
        raise UserError(f"A comparison needs at least two systems, got {len(systems)}.")
    settings = BootstrapSettings(bootstrap, confidence, seed)
    ordered = align_systems(systems)
    first = next(iter(ordered.values()))
    languages = row_languages(first, language)
    origins = row_origins(first)
    blocks = make_blocks(len(first), origins)
    scored = {
        name: normalize_and_align(*texts(rows), normalizer=normalizer, languages=languages)
        for name, rows in ordered.items()
    }
    metrics = {
        name: summarize(s, language=language, languages=languages, origins=origins, settings=settings)
        for name, s in scored.items()
    }
    ids = [row["id"] for row in first]
    some = next(iter(scored.values()))
    tokens = WordTokens(some.alignments)
    labels = tokens.labels(languages=languages, names=names_in(some, texts(first)[0]), word_counts=word_counts)
    pairs = [
        _compare_pair(names, scored[names[0]], scored[names[1]], ids, tokens, labels, blocks, settings)
        for names in itertools.combinations(scored, 2)
    ]
    if text_scorer is not None:
        for pair in pairs:
            pair["language_prior"] = language_prior(
                scored[pair["a"]].alignments,
                scored[pair["b"]].alignments,
                text_scorer,
                origins=origins,
                settings=BootstrapSettings(min(bootstrap, PRIOR_RESAMPLES), confidence, seed),
                limit=most_prior_errors,
            )
    for test in TESTS:
        adjusted = holm([pair[test]["p_value"] for pair in pairs])
        for pair, p_value in zip(pairs, adjusted, strict=True):
            pair[test]["p_value_holm"] = p_value
    alpha = 1 - confidence
    for pair in pairs:
        p_values = [pair[test]["p_value_holm"] for test in TESTS]
        pair["differs"] = all(p is not None and p < alpha for p in p_values)
    shared = next(iter(metrics.values()))
    return {
        "systems": metrics,
        "utterances": len(first),
        "normalizer": shared["normalizer"],
        "language": shared["language"],
        "alpha": alpha,
        "bootstrap": settings.describe(blocks),
        "comparisons": pairs,
    }


def align_systems(systems: Mapping[str, Sequence[PredictionRow]]) -> dict[str, list[PredictionRow]]:
    """Bring every system's rows into the order of the first, checking ids and references."""
    names = list(systems)
    ordered = {names[0]: list(systems[names[0]])}
    for name in names[1:]:
        ordered[name] = pair_predictions(ordered[names[0]], list(systems[name]), (names[0], name))[1]
    return ordered


def _compare_pair(
    names: tuple[str, str],
    a: ScoredUtterances,
    b: ScoredUtterances,
    ids: Sequence[str],
    tokens: WordTokens,
    labels: Mapping[str, Labels],
    blocks: Blocks,
    settings: BootstrapSettings,
) -> Pair:
    wrong_a, wrong_b = wrong_words(a.alignments), wrong_words(b.alignments)
    return {
        "a": names[0],
        "b": names[1],
        "paired_bootstrap": paired_bootstrap(a.errors, b.errors, a.reference_words, blocks, settings),
        "matched_pairs": matched_pairs(a.alignments, b.alignments),
        "error_types": error_type_changes(a.words, b.words, blocks, settings),
        "insertion_kinds": {"a": insertion_kinds(*a.alignments), "b": insertion_kinds(*b.alignments)},
        "utterances": utterance_transitions(a.errors, b.errors),
        "words": word_transitions(a.alignments, b.alignments),
        "examples": changed_examples(a.alignments, b.alignments, ids),
        "word_changes": {
            name: change_table(values, wrong_a, wrong_b, tokens.utterance, blocks, settings, order)
            for name, (values, order) in labels.items()
        },
    }
