"""What results consist of: the figures of a score, and the rows of predictions, runs and studies. Every name stands here once."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

ERROR_TYPES = ("substitutions", "deletions", "insertions")


class Figures(TypedDict):
    """The figures that every result gives. Rates are fractions, None where the references hold no words."""

    wer: float | None
    wer_ci: list[float] | None
    cer: float | None
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    reference_words: int


FIGURES = tuple(Figures.__annotations__)
COUNTS = (*ERROR_TYPES, "hits")
METADATA_COLUMNS = ("age", "gender", "sex", "dialect", "accent", "accents", "variant", "region", "native_language")
"""What data sets tell of speakers and of their speech; results are given by each of these that the rows have."""
KEPT_COLUMNS = ("language", "speaker_id", "source")
"""What a prediction row keeps of the data set's row, beside its details."""


class ScoreTable(Figures):
    """All figures of some utterances: the whole of `metrics.json`'s corpus, or one group of it."""

    cer_ci: list[float] | None
    sentence_error_rate: float | None
    sentence_error_rate_ci: list[float] | None
    prediction_words: int
    reference_characters: int
    character_errors: int
    utterances: int
    utterances_with_errors: int
    empty_references: int
    empty_predictions: int
    bootstrap: dict[str, Any] | None


class Metrics(ScoreTable):
    """The content of `metrics.json`; what only `slam-asr evaluate` knows is not required."""

    language: str | None
    normalizer: str
    normalizers: dict[str, str]
    wer_standard_error: float | None
    minimum_detectable_difference: float | None
    notes: list[str]
    coral_wer: NotRequired[float]
    """of the Danish utterances: the mean of their own rates, as the CoRal project reports it"""
    by_language: NotRequired[dict[str, ScoreTable]]
    by_source: NotRequired[dict[str, ScoreTable]]
    by_speaker: NotRequired[dict[str, ScoreTable]]
    error_analysis: NotRequired[dict[str, Any]]
    speed: NotRequired[dict[str, Any] | None]
    leaderboard: NotRequired[dict[str, Any]]
    dataset: NotRequired[dict[str, str]]
    decoding: NotRequired[dict[str, Any]]
    total_params: NotRequired[int]
    encoder_params: NotRequired[int]
    trainable_params: NotRequired[int]
    eval_rtfx: NotRequired[float]
    audio_seconds: NotRequired[float]
    damaged_recordings: NotRequired[int]
    """left out, because they could not be read any more"""
    produced_by: NotRequired[str]
    model_fingerprint: NotRequired[str]
    predictions_sha256: NotRequired[str]
    hardware: NotRequired[dict[str, Any]]


class PredictionRow(TypedDict):
    """One utterance of a prediction file. Other keys are kept as they are."""

    id: str
    reference: str
    prediction: str
    language: NotRequired[str]
    speaker_id: NotRequired[str]
    source: NotRequired[str]
    audio: NotRequired[str]
    duration: NotRequired[float]
    """seconds of audio"""
    seconds: NotRequired[float]
    """of decoding"""
    confidence: NotRequired[float]
    truncated: NotRequired[bool]


class ResultRow(Figures):
    """One line of a study's `results.jsonl` or of the quickstart's `results.json`: a run, and a language of its test set."""

    name: str
    audio_model: str
    text_model: str
    language: str
    """`all`: every language of the test set together"""
    prune_encoder_layers: int | list[int]
    encoder_layers: int
    lora: bool
    seed: int
    total_params: int
    trainable_params: int
    encoder_params: int
    train_seconds: float
    eval_rtfx: float
    run: NotRequired[str]
    """the evaluation's folder, relative to the study's"""
    key: NotRequired[str]
    kept_encoder_layers: NotRequired[list[int]]
    selection: NotRequired[str]
    healing: NotRequired[str | None]
    split: NotRequired[str]
    steps: NotRequired[int]
    best_validation_wer: NotRequired[float | None]
    saving: NotRequired[float]
    saving_paper: NotRequired[float]
    memory_gib: NotRequired[float]
    memory_kind: NotRequired[str]
    hardware: NotRequired[dict[str, Any]]
    by_source: NotRequired[dict[str, Figures]]
    same_as: NotRequired[str]


def prediction_row(row: Mapping[str, Any], prediction: str) -> PredictionRow:
    """The transcript of a row of `trainers.data.prepare`, with what is known of that row."""
    known = {name: row[name] for name in KEPT_COLUMNS if row.get(name) is not None}
    details = json.loads(row["details"]) if row.get("details") else {}
    return cast(
        PredictionRow, {"id": row["id"], "reference": row["text"], "prediction": prediction, **known, **details}
    )


def figures_of(table: Mapping[str, Any]) -> Figures:
    """The figures out of a larger table."""
    return cast(Figures, {name: table[name] for name in FIGURES})


def errors_of(table: Mapping[str, Any]) -> int:
    """All word errors of a table."""
    return sum(int(table[kind]) for kind in ERROR_TYPES)


def language_name(code: str | None) -> str:
    """The English name of a language's code; the code itself where it has no name here, `All languages` for `all`."""
    from modeling_slam_asr.processing_slam_asr import LANGUAGE_NAMES

    return "All languages" if code in (None, "", "all") else LANGUAGE_NAMES.get(str(code), str(code))


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean of at least one value."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def pareto_front(rows: Iterable[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """Rows that no other row beats in both `cost` and WER, the cheapest first."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row[cost], row["wer"])):
        if not front or row["wer"] < front[-1]["wer"]:
            front.append(row)
    return front


EVALUATIONS = "evaluation"
"""The folder of a model in which `slam-asr evaluate` keeps its results, one folder a data set."""


@dataclass(frozen=True)
class Evaluation:
    """The results of one data set: `folder` holds `metrics.json`, `predictions.jsonl` and the reports."""

    folder: Path
    name: str
    metrics: Metrics


def read_evaluations(folder: str | Path) -> list[Evaluation]:
    """
    All evaluations of a model: those below its `evaluation/`, and the one that lies in it directly, as older versions left it.

    A `metrics.json` that cannot be read, or that holds no figures of `slam-asr evaluate`, is none. Whether the figures are
    of the model's present weights is for `trainers.provenance.read_stamped` to say.
    """
    root = Path(folder) / EVALUATIONS
    found = []
    for path in (root / "metrics.json", *sorted(root.glob("*/metrics.json"))):
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(metrics, dict) and set(FIGURES) <= metrics.keys() and "model_fingerprint" in metrics:
            data = metrics.get("dataset")
            plain = data.get("name") if isinstance(data, dict) else None
            name = path.parent.name if path.parent != root else str(plain or "test set")
            found.append(Evaluation(path.parent, name, cast(Metrics, metrics)))
    return found
