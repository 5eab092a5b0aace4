"""What the files of a model folder say about the model: the only source of a card's figures."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from modeling_slam_asr.generation_slam_asr import read_generation
from modeling_slam_asr.lora_slam_asr import ParameterReport
from trainers.data.kinds import DATA_KINDS
from trainers.data.sources import detect_format
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.evaluation.normalizers import language_code
from trainers.files import read_jsonl
from trainers.provenance import TrainingRecord, file_sha256, inconsistency, model_fingerprint, read_stamped
from trainers.recipe import LoraSpec
from trainers.results import RESULT_FILES, Evaluation, ResultRow, evaluation_files

from . import published
from .checks import is_hub_id
from .licences import Licence, Part, derive_licence, known_licence
from .limits import Limits
from .published import CODE, Publication, loaded_files, public_name, read_json, read_recipe

DEPTH_PLOT = "wer_vs_depth.png"
STUDY_RUN = re.compile(r"-seed\d+-[0-9a-f]{8}$")
"""The end of the name that `trainers.study.plan` gives a run: its seed and the beginning of its key."""


@dataclass(frozen=True)
class ModelFacts:
    """Everything that a card is made from, each with the file that it stands in."""

    folder: Path
    config: dict[str, Any]
    fingerprint: str
    parameters: ParameterReport
    evaluations: list[Evaluation]
    depth_rows: list[ResultRow]
    depth_path: str | None
    training: TrainingRecord
    recipe: dict[str, Any]
    limits: Limits
    publication: Publication
    generation: dict[str, Any]
    code: dict[str, str]
    licence: Licence

    @property
    def languages(self) -> list[str]:
        """ISO codes of the languages that the model was trained or tested on."""
        sources = [source.get("language") for role in ("train", "test") for source in recipe_data(self.recipe, role)]
        tested = [language for evaluation in self.evaluations for language in evaluation.languages]
        codes = {language_code(language) for language in (*sources, *tested) if language and language != "all"}
        return sorted(code for code in codes if code)

    @property
    def of_a_study(self) -> bool:
        """Whether a study made the run: it chooses and heals blocks, trains several depths and draws rows as `train` does not."""
        return STUDY_RUN.search(str(self.recipe.get("name"))) is not None

    @property
    def base_models(self) -> list[str]:
        """Hub names of encoder and LLM; bases that are not on the Hub are left out."""
        names = (self.config.get("audio_model_id"), self.config.get("text_model_id"))
        return [name for name in names if name and is_hub_id(name)]

    @property
    def datasets(self) -> list[str]:
        """Hub names of the training data."""
        names = [str(source.get("dataset")) for source in recipe_data(self.recipe, "train")]
        return sorted({name for name in names if is_hub_data(name)})

    @property
    def lora(self) -> dict[str, dict[str, Any]]:
        """
        Settings of the LoRA that was trained, as `peft.LoraConfig` names them, by the part of the model; also of one that has
        been merged since. A part whose settings are not known has none.
        """
        recipe = {"lora": lora_of_recipe(self.recipe)}
        parts = {"language model": "lora", "encoder": "encoder_lora"}
        sources: tuple[Mapping[str, Any], ...] = (self.config, self.publication, recipe)
        found = {part: next((one[key] for one in sources if one.get(key)), None) for part, key in parts.items()}
        return {part: dict(value) for part, value in found.items() if value is not None}

    @property
    def trained_parameters(self) -> int | None:
        """How many parameters were trained, as the run counted them; None where LoRA was merged and nobody recorded it."""
        recorded = self.training.get("trainable_params")
        if recorded is None:
            counts = (evaluation.metrics.get("trainable_params") for evaluation in self.evaluations)
            recorded = next((count for count in counts if count), None)
        merged = bool(self.lora) and not (self.config.get("lora") or self.config.get("encoder_lora"))
        return int(recorded) if recorded else None if merged else int(self.parameters["trainable"])


def lora_of_recipe(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The LoRA of a recipe as keyword arguments of `peft.LoraConfig`."""
    value = recipe.get("lora")
    if not value:
        return None
    known = {field.name for field in fields(LoraSpec)}
    settings = value if isinstance(value, dict) else {}  # true: the paper's
    return LoraSpec(**{key: item for key, item in settings.items() if key in known}).to_peft()


def recipe_data(recipe: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """The data sources of a recipe's `train`, `validation` or `test`."""
    value: Any = recipe.get(role) or []
    return [value] if isinstance(value, dict) else [source for source in value if isinstance(source, dict)]


def is_hub_data(name: str) -> bool:
    """Whether a recipe's data set is a repository of the Hub: a relative path to a folder or table here looks like one."""
    if not is_hub_id(name) or Path(name).exists():
        return False
    return DATA_KINDS[detect_format(DataSpec(name))].place == "remote"


def read_config(folder: Path) -> dict[str, Any]:
    """
    The configuration of a model folder.

    Raises:
        UserError: when it holds no SLAM-ASR model.
    """
    config = read_json(folder / "config.json", required=True)
    if config.get("model_type") != "slam_asr":
        raise UserError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not 'slam_asr'. Name a folder that "
            "`slam-asr train` or save_pretrained wrote."
        )
    return config


