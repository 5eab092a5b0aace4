"""What results consist of: the figures of a score and the rows of predictions, and the evaluations that a model's folder holds."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, TypedDict, cast

from trainers.files import read_object

if TYPE_CHECKING:
    from trainers.data.rows import PreparedRow

STUDY_RESULTS = "results.jsonl"  # the rows of a study, one a line
QUICKSTART_RESULTS = "results.json"  # those of the quickstart, as a list
RESULT_FILES = (STUDY_RESULTS, QUICKSTART_RESULTS)
ErrorType = Literal["substitutions", "deletions", "insertions"]
ERROR_TYPES: tuple[ErrorType, ...] = ("substitutions", "deletions", "insertions")


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


class ErrorRate(NamedTuple):
    """A rate among the figures: its key and that of its interval, and its name in full and in short."""

    key: Literal["wer", "cer"]
    interval: Literal["wer_ci", "cer_ci"]
    name: str
    short: str

    def of(self, table: Figures) -> float | None:
        """The rate in a table; None where an older one lacks it."""
        return table.get(self.key)


RATES = (
    ErrorRate("wer", "wer_ci", "Word error rate", "WER"),
    ErrorRate("cer", "cer_ci", "Character error rate", "CER"),
)
"""The rates of every report. The first is what systems are compared by; short tables give the interval of no other."""
COUNTS = (*ERROR_TYPES, "hits")
METADATA_COLUMNS = ("age", "gender", "sex", "dialect", "accent", "accents", "variant", "region", "native_language")
"""What data sets tell of speakers and of their speech; results are given by each of these that the rows have."""
KEPT_COLUMNS: tuple[Literal["language", "speaker_id", "source"], ...] = ("language", "speaker_id", "source")
"""What a prediction row keeps of the data set's row, beside its details."""
Origin = tuple[str | None, str | None]
"""An utterance's test set (`source`) and speaker, each None where it is unknown."""


class BootstrapRecord(TypedDict):
    """How the intervals were made: `blocks` of a `unit` were drawn anew, as many of each of `strata` test sets as it has."""

    method: str
    unit: str
    blocks: int
    strata: NotRequired[int]
    resamples: int
    confidence: float
    seed: int


class ScoreTable(Figures):
    """All figures of some utterances: the whole of `metrics.json`'s corpus, or one group of it. What stands here is published."""

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
    bootstrap: BootstrapRecord | None


class RateBin(TypedDict):
    """The errors of the words, or of the utterances, of one kind."""

    bin: str
    items: int
    """words or utterances"""
    words: int
    errors: int
    rate: float | None
    ci: list[float] | None


class ChangeBin(TypedDict):
    """The errors of two systems in the reference words of one kind; `change` is of the rate, B minus A."""

    bin: str
    words: int
    a: int
    b: int
    change: float
    change_ci: list[float] | None


class Confusion(TypedDict):
    """A word pair that stands `count` times; None on the side where there is no word."""

    reference: str | None
    prediction: str | None
    count: int


class ErrorShare(TypedDict):
    """The word errors in some of the outputs."""

    errors: int
    share_of_errors: float


class OutputErrors(ErrorShare):
    utterances: int


class SpacingErrors(ErrorShare):
    regions: int
    examples: list[Confusion]


class WordTables(TypedDict):
    """Rates by kind of word."""

    by_frequency: list[RateBin]
    by_length: list[RateBin]
    by_position: list[RateBin]
    by_class: list[RateBin]
    frequency_source: str
    names_known: bool


class ErrorAnalysis(TypedDict):
    """What `trainers.evaluation.error_analysis.analyze` finds."""

    confusions: dict[str, list[Confusion]]
    spacing_errors: SpacingErrors
    insertion_kinds: dict[str, int]
    outputs: dict[str, OutputErrors]
    words: WordTables
    utterances: dict[str, list[RateBin]]


class LeaderboardFigures(TypedDict):
    """WER in per cent and RTFx, as the Open ASR Leaderboard gives them."""

    protocol: str
    wer: float
    rtfx: float | None
    utterances: int
    ignored_utterances: int
    reference_words: int
    errors: int


class SpeedReport(TypedDict):
    """What was measured and on what. RTFx is audio seconds over wall seconds, after warm-up, decoding included."""

    audio_seconds: float
    wall_seconds: float
    rtfx: float | None
    peak_memory_bytes: int | None
    peak_memory_kind: str
    time_to_first_token_seconds: float | None
    parameters: int | None
    device: str
    device_name: str
    threads: int
    dtype: str
    batch_size: int | None
    warmup_batches: int
    other_cores: float | None
    """processor cores that other processes kept busy meanwhile; None where the system does not say"""
    versions: dict[str, str]


class Hardware(TypedDict):
    """What was computed on; without torch its version is None."""

    device: str
    gpus: int
    cores: int
    torch: str | None


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
    error_analysis: NotRequired[ErrorAnalysis]
    speed: NotRequired[SpeedReport | None]
    leaderboard: NotRequired[LeaderboardFigures]
    dataset: NotRequired[dict[str, str] | str]
    dataset_config: NotRequired[str]
    dataset_revision: NotRequired[str]
    split: NotRequired[str]
    left_out: NotRequired[int]
    """utterances of the test set that were left out by choice, as by `--limit`"""
    loss: NotRequired[float | None]
    """of a training run's own scoring"""
    decoding: NotRequired[dict[str, Any]]
    total_params: NotRequired[int]
    encoder_params: NotRequired[int]
    trainable_params: NotRequired[int]
    eval_rtfx: NotRequired[float]
    rtfx: NotRequired[float]
    """as older versions named it"""
    peak_memory_bytes: NotRequired[int]
    train_seconds: NotRequired[float]
    audio_seconds: NotRequired[float]
    damaged_recordings: NotRequired[int]
    """left out, because they could not be read any more"""
    produced_by: NotRequired[str]
    model_fingerprint: NotRequired[str]
    predictions_sha256: NotRequired[str]
    hardware: NotRequired[Hardware]


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
    hardware: NotRequired[Hardware]
    by_source: NotRequired[dict[str, Figures]]
    same_as: NotRequired[str]


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


