"""
What is published of a model folder: an allow-list of files, and of what the evidence among them says. Nothing else of a folder
is read or sent. Private rows stay here: totals go out; speakers, words and clip names do not.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, TypedDict, cast

import yaml

import modeling_slam_asr
from modeling_slam_asr.configuration_slam_asr import AUTO_MAP, CUSTOM_PIPELINES, without_foreign_code
from trainers.credentials import find_paths
from trainers.errors import UserError
from trainers.provenance import TRAINING_RECORD, TrainingRecord
from trainers.recipes.safe_yaml import load_yaml
from trainers.results import RESULT_FILES, ScoreTable

from .limits import Limits


class Publication(TypedDict, total=False):
    """The content of `publication.json`: what the results are of, where the form was changed; and the LoRA that was merged."""

    evaluated_fingerprint: str
    published_fingerprint: str
    conversion: str
    lora: dict[str, Any]
    encoder_lora: dict[str, Any]


# Files that loading a model needs; they are published byte for byte (but for paths in settings).
LORA = ("language_model_lora", "audio_encoder_lora")
WEIGHTS = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", *(f"{name}/adapter_model.safetensors" for name in LORA),
)  # fmt: skip
CODE = ("*_slam_asr.py",)
SETTINGS = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "*_lora/adapter_config.json",
)  # fmt: skip
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")
LOADED = (*WEIGHTS, *CODE, *SETTINGS, *VOCABULARY, "chat_template.jinja")
# The code that is published, whatever stands in the model folder: it is what reads and checks the folder here.
PACKAGE = Path(modeling_slam_asr.__file__).parent
OWN_CODE: dict[str, dict[str, Any]] = {
    "config.json": {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES},
    "processor_config.json": {"auto_map": {"AutoProcessor": AUTO_MAP["AutoProcessor"]}},
}
# Evidence at the root of a model folder, and what an evaluation leaves in a folder of its own.
EVIDENCE = (
    "README.md", "recipe.yaml", "training.json", "limits.json", "publication.json", "metrics.json", *RESULT_FILES,
)  # fmt: skip
CONVERTED = (*WEIGHTS, *CODE, "*_lora/adapter_config.json")  # written anew when the form of a checkpoint is changed

FIGURES = (
    *ScoreTable.__annotations__, "language", "total_params", "trainable_params", "encoder_params", "train_seconds", "eval_rtfx",
)  # fmt: skip
METRICS = (
    *FIGURES, "normalizer", "normalizers", "wer_standard_error", "minimum_detectable_difference", "dataset", "dataset_config",
    "dataset_revision", "split", "left_out", "decoding", "audio_seconds", "rtfx", "peak_memory_bytes", "hardware", "leaderboard", "produced_by",
    "model_fingerprint", "predictions_sha256",
)  # fmt: skip
ROW = (
    *FIGURES, "name", "audio_model", "text_model", "prune_encoder_layers", "encoder_layers", "selection", "healing", "lora", "seed",
    "same_as",
)  # fmt: skip
BATCH = ("recordings", "same_transcripts", "largest_logit_difference")
PUBLICATION = tuple(Publication.__annotations__)
PREDICTION = ("id", "audio", "reference", "prediction", "language", "duration")


def loaded_files(folder: Path, patterns: tuple[str, ...] = LOADED) -> list[Path]:
    """The files of `folder` that a model is loaded from."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith(".")})


def settings(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """
    What is published of a settings file: it names no code but ours, in this repository, at no depth.

    Raises:
        ValueError: where a kernel of a Hub repository is asked for.
    """
    own = {key: item for key, item in OWN_CODE.get(name, {}).items() if key in value}
    return {**without_foreign_code(value, f"{name}: "), **own}


def limits(value: Mapping[str, Any]) -> Limits:
    """
    What is published of a `limits.json`.

    Raises:
        KeyError, TypeError, ValueError: when it is of another shape than `hub_upload.limits` writes.
    """
    edges = {
        kind: [
            {"seconds": _number(row["seconds"]), "text": str(row["text"]), "flagged": bool(row["flagged"])}
            for row in value[kind]
        ]
        for kind in ("silence", "noise")
    }
    batch = {name: _number(value["batch"][name]) for name in BATCH}
    fingerprint, longest = str(value["model_fingerprint"]), _number(value["max_seconds"])
    return cast(Limits, hide_paths({"model_fingerprint": fingerprint, "max_seconds": longest, **edges, "batch": batch}))


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    return value


def publication(value: Mapping[str, Any]) -> Publication:
    """What is published of a `publication.json`."""
    return cast(Publication, hide_paths(_only(value, PUBLICATION)))


def metrics(value: Mapping[str, Any]) -> dict[str, Any]:
    """What is published of a `metrics.json`: totals, for all and for each language."""
    kept = _only(value, METRICS)
    if value.get("by_language"):
        kept["by_language"] = {name: _only(figures, FIGURES) for name, figures in value["by_language"].items()}
    if isinstance(kept.get("leaderboard"), dict):
        kept["leaderboard"] = {name: one for name, one in kept["leaderboard"].items() if isinstance(one, int | float)}
    return hide_paths(kept)


def training(value: Mapping[str, Any]) -> TrainingRecord:
    """What is published of a training run's `metrics.json`."""
    return cast(TrainingRecord, hide_paths(_only(value, TRAINING_RECORD)))


def study_row(value: Mapping[str, Any]) -> dict[str, Any]:
    """What is published of a row of a study."""
    return hide_paths(_only(value, ROW))


def prediction(value: Mapping[str, Any]) -> dict[str, Any]:
    """What is published of a prediction, where predictions are asked for."""
    return hide_paths(_only(value, PREDICTION))


def _only(value: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value}


def hide_paths(value: Any) -> Any:
    """`value` with names in place of absolute paths."""
    if isinstance(value, dict):
        return {key: hide_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hide_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) and next(find_paths(value), None) else value


def public_name(name: str) -> str:
    """The name of a base model or data set to show the world: a path on this machine becomes the folder's own name."""
    path = Path(name)
    if not (path.is_absolute() or PureWindowsPath(name).is_absolute()):
        return name
    ours = path.parent.name == "bases" and path.parent.parent.name == "embedded"
    return f"embedded-{path.name}" if ours else PureWindowsPath(name).name


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """A JSON object; an empty one when the file is not there and not required."""
    if not path.is_file():
        if required:
            raise UserError(f"{path.parent} has no {path.name}, so it is no model folder. Name one that train wrote.")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON that can be read ({error}). Save it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe that the model was trained with; empty when it is not in the folder."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}
    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML that can be read ({error}).") from error
    return value if isinstance(value, dict) else {}
