"""Corpus error rates with intervals: the content of `metrics.json`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainers.errors import UserError
from trainers.evaluation.alignment import Alignment, align_words, count_characters, count_operations
from trainers.evaluation.bootstrap import (
    DEFAULT_RESAMPLES,
    FEW_BLOCKS,
    Blocks,
    BootstrapSettings,
    make_blocks,
    minimum_detectable_difference,
    ratio_intervals,
    ratio_standard_error,
)
from trainers.evaluation.normalizers import Normalizer, get_normalizer, normalizer_for_language
from trainers.evaluation.predictions import column, texts
from trainers.results import METADATA_COLUMNS, Metrics, Origin, PredictionRow, ScoreTable

GROUPINGS = {"language": "by_language", "source": "by_source", **{name: f"by_{name}" for name in METADATA_COLUMNS}}


@dataclass(frozen=True)
class ScoredUtterances:
    """Everything that the figures are made of, one entry per utterance."""

    references: list[str]
    predictions: list[str]
    alignments: list[Alignment]
    words: NDArray[np.int64]
    """(utterances, 4): hits, substitutions, deletions, insertions"""
    characters: NDArray[np.int64]
    """(utterances, 4), of characters"""
    normalizers: list[str]
    """the normaliser's name"""
    normalizers_used: dict[str, Normalizer]
    """the normalisers themselves, by name"""

    @property
    def errors(self) -> NDArray[np.int64]:
        """Word errors of each utterance."""
        return self.words[:, 1:].sum(axis=1)

    @property
    def reference_words(self) -> NDArray[np.int64]:
        return self.words[:, :3].sum(axis=1)

    @property
    def prediction_words(self) -> NDArray[np.int64]:
        return self.words[:, [0, 1, 3]].sum(axis=1)


def score(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    normalizer: str | Normalizer | None = None,
    language: str | None = None,
    languages: Sequence[str | None] | None = None,
    speakers: Sequence[str | None] | None = None,
    sources: Sequence[str | None] | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    bootstrap: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 42,
) -> Metrics:
    """Corpus WER, CER, their counts and intervals.

    normalizer: a name for all rows; by default each row's language (or `language`) chooses, and "basic" without one.
    speakers: ids for resampling whole speakers. sources: names of the test sets, within which is resampled. groups: extra tables, such as {"by_source": [one value per row]}.
    bootstrap: number of resamples; 0 leaves the intervals out (`None`).

    Rates are fractions, and `None` where they are undefined (no reference words at all).
    """
    languages = list(languages) if languages is not None else [language] * len(references)
    scored = normalize_and_align(references, predictions, normalizer=normalizer, languages=languages)
    settings = BootstrapSettings(bootstrap, confidence, seed) if bootstrap else None
    nothing = [None] * len(references)
    origins = list(zip(sources or nothing, speakers or nothing, strict=True))
    return summarize(scored, language=language, languages=languages, origins=origins, groups=groups, settings=settings)


def score_rows(
    rows: Sequence[PredictionRow],
    *,
    normalizer: str | Normalizer | None = None,
    language: str | None = None,
    **options: Any,
) -> Metrics:
    """`score` on rows as `read_predictions` gives them, with tables by language, source and speaker."""
    references, predictions = texts(rows)
    return score(
        references,
        predictions,
        normalizer=normalizer,
        language=language,
        languages=row_languages(rows, language),
        speakers=column(rows, "speaker_id"),
        sources=column(rows, "source"),
        groups=row_groups(rows),
        **options,
    )


def row_groups(rows: Sequence[PredictionRow]) -> dict[str, list[str | None]]:
    """The values to group by, for the fields that the rows have. Speakers go by numbers: who they are stands in the rows alone."""
    groups = {table: values for field, table in GROUPINGS.items() if (values := column(rows, field)) is not None}
    speakers = column(rows, "speaker_id")
    if speakers is not None:
        numbers: dict[str, int] = {}
        groups["by_speaker"] = [
            None if speaker is None else f"speaker {numbers.setdefault(speaker, len(numbers) + 1)}"
            for speaker in speakers
        ]
    return groups


def row_languages(rows: Sequence[PredictionRow], language: str | None) -> list[str | None]:
    """Each row's own language, else `language`."""
    return [row.get("language") or language for row in rows]


def normalize_and_align(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    normalizer: str | Normalizer | None = None,
    languages: Sequence[str | None] | None = None,
) -> ScoredUtterances:
    """Normalise both sides with the normaliser of each row and align them."""
    if len(references) != len(predictions):
        raise UserError(
            f"There are {len(references)} references and {len(predictions)} predictions; "
            "each reference needs one prediction."
        )
    if not len(references):
        raise UserError("There is nothing to score: the lists of references and predictions are empty.")
    languages = languages if languages is not None else [None] * len(references)
    chosen = [_choose(normalizer, language) for language in languages]
    normal_references = [n(text) for n, text in zip(chosen, references, strict=True)]
    normal_predictions = [n(text) for n, text in zip(chosen, predictions, strict=True)]
    alignments = align_words(normal_references, normal_predictions)
    return ScoredUtterances(
        references=normal_references,
        predictions=normal_predictions,
        alignments=alignments,
        words=count_operations(alignments),
        characters=count_characters(normal_references, normal_predictions),
        normalizers=[n.name for n in chosen],
        normalizers_used={n.name: n for n in chosen},
    )