def read_facts(folder: Path, licences: dict[str, str] | None = None) -> ModelFacts:
    """
    Read a model folder.

    Args:
        licences: licences of base models and data sets by name, where they are known better than by this project's table.
    Raises:
        UserError: when it is no model folder, or holds results that `evaluate` did not produce from these weights.
    """
    config = read_config(folder)
    fingerprint = model_fingerprint(folder)
    depth_path = find_results(folder)
    recipe = read_recipe(folder)
    return ModelFacts(
        folder=folder,
        config=config,
        fingerprint=fingerprint,
        parameters=count_parameters(config),
        evaluations=stamped_evaluations(folder, evaluated_fingerprint(folder, fingerprint)),
        depth_rows=read_depth_rows(depth_path) if depth_path else [],
        depth_path=depth_path.name if depth_path else None,
        training=read_training(folder),
        recipe=recipe,
        limits=read_limits(folder, fingerprint),
        publication=published.publication(read_json(folder / "publication.json")),
        generation=read_settings(folder / "generation_config.json"),
        code={path.name: file_sha256(path) for path in loaded_files(folder, CODE)},
        licence=derive_licence(licence_parts(config, recipe, licences or {})),
    )


def stamped_evaluations(folder: Path, fingerprint: str) -> list[Evaluation]:
    """The results in a folder and its sub-folders, each checked against the model's fingerprint."""
    return [
        Evaluation(path.relative_to(folder).as_posix(), read_stamped(path, fingerprint))
        for path in evaluation_files(folder)
        if not is_training_record(path)
    ]


def is_training_record(path: Path) -> bool:
    """Whether this is the `metrics.json` of a training run, whose error rates are not those of `evaluate`."""
    value = read_json(path)
    return "train_seconds" in value and "produced_by" not in value


def read_training(folder: Path) -> TrainingRecord:
    """What the training run recorded: `training.json`, or the run's `metrics.json` without its error rates."""
    if (folder / "training.json").is_file():
        return published.training(read_json(folder / "training.json"))
    path = folder / "metrics.json"
    if path.is_file() and is_training_record(path):
        return published.training(read_json(path))
    return {}


def evaluated_fingerprint(folder: Path, fingerprint: str) -> str:
    """
    The fingerprint of the weights that the results are of: these, or those that these were converted from.

    A push that changes the form of a checkpoint says so in `publication.json`, after it has found the outputs equal.
    """
    publication = read_json(folder / "publication.json")
    converted = publication.get("published_fingerprint") == fingerprint
    return str(publication["evaluated_fingerprint"]) if converted else fingerprint


def read_limits(folder: Path, fingerprint: str) -> Limits:
    """`limits.json`, if it was measured on these weights."""
    limits = read_any_limits(folder)
    return limits if limits.get("model_fingerprint") == fingerprint else {}


def read_settings(path: Path) -> dict[str, Any]:
    """The generation configuration at `path`; empty without one."""
    try:
        return read_generation(path, str(path.parent)) if path.is_file() else {}
    except ValueError as error:
        raise UserError(str(error)) from error


def read_any_limits(folder: Path) -> Limits:
    """`limits.json`, of whichever weights; empty when it is not there."""
    value = read_json(folder / "limits.json")
    try:
        return published.limits(value) if value else {}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'limits.json'} is not what this program writes ({type(error).__name__}: {error}). Delete it; it is measured "
            "again."
        ) from error


def find_results(folder: Path) -> Path | None:
    """The rows of a study in its folder, or in that of a model which was published with them."""
    paths = (folder / name for name in RESULT_FILES)
    return next((path for path in paths if path.is_file()), None)


def read_depth_rows(path: Path) -> list[ResultRow]:
    """
    The rows of a study's `results.json` or `results.jsonl`.

    Raises:
        UserError: when a row's counts and WER do not agree.
    """
    try:
        rows = list(read_jsonl(path)) if path.suffix == ".jsonl" else json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it must hold a list of objects, one for each system and language")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    for row in rows:
        problem = inconsistency(row)
        if problem:
            raise UserError(
                f"{path}, row {row.get('name')!r}, does not add up: {problem}. Run the study or quickstart again."
            )
    return cast(list[ResultRow], rows)


def count_parameters(config: dict[str, Any]) -> ParameterReport:
    """`parameter_report()` of the architecture in a `config.json`, without its weights."""
    import torch

    from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration

    values = {
        key: value for key, value in config.items() if key not in ("architectures", "dtype", "transformers_version")
    }
    with torch.device("meta"):
        model = SlamAsrForConditionalGeneration(SlamAsrConfig(**{**values, "checkpoint_form": "standalone"}))
    return model.parameter_report()


def licence_parts(config: dict[str, Any], recipe: dict[str, Any], licences: dict[str, str]) -> list[Part]:
    """Encoder, language model and training data with their licences."""
    named = [
        ("encoder", str(recipe.get("audio_model") or config.get("audio_model_id") or "")),
        ("language model", str(recipe.get("text_model") or config.get("text_model_id") or "")),
        *(("data", str(source.get("dataset", ""))) for source in recipe_data(recipe, "train")),
    ]
    for role, key in (("encoder", "audio_model_id"), ("language model", "text_model_id")):
        model_id = str(config.get(key) or "")
        if is_hub_id(model_id):  # what the weights came from counts, not what a recipe calls it
            named = [(what, model_id if what == role else name) for what, name in named]
    unique = dict.fromkeys((role, public_name(name)) for role, name in named if name)
    return [Part(role, shown, licences.get(shown) or known_licence(shown)) for role, shown in unique]


def baseline_rows(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows of unpruned systems without LoRA, which pruned ones are compared with."""
    return [row for row in rows if not (row.get("prune_encoder_layers") or row.get("lora") or row.get("healing"))]
