"""A training run as a YAML file: read, checked against dataclasses, overridden on the command line, saved with the run."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trainers.data.spec import AugmentationSpec, DataSpec
from trainers.errors import UserError
from trainers.evaluation.normalizers import get_normalizer
from trainers.files import write_text
from trainers.schema import build, check_numbers, nearest

RECIPE_FOLDER = Path(__file__).parent / "recipes"
Schedule = Literal["cosine_with_min_lr", "cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"]
DATA_ROLES = ("train", "validation", "test")


@dataclass
class ProjectorSpec:
    """The projector; the defaults are the paper's."""

    type: Literal["concat_linear", "conv1d", "qformer"] = "concat_linear"
    downsample_rate: int = 5
    hidden_size: int = 2048
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(self, "projector.", above_zero="downsample_rate hidden_size", fractions="dropout")


@dataclass
class LoraSpec:
    """LoRA on the language model; the defaults are the paper's."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.1
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    use_dora: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "lora.", above_zero="r alpha", fractions="dropout")

    def to_peft(self) -> dict[str, Any]:
        """Keyword arguments of `peft.LoraConfig`."""
        return {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.target_modules),
            "use_dora": self.use_dora,
        }


@dataclass
class DecodingSpec:
    """How transcripts are generated, in validation and in the test alike; the defaults are the paper's test settings."""

    num_beams: int = 2
    max_new_tokens: int | None = 128
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "decoding.", above_zero="num_beams max_new_tokens repetition_penalty")