def summarize(
    scored: ScoredUtterances,
    *,
    language: str | None = None,
    languages: Sequence[str | None] | None = None,
    origins: Sequence[Origin] | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    settings: BootstrapSettings | None = None,
) -> Metrics:
    """The figures of `scored`, in the shape of `metrics.json`."""
    everyone = np.arange(len(scored.references))
    whole = _figures(scored, everyone, origins, settings)
    blocks = make_blocks(len(everyone), origins)
    error = ratio_standard_error(scored.errors, scored.reference_words, blocks)
    alpha = 1 - settings.confidence if settings else 0.05
    result: Metrics = {
        **whole,
        "language": language or _single([x for x in languages or [] if x]),
        "normalizer": _single(scored.normalizers) or "by language",
        "normalizers": {name: n.description for name, n in sorted(scored.normalizers_used.items())},
        "wer_standard_error": error,
        "minimum_detectable_difference": (
            None if error is None else minimum_detectable_difference(math.sqrt(2) * error, alpha)
        ),
        "notes": _notes(whole, blocks),
    }
    coral = coral_wer(scored)
    if coral is not None:
        result["coral_wer"] = coral
    tables: dict[str, dict[str, ScoreTable]] = {}
    for table, values in (groups or {}).items():
        if len(values) != len(everyone):
            raise UserError(f"The group {table!r} has {len(values)} values for {len(everyone)} utterances.")
        labels = np.array(["" if value is None else str(value) for value in values], dtype=object)
        tables[table] = {
            label or "unknown": _figures(scored, everyone[labels == label], origins, settings)
            for label in sorted(set(labels))
        }
    return cast(Metrics, {**result, **tables})


def coral_wer(scored: ScoredUtterances) -> float | None:
    """The word error rate of Danish as the CoRal project means it: the mean of the utterances' own rates.

    Ours is that of the corpus, in which long utterances weigh more. The texts are normalised as for ours. Source:
    `df.score.mean()` in `src/coral/evaluate.py` of github.com/alexandrainst/coral. None without Danish reference words.
    """
    danish = np.array([name == "da" for name in scored.normalizers]) & (scored.reference_words > 0)
    return float((scored.errors[danish] / scored.reference_words[danish]).mean()) if danish.any() else None


def _figures(
    scored: ScoredUtterances,
    rows: NDArray[np.int64],
    origins: Sequence[Origin] | None,
    settings: BootstrapSettings | None,
) -> ScoreTable:
    words, characters = scored.words[rows], scored.characters[rows]
    errors, reference_words = scored.errors[rows], scored.reference_words[rows]
    prediction_words = scored.prediction_words[rows]
    numerators = np.stack([errors, characters[:, 1:].sum(axis=1), errors > 0], axis=1)
    denominators = np.stack([reference_words, characters[:, :3].sum(axis=1), np.ones_like(errors)], axis=1)
    rates = [
        float(n) / float(d) if d else None
        for n, d in zip(numerators.sum(axis=0), denominators.sum(axis=0), strict=True)
    ]
    blocks = make_blocks(len(rows), None if origins is None else [origins[i] for i in rows])
    intervals = ratio_intervals(numerators, denominators, blocks, settings)
    hits, substitutions, deletions, insertions = (int(x) for x in words.sum(axis=0))
    return {
        "wer": rates[0],
        "wer_ci": intervals[0],
        "cer": rates[1],
        "cer_ci": intervals[1],
        "sentence_error_rate": rates[2],
        "sentence_error_rate_ci": intervals[2],
        "substitutions": substitutions,
        "deletions": deletions,
        "insertions": insertions,
        "hits": hits,
        "reference_words": int(reference_words.sum()),
        "prediction_words": int(prediction_words.sum()),
        "reference_characters": int(characters[:, :3].sum()),
        "character_errors": int(characters[:, 1:].sum()),
        "utterances": len(rows),
        "utterances_with_errors": int((errors > 0).sum()),
        "empty_references": int((reference_words == 0).sum()),
        "empty_predictions": int((prediction_words == 0).sum()),
        "bootstrap": settings.describe(blocks) if settings else None,
    }


def _notes(result: ScoreTable, blocks: Blocks) -> list[str]:
    """What a reader must know before trusting the figures."""
    notes = []
    if result["wer"] is None:
        notes.append("The references hold no words, so the error rates are undefined.")
    elif blocks.count == 1:
        notes.append("One utterance: its interval is a point and says nothing about other speech.")
    elif blocks.effective < FEW_BLOCKS:
        notes.append(f"Only {blocks.count} {blocks.unit}s: intervals from so few are rough.")
    return notes


def _choose(normalizer: str | Normalizer | None, language: str | None) -> Normalizer:
    if isinstance(normalizer, Normalizer):
        return normalizer
    return get_normalizer(normalizer or normalizer_for_language(language))


def _single(values: Sequence[str]) -> str | None:
    return values[0] if len(set(values)) == 1 else None
