"""Which program and which weights a result comes from, so that a published figure can be traced.

`slam-asr evaluate` stamps its `metrics.json`; publishing refuses figures without the stamp, of other weights, or changed by hand.
"""

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast, get_type_hints

from trainers.errors import UserError
from trainers.results import COUNTS, Figures, Hardware, Metrics, ResultRow, errors_of

PRODUCED_BY = "slam-asr evaluate"
EXPORT_MANIFEST = "manifest.json"
"""Of a folder made by `slam-asr export`: what its parts are, and the SHA-256 of every file."""
RATE_TOLERANCE = 1e-9
_KINDS = {**get_type_hints(Metrics), **get_type_hints(ResultRow)}
_WHOLE = tuple(name for name, kind in _KINDS.items() if kind is int)
_NUMBERS = (*_WHOLE, *(name for name, kind in _KINDS.items() if kind in (float, float | None)))
REMEDY = "Run `slam-asr evaluate MODEL --dataset ... --output-dir ...` again on the model that is published."


class DataCounts(TypedDict, total=False):
    """What became of the rows of one role of a run's data."""

    rows: int
    kept: int
    hours: float
    dropped: dict[str, int]


class WarmStartRecord(TypedDict):
    """What `warm_start.json` says: `ctc_loss` and `ctc_wer` are the validation's at the kept epoch, None without one."""

    epochs: float
    steps: int
    seconds: float
    classes: int
    utterances: int
    crowded: int
    ctc_loss: float | None
    ctc_wer: float | None


class HealingRecord(TypedDict):
    """What the distillation of a pruned encoder took, before the run."""

    steps: int
    seconds: float


class TrainingRecord(TypedDict, total=False):
    """What a published model tells of its training run. The run's own error rates are not among it: `evaluate` gives those."""

    name: str
    steps: int
    train_seconds: float
    data: dict[str, DataCounts]
    hardware: Hardware
    total_params: int
    trainable_params: int
    encoder_params: int
    format_version: int
    slam_asr_version: str
    warm_start: WarmStartRecord
    healing: HealingRecord


TRAINING_RECORD = tuple(TrainingRecord.__annotations__)


class RunMetrics(TrainingRecord, total=False):
    """The `metrics.json` of a training run; where the run has data to score, with all of [`Metrics`]'s figures."""

    best_validation_wer: float | None
    split: str
    wer: float | None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """
    The safetensors files of a checkpoint: those at its root and in the LoRA folders below it. Of an export its manifest, which lists the
    SHA-256 of all weights.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*_lora/*.safetensors")])
    return files or [path for path in (folder / EXPORT_MANIFEST,) if path.is_file()]


def model_fingerprint(folder: str | Path) -> str:
    """
    64 hex digits that name a checkpoint's weights.

    Of a single weights file it is the file's SHA-256, as the Hub shows it; of several, that of the list of their names and
    SHA-256s.

    Raises:
        UserError: when the folder has no weights.
    """
    folder = Path(folder)
    files = weight_files(folder)
    if not files:
        raise UserError(
            f"{folder} holds no weights (*.safetensors), so no result can be traced to it. Name a model folder."
        )
    if len(files) == 1:
        return file_sha256(files[0])
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def cpu_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> Hardware:
    """
    What this process computes on: the GPU, or the processor. Where an engine computes without torch, that is the processor.
    """
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
    device = torch.cuda.get_device_name(0) if torch is not None and gpus else f"{platform.machine()} CPU"
    return {"device": device, "gpus": gpus, "cores": cpu_cores(), "torch": getattr(torch, "__version__", None)}


def stamp(metrics: Mapping[str, Any], folder: str | Path, predictions: str | Path | None = None) -> dict[str, Any]:
    """
    `metrics` with the marks of `slam-asr evaluate`: the program, the model's fingerprint, the hardware and, when the file is
    named, the predictions' SHA-256. To be called when model and predictions are written.
    """
    marks = {"produced_by": PRODUCED_BY, "model_fingerprint": model_fingerprint(folder), "hardware": hardware()}
    if predictions is not None:
        marks["predictions_sha256"] = file_sha256(Path(predictions))
    return {**metrics, **marks}


def read_stamped(path: str | Path, fingerprint: str) -> Metrics:
    """
    The content of a `metrics.json`, checked.

    Args:
        fingerprint: of the model that the figures must be of.
    Raises:
        UserError: when the file was not written by `evaluate`, is of other weights, does not add up, or its
            `predictions.jsonl` beside it has changed.
    """
    path = Path(path)
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no metrics.json that can be read ({error}). {REMEDY}") from error
    if not isinstance(metrics, dict) or metrics.get("produced_by") != PRODUCED_BY:
        raise UserError(f"{path} was not produced by `slam-asr evaluate`; its figures cannot be published. {REMEDY}")
    if metrics.get("model_fingerprint") != fingerprint:
        found = str(metrics.get("model_fingerprint"))[:12]
        raise UserError(f"{path} is of other weights ({found}..., the model is {fingerprint[:12]}...). {REMEDY}")
    problem = inconsistency(metrics)
    if problem:
        raise UserError(f"{path} does not add up: {problem}. {REMEDY}")
    predictions = path.with_name("predictions.jsonl")
    wanted = metrics.get("predictions_sha256")
    if wanted and predictions.is_file() and file_sha256(predictions) != wanted:
        raise UserError(f"{predictions} is not the file that {path.name} was made from. {REMEDY}")
    return cast(Metrics, metrics)


def inconsistency(metrics: Mapping[str, Any]) -> str | None:
    """What in the figures contradicts itself, or None."""
    try:
        return _contradiction(metrics)
    except KeyError as error:
        return f"it lacks {error}"
    except (TypeError, ValueError, OverflowError) as error:
        return f"a figure is no number ({error})"


def _contradiction(metrics: Mapping[str, Any]) -> str | None:
    for name in _NUMBERS:
        value = metrics.get(name)
        if value is None:
            continue
        if not (isinstance(value, int | float) and math.isfinite(value)):
            return f"{name} is {str(value)[:40]!r}, no number"
        if name in _WHOLE and value != int(value):
            return f"{name} is {value}, no whole number"
    counts = {name: int(metrics[name]) for name in COUNTS}
    words, rate = int(metrics["reference_words"]), metrics["wer"]
    if counts["hits"] + counts["substitutions"] + counts["deletions"] != words:
        return f"hits, substitutions and deletions are not the {words} reference words"
    errors = errors_of(cast(Figures, counts))
    if words and (rate is None or abs(float(rate) - errors / words) > RATE_TOLERANCE):
        return f"{errors} errors in {words} words are not a WER of {rate}"
    interval = metrics.get("wer_ci")
    if interval and rate is not None:
        low, high = (float(bound) for bound in interval)
        if not low - RATE_TOLERANCE <= rate <= high + RATE_TOLERANCE:
            return f"the WER {rate} lies outside its interval {interval}"
    return None