def prediction_row(row: "PreparedRow", prediction: str) -> PredictionRow:
    """The transcript of a row of `trainers.data.prepare`, with what is known of that row."""
    known = {name: row[name] for name in KEPT_COLUMNS if row.get(name) is not None}
    details = json.loads(row.get("details") or "{}")
    return cast(
        PredictionRow, {"id": row["id"], "reference": row["text"], "prediction": prediction, **known, **details}
    )


def figures_of(table: Figures) -> Figures:
    """The figures out of a larger table; None where an older one lacks them."""
    return cast(Figures, {name: table.get(name) for name in FIGURES})


def known_wer(table: Figures) -> float:
    """The word error rate of a table whose references hold words."""
    assert table["wer"] is not None
    return table["wer"]


def errors_of(table: Figures) -> int:
    """All word errors of a table."""
    return sum(table[kind] for kind in ERROR_TYPES)


def language_name(code: str | None) -> str:
    """The English name of a language's code; the code itself where it has no name here, `All languages` for `all`."""
    from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES

    return "All languages" if code in (None, "", "all") else LANGUAGE_NAMES.get(str(code), str(code))


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean of at least one value."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def pareto_front(rows: Iterable[ResultRow], cost: Callable[[ResultRow], float]) -> list[ResultRow]:
    """Rows than which no other is better in `cost` or WER and worse in neither, the cheapest first; those without a WER are left out."""
    rated = [(cost(row), row["wer"], row) for row in rows if row["wer"] is not None]
    front: list[ResultRow] = []
    best = (0.0, math.inf)
    for place, rate, row in sorted(rated, key=lambda one: one[:2]):
        if rate < best[1] or (place, rate) == best:
            front.append(row)
            best = place, rate
    return front


EVALUATIONS = "evaluation"
"""The folder of a model in which `slam-asr evaluate` keeps its results, one folder a data set."""
EVALUATION_FILES = ("metrics.json", "predictions.jsonl", "report.md", "report.html")
"""What scoring writes into a folder."""
# What every version has written: an evaluation has these at least.
_LEAST = {"wer", "wer_ci", "cer", *COUNTS, "reference_words", "model_fingerprint"}
# Folders of a run whose metrics.json is of no finished model.
_UNFINISHED = ("checkpoint-*", "best", "runs", ".*")


@dataclass(frozen=True)
class Evaluation:
    """The results of one data set: `metrics` is the content of `path`, a place in the model's folder."""

    path: str
    metrics: Metrics

    @property
    def name(self) -> str:
        """The name of its folder, below the model's; that of the data set where it has no folder of its own."""
        parent = Path(self.path).parent.name
        return parent if parent not in ("", EVALUATIONS) else str(self._named() or "test set")

    @property
    def dataset(self) -> dict[str, str | None]:
        """`name`, and where known `config`, `split`, `revision` of the test data."""
        value = self.metrics.get("dataset")
        if isinstance(value, dict):
            return {"name": self._named(), **value}
        metrics = self.metrics
        known = {"config": metrics.get("dataset_config"), "revision": metrics.get("dataset_revision")}
        return {"name": value or self.name, "split": metrics.get("split"), **known}

    @property
    def languages(self) -> list[str]:
        """Languages of the test data."""
        single = self.metrics.get("language")
        return (
            [single]
            if single
            else [name for name in sorted(self.metrics.get("by_language") or {}) if name != "unknown"]
        )

    def _named(self) -> str | None:
        value = self.metrics.get("dataset")
        return value.get("name") or value.get("dataset") if isinstance(value, dict) else value


def evaluation_files(folder: Path) -> list[Path]:
    """Every `metrics.json` of an evaluation in the folder of a model, or of its training run at the root."""
    found = sorted({*folder.glob("metrics.json"), *folder.glob("*/metrics.json"), *folder.glob("*/*/metrics.json")})
    parts = {path: path.relative_to(folder).parts[:-1] for path in found}
    return [
        path
        for path in found
        if parts[path][:1] == (EVALUATIONS,)
        or not any(Path(part).match(name) for part in parts[path] for name in _UNFINISHED)
    ]


def read_evaluations(folder: str | Path) -> list[Evaluation]:
    """
    All evaluations of a model: those below its `evaluation/`, and the one that lies in it directly, as older versions left it.

    A `metrics.json` that cannot be read, or that holds no figures of `slam-asr evaluate`, is none. Whether the figures are
    of the model's present weights is for `trainers.provenance.read_stamped` to say.
    """
    found = []
    for path in evaluation_files(Path(folder)):
        place = path.relative_to(folder)
        metrics = read_object(path) if place.parts[0] == EVALUATIONS else {}
        if metrics.keys() >= _LEAST:
            found.append(Evaluation(place.as_posix(), cast(Metrics, metrics)))
    return found
