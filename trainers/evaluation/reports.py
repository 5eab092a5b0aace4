"""From prediction rows to the files of an evaluation."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from trainers.evaluation.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE
from trainers.evaluation.bootstrap import DEFAULT_RESAMPLES, BootstrapSettings
from trainers.evaluation.error_analysis import ANALYSIS_RESAMPLES, analyze
from trainers.evaluation.format import (
    RATE_NAMES,
    escape_markdown,
    markdown_table,
    number,
    percent_with_interval,
    rates_in_short,
)
from trainers.evaluation.html_report import MOST_UTTERANCES, render_html
from trainers.evaluation.normalizers import Normalizer
from trainers.evaluation.predictions import column, row_origins, texts
from trainers.evaluation.score_tables import markdown_section, score_sections
from trainers.evaluation.scoring import ScoredUtterances, normalize_and_align, row_groups, row_languages, summarize
from trainers.files import write_json, write_jsonl, write_text
from trainers.results import EVALUATION_FILES, EVALUATIONS, Evaluation, Metrics, PredictionRow, SpeedReport

_LETTERS = {EQUAL: "=", SUBSTITUTE: "S", DELETE: "D", INSERT: "I"}


def evaluate_rows(
    rows: Sequence[PredictionRow],
    output_dir: str | os.PathLike[str] | None = None,
    *,
    normalizer: str | Normalizer | None = None,
    language: str | None = None,
    title: str = "Evaluation",
    word_counts: Mapping[str, int] | None = None,
    speed: SpeedReport | None = None,
    extra: Mapping[str, Any] | None = None,
    bootstrap: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 42,
    most_utterances: int = MOST_UTTERANCES,
) -> Metrics:
    """Score and analyse `rows`, write `EVALUATION_FILES` into `output_dir` if there is one, and return the metrics.

    rows: as `read_predictions` gives them; `audio` paths absolute or relative to the working folder. word_counts: counts
    of normalised words in the training texts, for the errors by frequency. speed: what `SpeedMeter` measured. extra: more
    entries for `metrics.json`, such as the model's name.
    """
    settings = BootstrapSettings(bootstrap, confidence, seed) if bootstrap else None
    languages, origins = row_languages(rows, language), row_origins(rows)
    scored = normalize_and_align(*texts(rows), normalizer=normalizer, languages=languages)
    metrics = summarize(
        scored, language=language, languages=languages, origins=origins, groups=row_groups(rows), settings=settings
    )
    metrics["error_analysis"] = analyze(
        scored,
        raw_references=texts(rows)[0],
        languages=languages,
        origins=origins,
        durations=column(rows, "duration"),
        truncated=column(rows, "truncated"),
        word_counts=word_counts,
        settings=BootstrapSettings(min(bootstrap, ANALYSIS_RESAMPLES), confidence, seed) if bootstrap else None,
    )
    metrics["speed"] = speed
    metrics = cast(Metrics, {**metrics, **(extra or {})})
    if output_dir is not None:
        folder = Path(output_dir)
        figures, predictions, markdown, html = (folder / name for name in EVALUATION_FILES)
        write_json(figures, metrics)
        write_jsonl(predictions, prediction_rows(rows, scored))
        write_text(markdown, render_markdown(title, metrics))
        write_text(html, render_html(title, metrics, rows, scored.alignments, folder, most_utterances))
    return metrics


class ScoredRow(PredictionRow):
    """A row of `predictions.jsonl` of an evaluation."""

    normalized_reference: str
    normalized_prediction: str
    normalizer: str
    alignment: list[list[str | None]]
    errors: int
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int


def prediction_rows(rows: Sequence[PredictionRow], scored: ScoredUtterances) -> list[ScoredRow]:
    """The rows with their normalised texts, alignment and counts. An alignment is a list of `[operation, reference word
    or null, predicted word or null]`, operation one of "=", "S", "D", "I"."""
    return [
        {
            **row,
            "normalized_reference": scored.references[i],
            "normalized_prediction": scored.predictions[i],
            "normalizer": scored.normalizers[i],
            "alignment": [[_LETTERS[kind], reference, hypothesis] for kind, reference, hypothesis in alignment.pairs()],
            "errors": alignment.errors,
            "substitutions": alignment.substitutions,
            "deletions": alignment.deletions,
            "insertions": alignment.insertions,
            "reference_words": len(alignment.reference),
        }
        for i, (row, alignment) in enumerate(zip(rows, scored.alignments, strict=True))
    ]


def render_markdown(title: str, metrics: Metrics) -> str:
    """The report in Markdown."""
    parts = [f"# {escape_markdown(title)}\n", f"WER {percent_with_interval(metrics['wer'], metrics['wer_ci'])}.\n"]
    parts += map(markdown_section, score_sections(metrics))
    return "\n".join(parts)


def write_index(folder: str | os.PathLike[str], evaluations: Sequence[Evaluation]) -> Path:
    """Write `index.md` into a model's folder of evaluations: the evaluations of one model side by side, with links to their reports."""
    folder = Path(folder)
    rows = [
        [
            one.name,
            one.metrics["language"] or "several",
            *rates_in_short(one.metrics),
            number(one.metrics["utterances"]),
            number(one.metrics["reference_words"]),
            one.metrics["normalizer"],
        ]
        for one in evaluations
    ]
    header = ["Data", "Language", *RATE_NAMES, "Utterances", "Words", "Normalizer"]
    links = [
        f"- [{one.name}]({Path(one.path).relative_to(EVALUATIONS).with_name('report.md').as_posix()})"
        for one in evaluations
    ]
    text = "\n".join(["# Evaluations\n", markdown_table(header, rows, numeric_from=2), "Reports:\n", *links, ""])
    return write_text(folder / "index.md", text)