@dataclass
class Recipe:
    """Everything that defines a training run. Learning rates, batch and schedule default to the paper's.

    `batch_seconds` (seconds of audio) or `batch_tokens` (LLM positions) replace `batch_size`: batches of utterances of
    similar length, as many as fit, padding included. All three are per device and before gradient accumulation.
    `init_from` names a SLAM-ASR checkpoint whose projector training starts from, and whose LoRA, where both have one.
    `eval_steps` and `save_steps` count optimiser steps; without them both happen once an epoch.
    """

    audio_model: str
    text_model: str
    train: list[DataSpec]
    name: str = ""
    output_dir: str = ""
    seed: int = 42
    # model
    audio_revision: str | None = None
    text_revision: str | None = None
    prune_encoder_layers: int | list[int] = 0
    projector: ProjectorSpec = field(default_factory=ProjectorSpec)
    lora: LoraSpec | None = None
    pad_to_30s: bool = False
    prompt: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_form: Literal["standalone", "adapter"] = "standalone"
    init_from: str | None = None
    # data
    validation: list[DataSpec] = field(default_factory=list)
    test: list[DataSpec] = field(default_factory=list)
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    max_bad_fraction: float = 0.01
    num_workers: int = 0
    # optimisation
    num_epochs: float = 10.0
    max_steps: int | None = None
    batch_size: int = 4
    batch_seconds: float | None = None
    batch_tokens: int | None = None
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    lora_learning_rate: float | None = None
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    schedule: Schedule = "cosine_with_min_lr"
    warmup_fraction: float = 0.05
    min_lr_fraction: float = 0.1
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # validation, checkpoints, reports
    eval_steps: int | None = None
    eval_batch_size: int = 8
    early_stopping_patience: int | None = None
    early_stopping_min_delta: float = 0.005
    decoding: DecodingSpec = field(default_factory=DecodingSpec)
    normalizer: str | None = None
    save_steps: int | None = None
    save_total_limit: int = 2
    logging_steps: int = 10
    report_to: list[str] = field(default_factory=list)
    push_to_hub: str | None = None

    def __post_init__(self) -> None:
        check_numbers(
            self,
            above_zero="max_steps batch_size batch_seconds batch_tokens gradient_accumulation_steps num_epochs learning_rate "
            "lora_learning_rate eval_steps eval_batch_size early_stopping_patience save_steps save_total_limit "
            "logging_steps",
            from_zero="seed num_workers weight_decay max_grad_norm early_stopping_min_delta",
            fractions="max_bad_fraction warmup_fraction min_lr_fraction",
        )
        if not self.train:
            raise UserError("train is empty: name at least one data set to train on.")
        if self.batch_seconds is not None and self.batch_tokens is not None:
            raise UserError("batch_seconds and batch_tokens are both set: choose one way to fill a batch.")
        if any(spec.streaming for spec in self.train):
            if len(self.train) > 1:
                raise UserError(
                    "A streamed training set must be the only one: list one source, or set streaming: false."
                )
            if self.max_steps is None:
                raise UserError("train.streaming needs max_steps: a stream's length, and so its epochs, are not known.")
            if self.batch_seconds or self.batch_tokens:
                raise UserError(
                    "train.streaming works with batch_size only: lengths are not known before they are read."
                )
        if self.early_stopping_patience is not None and not self.validation:
            raise UserError("early_stopping_patience needs validation data: set validation, or leave the patience out.")
        if isinstance(self.prune_encoder_layers, int) and self.prune_encoder_layers < 0:
            raise UserError(
                f"prune_encoder_layers={self.prune_encoder_layers}: give 0, how many of the last blocks go, or a list."
            )
        if self.normalizer is not None:
            get_normalizer(self.normalizer)  # a wrong name would show at the first evaluation only
        if self.push_to_hub is not None:
            try:
                validate_repo_id(self.push_to_hub)
            except HFValidationError as error:
                raise UserError(f"push_to_hub: {error} Give a name, or namespace/name.") from error
        if not self.output_dir:
            self.output_dir = f"runs/{self.name or 'slam-asr'}"

    @property
    def language(self) -> str | None:
        """The language of the data, when it is one and the same; None for several."""
        languages = {spec.language for role in DATA_ROLES for spec in getattr(self, role)}
        return languages.pop() if len(languages) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them; `Recipe` of it is this recipe again."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write the complete recipe, defaults included, as YAML."""
        return write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120))


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, with three conveniences.

    `train`, `validation` and `test` may each be one source or a list; `lora` may be true (the paper's) or false; a
    `language` at the top replaces that of every data set.
    """
    values = dict(values)
    language = values.pop("language", None)
    for role in DATA_ROLES:
        if isinstance(values.get(role), Mapping):
            values[role] = [values[role]]
        elif values.get(role, ...) is None:
            values[role] = []
    if language is not None:
        for role in DATA_ROLES:
            sources = values.get(role) or []
            values[role] = [{**one, "language": language} if isinstance(one, Mapping) else one for one in sources]
    if isinstance(values.get("lora"), bool):  # `lora=true` is the paper's LoRA
        values["lora"] = {} if values["lora"] else None
    return build(Recipe, values)


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or of that name among those that come with the project, with `key=value` overrides.

    A file may start from another with `base: other.yaml` (beside it, or one of the project's); mappings are merged.

    Raises:
        UserError: no such recipe, YAML that cannot be read, or a key or value that does not fit.
    """
    path = find_recipe(source)
    try:
        values = read_yaml(path)
        if "run" in values and "audio_model" not in values:
            raise UserError(f"it is a study: `slam-asr study {source}`. `slam-asr train` takes recipes of one run.")
        return from_dict(apply_overrides(values, overrides))
    except UserError as error:
        raise UserError(f"Recipe {path.name}: {error}") from error


def find_recipe(source: str | Path) -> Path:
    """The file that `source` names: a path, or a recipe of the project with or without `.yaml`."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    packaged = RECIPE_FOLDER / f"{path.name.removesuffix('.yaml')}.yaml"
    if len(path.parts) == 1 and packaged.is_file():
        return packaged
    names = sorted(item.stem for item in RECIPE_FOLDER.glob("*.yaml"))
    raise UserError(
        f"The recipe {str(source)!r} does not exist.{nearest(path.stem, names)} Recipes of the project: {', '.join(names)}."
    )


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, merged over that of its `base`."""
    if path in seen:
        raise UserError(f"base goes round in a circle: {' -> '.join(item.name for item in (*seen, path))}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys and values, such as `audio_model: openai/whisper-small`.")
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / str(base)
    return merge(read_yaml(beside if beside.is_file() else find_recipe(str(base)), (*seen, path)), values)


def changed_keys(saved: Path, recipe: Recipe) -> list[str]:
    """The top-level keys whose values in the saved recipe differ from those of `recipe`."""
    before = from_dict(read_yaml(saved)).to_dict()
    return [key for key, value in recipe.to_dict().items() if before.get(key) != value]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; mappings in both are merged in turn, anything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with each `key=value` set; keys are dotted, values are YAML. A key reaches into every element of a list.

    Raises:
        UserError: an override without `=`, or a path through something that is not a mapping.
    """
    result = copy.deepcopy(dict(values))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"The override {override!r} is not of the form key=value, such as max_steps=100.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"The value of the override {override!r} is not YAML: {error}") from error
        _assign(result, key.split("."), value, key)
    return result


def _assign(target: Any, path: list[str], value: Any, key: str) -> None:
    if isinstance(target, list):
        if path[0].isdigit() and int(path[0]) < len(target) and len(path) > 1:
            _assign(target[int(path[0])], path[1:], value, key)
        elif path[0].isdigit():
            raise UserError(f"The override {key!r} names element {path[0]} of a list of {len(target)}.")
        else:
            for element in target:
                _assign(element, path, value, key)
        return
    if isinstance(target, dict) and path[0].isdigit() and len(path) > 1:  # one source, where a list of them may stand
        if int(path[0]) > 0:
            raise UserError(f"The override {key!r} names element {path[0]} of what is one alone.")
        _assign(target, path[1:], value, key)
        return
    if not isinstance(target, dict):
        raise UserError(f"The override {key!r} goes through {target!r}, which has no keys.")
    if len(path) == 1:
        target[path[0]] = value
        return
    if target.get(path[0]) is None or target[path[0]] is True:  # absent, or a bare `lora: true`
        target[path[0]] = {}
    _assign(target[path[0]], path[1:], value, key)
