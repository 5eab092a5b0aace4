"""A training run as a YAML file: read, checked against dataclasses, overridden on the command line, saved with the run."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trainers.credentials import refuse_credentials
from trainers.data.spec import NON_SPEECH, AugmentationSpec, DataSpec
from trainers.errors import UserError
from trainers.evaluation.normalizers import get_normalizer
from trainers.files import write_text
from trainers.recipes.checked_dataclasses import (
    CHOICES,
    LATER,
    REST,
    build,
    check_numbers,
    content,
    default_of,
    expand_home,
    plain,
)
from trainers.recipes.passthrough import (
    INSTEAD_OF,
    check_model,
    check_trainer,
    fold,
    lora_keys,
    projector_keys,
    projector_types,
    with_numbers,
)
from trainers.recipes.recipe_values import (
    DATA_ROLES,
    apply_overrides,
    find_recipe,
    paper_recipe,
    read_yaml,
)

Schedule = Literal["cosine_with_min_lr", "cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"]
TRANSCRIPT_FORMS = ("paper", "as_written")
# What a changed key makes another: the model, which a begun run cannot become; the result (said of no other key); the files
# that are written at the end; or nothing.
Effect = Literal["model", "result", "files", "nothing"]
_MODEL = {"effect": "model"}
_FILES = {"effect": "files"}
_NOTHING = {"effect": "nothing"}


@dataclass
class ProjectorSpec:
    """The projector; the defaults are the paper's. `X` is `projector_X` of `SlamAsrConfig`, those not listed here too."""

    type: str = field(default="concat_linear", metadata={CHOICES: projector_types})
    downsample_rate: int = 5
    hidden_size: int = 2048
    dropout: float = 0.1
    more: dict[str, Any] = field(default_factory=dict, metadata={REST: projector_keys})

    def __post_init__(self) -> None:
        check_numbers(self, "projector.", above_zero="downsample_rate hidden_size", fractions="dropout")

    def to_config(self) -> dict[str, Any]:
        """Keyword arguments of `SlamAsrConfig`."""
        return {f"projector_{name}": value for name, value in plain(self).items()}


@dataclass
class LoraSpec:
    """LoRA on the language model; the defaults are the paper's. Every other key is an argument of `peft.LoraConfig`."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.1
    target_modules: list[str] | str = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    use_dora: bool = False
    more: dict[str, Any] = field(default_factory=dict, metadata={REST: lora_keys})

    def __post_init__(self) -> None:
        check_numbers(self, "lora.", above_zero="r alpha", fractions="dropout")

    def to_peft(self) -> dict[str, Any]:
        """Keyword arguments of `peft.LoraConfig`."""
        names = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
        return {names.get(name, name): value for name, value in plain(self).items()}


@dataclass
class WarmStartSpec:
    """The CTC warm start of the projector, before the run (see `docs/ctc.md`); it needs `projector.ctc: true`.

    `epochs` is the most; `stop` ends it after so many epochs without a lower CTC loss on the validation data, None never.
    `dropout` is the projector's meanwhile, and a batch is `batch_size` utterances of like length. `max_hours` of training speech are used at the most, but all that a study has in its cache. `texts` names text files,
    one sentence a line, whose pieces the head is to know beside those of the transcripts.
    """

    epochs: float = 8.0
    stop: int | None = 2
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_hours: float | None = 20.0
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_numbers(
            self, "warm_start.", above_zero="epochs stop learning_rate batch_size max_hours", fractions="dropout"
        )


@dataclass
class DecodingSpec:
    """How transcripts are generated, in validation and in the test alike.

    `max_new_tokens` is the longest transcript; None: from each recording's length (`max_tokens_per_second` of the model). The paper's is 128.
    `ctc_weight` is what the CTC head has to say beside the LLM, from 0 to below 1 (joint decoding, see `docs/ctc.md`).
    """

    num_beams: int = 2
    max_new_tokens: int | None = None
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    ctc_weight: float = field(default=0.0, metadata={LATER: True})

    def __post_init__(self) -> None:
        check_numbers(self, "decoding.", above_zero="num_beams max_new_tokens repetition_penalty", shares="ctc_weight")


@dataclass
class Recipe:
    """Everything that defines a training run. Learning rates, batch and schedule default to the paper's.

    `batch_seconds` (seconds of audio) or `batch_tokens` (LLM positions) replace `batch_size`: batches of utterances of
    similar length, as many as fit, padding included. All three are per device and before gradient accumulation.
    `init_from` names a SLAM-ASR checkpoint whose projector training starts from, and whose LoRA, where both have one.
    `eval_steps` and `save_steps` count optimiser steps; without them both happen once an epoch.
    `model` holds any other key of `SlamAsrConfig` and `SlamAsrProcessor`, `trainer` any of `Seq2SeqTrainingArguments`.
    """

    audio_model: str = field(metadata=_MODEL)
    text_model: str = field(metadata=_MODEL)
    train: list[DataSpec]
    name: str = field(default="", metadata=_NOTHING)
    output_dir: str = field(default="", metadata=_NOTHING)
    seed: int = 42
    # model
    audio_revision: str | None = field(default=None, metadata=_MODEL)
    text_revision: str | None = field(default=None, metadata=_MODEL)
    prune_encoder_layers: int | list[int] = field(default=0, metadata=_MODEL)
    projector: ProjectorSpec = field(default_factory=ProjectorSpec, metadata=_MODEL)
    lora: LoraSpec | None = field(default=None, metadata=_MODEL)
    pad_to_30s: bool = field(default=False, metadata=_MODEL)
    prompt: str | None = field(default=None, metadata=_MODEL)
    model: dict[str, Any] = field(default_factory=dict, metadata={**_MODEL, LATER: True})
    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata=_MODEL)
    checkpoint_form: Literal["standalone", "adapter"] = field(default="standalone", metadata=_FILES)
    init_from: str | None = field(default=None, metadata=_MODEL)
    warm_start: WarmStartSpec | None = field(default=None, metadata={LATER: True})
    ctc_weight: float = field(default=0.0, metadata={LATER: True})
    # data
    validation: list[DataSpec] = field(default_factory=list)
    test: list[DataSpec] = field(default_factory=list)
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    max_bad_fraction: float = 0.01
    num_workers: int = field(default=0, metadata=_NOTHING)
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
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=_NOTHING)
    trainer: dict[str, Any] = field(default_factory=dict, metadata={LATER: True})
    # validation, checkpoints, reports
    eval_steps: int | None = None
    eval_batch_size: int = 8
    early_stopping_patience: int | None = None
    early_stopping_min_delta: float = 0.005
    decoding: DecodingSpec = field(default_factory=DecodingSpec)
    normalizer: str | None = None
    save_steps: int | None = field(default=None, metadata=_NOTHING)
    save_total_limit: int = field(default=2, metadata=_NOTHING)
    logging_steps: int = field(default=10, metadata=_NOTHING)
    report_to: list[str] = field(default_factory=list, metadata=_NOTHING)
    push_to_hub: str | None = field(default=None, metadata=_NOTHING)
    push_to_hub_private: bool = field(default=False, metadata=_NOTHING)

    def __post_init__(self) -> None:
        check_numbers(
            self,
            above_zero="max_steps batch_size batch_seconds batch_tokens gradient_accumulation_steps num_epochs learning_rate "
            "lora_learning_rate eval_steps eval_batch_size early_stopping_patience save_steps save_total_limit "
            "logging_steps",
            from_zero="seed num_workers weight_decay max_grad_norm early_stopping_min_delta",
            fractions="max_bad_fraction warmup_fraction min_lr_fraction ctc_weight",
        )
        expand_home(self, "audio_model text_model init_from output_dir")
        has_head = bool(self.projector.more.get("ctc"))
        if (self.warm_start is not None or self.ctc_weight or self.decoding.ctc_weight) and not has_head:
            raise UserError(
                "warm_start, ctc_weight and decoding.ctc_weight need the projector's CTC head: set projector.ctc to true, or leave them out."
            )
        if self.ctc_weight == 1 and self.lora is not None:
            raise UserError(
                "ctc_weight=1 trains by the CTC head alone, so the LLM is not run and its LoRA learns nothing: lower ctc_weight, "
                "or set lora to false."
            )
        if self.model or self.projector.more:
            check_model(self.model, self.projector.to_config())
        self.trainer = with_numbers(self.trainer)
        check_trainer(self.trainer)
        defaults = {one.name: default_of(one) for one in dataclasses.fields(self)}
        for argument, key in INSTEAD_OF.items():
            if argument in self.trainer and getattr(self, key) != defaults[key]:
                raise UserError(f"trainer.{argument} and {key} are both set: keep {key}, or leave it out.")
        if not self.train:
            raise UserError("train is empty: name at least one data set to train on.")
        self._refuse_what_was_trained_on()
        if self.batch_seconds is not None and self.batch_tokens is not None:
            raise UserError("batch_seconds and batch_tokens are both set: choose one way to fill a batch.")
        if any(spec.streaming for spec in self.train):
            self._refuse_what_a_stream_lacks()
        for role in ("validation", "test"):
            if any(spec.streaming for spec in getattr(self, role)):
                raise UserError(f"{role}.streaming is true, but only training data are streamed: leave it out.")
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
                raise UserError(f"push_to_hub: {error} Give namespace/name.") from error
            if "/" not in self.push_to_hub:
                raise UserError(
                    f"push_to_hub={self.push_to_hub!r} has no namespace. Give your user's or organisation's name too, as in me/{self.push_to_hub}."
                )
        elif self.push_to_hub_private:
            raise UserError("push_to_hub_private says how push_to_hub publishes: set push_to_hub too, or leave it out.")
        if not self.output_dir:
            self.output_dir = f"runs/{self.name or 'slam-asr'}"

    def _refuse_what_a_stream_lacks(self) -> None:
        """
        Raises:
            UserError: something needs the training set whole, or the lengths of its recordings; it names all that does.
        """
        problems = []
        if len(self.train) > 1:
            problems.append("it must be the only training set: list one source, and set non_speech to 0")
        if self.warm_start is not None:
            problems.append("warm_start needs the set whole: set it to null")
        for name in ("max_samples", "max_hours", "max_shards"):
            if (value := getattr(self.train[0], name)) is not None:
                problems.append(f"{name}={value} chooses among all recordings: leave it out, max_steps ends the run")
        if self.max_steps is None:
            problems.append("its length, and so its epochs, are not known: set max_steps")
        if self.batch_seconds or self.batch_tokens:
            problems.append("lengths are not known before they are read: set batch_size alone")
        if problems:
            raise UserError(f"train.streaming is true: {'; '.join(problems)}. Or set train.streaming to false.")

    def _refuse_what_was_trained_on(self) -> None:
        """
        Raises:
            UserError: validation or test names data that train names too: the split of all three is `train` where none is given.
        """
        for role in DATA_ROLES[1:]:
            sources: list[DataSpec] = getattr(self, role)
            for index, spec in enumerate(sources):
                if any(spec.may_share(trained) for trained in self.train):
                    key = role if len(sources) == 1 else f"{role}.{index}"
                    split = f", split {spec.split!r}" if spec.has_splits else ""
                    remedy = f"Set {key}.split (such as {key}.split={role})" if split else f"Set {key}.dataset"
                    raise UserError(
                        f"train and {role} both name {spec.dataset!r}{split}: figures of data that was trained on say nothing. "
                        f"{remedy}, or leave it out ({role}=[])."
                    )

    @property
    def loading_device(self) -> str | None:
        """`device` as what loads a model takes it: None where that is to choose."""
        return None if self.device == "auto" else self.device

    @property
    def begins_with_warm_start(self) -> bool:
        """Whether a run trains the projector by CTC first; with `init_from` it has one that listens already."""
        return self.warm_start is not None and self.init_from is None

    @property
    def language(self) -> str | None:
        """The language of the data, when it is one and the same; None for several."""
        languages = {spec.language for role in DATA_ROLES for spec in getattr(self, role)}
        return languages.pop() if len(languages) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them; `Recipe` of it is this recipe again."""
        return dict(plain(self))

    def outcome(self) -> dict[str, Any]:
        """Plain values of the keys that the run's figures depend on. Keys at defaults that came later are left out."""
        return content(self, leave=[key for key, effect in EFFECTS.items() if effect in ("files", "nothing")])

    def save(self, path: str | Path) -> Path:
        """Write the complete recipe, defaults included, as YAML; of the ways to fill a batch, the one in force."""
        values = self.to_dict()
        if self.batch_seconds is not None or self.batch_tokens is not None:
            del values["batch_size"]
        return write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


EFFECTS: dict[str, Effect] = {one.name: one.metadata.get("effect", "result") for one in dataclasses.fields(Recipe)}


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, with five conveniences.

    `train`, `validation` and `test` may each be one source or a list; `lora` may be true (the paper's) or false; a
    `language` at the top replaces that of every data set; `transcripts` at the top says whether case and punctuation are
    trained on (`as_written`) or not (`paper`), where a data set does not say so itself; `non_speech` at the top is a number of
    sounds without a word to train on beside the rest.
    """
    refuse_credentials(values)
    values = fold(values)
    sounds = values.pop("non_speech", None)
    language = values.pop("language", None)
    form = transcript_form(values.pop("transcripts", None))
    for role in DATA_ROLES:
        if isinstance(values.get(role), str):
            raise UserError(f"{role} is {values[role]!r}; it has keys of its own. Write {role}.dataset={values[role]}.")
        if isinstance(values.get(role), Mapping):
            values[role] = [values[role]]
        elif values.get(role, ...) is None:
            values[role] = []
    named = {} if language is None else {"language": language}
    for role in DATA_ROLES if form or named else ():
        sources = values.get(role) or []
        values[role] = [{**form, **one, **named} if isinstance(one, Mapping) else one for one in sources]
    if sounds:
        values["train"] = with_non_speech(values.get("train") or [], sounds)
    if isinstance(values.get("lora"), bool):  # `lora=true` is the paper's LoRA
        values["lora"] = {} if values["lora"] else None
    return build(Recipe, values, also=("language", "transcripts", "non_speech"))


def with_non_speech(train: list[Any], count: Any) -> list[Any]:
    """The training sources, and one of `count` sounds without a word in the language of the first.

    Raises:
        UserError: `count` is no number of sounds.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise UserError(f"non_speech is {count!r}; it must be a number of sounds, such as 200, or 0 for none.")
    first = train[0] if train and isinstance(train[0], Mapping) else {}
    return [*train, {"dataset": NON_SPEECH, "max_samples": count, "language": first.get("language")}]


def transcript_form(name: Any) -> dict[str, bool]:
    """A data set's keys for a form of the transcripts; none when no form is named.

    Raises:
        UserError: there is no such form.
    """
    if name is None:
        return {}
    if name not in TRANSCRIPT_FORMS:
        raise UserError(f"transcripts is {name!r}; it must be one of {', '.join(map(repr, TRANSCRIPT_FORMS))}.")
    return dict.fromkeys(("lowercase", "remove_punctuation"), name == "paper")


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or of that name among those that come with the project, with `key=value` overrides.

    A file may start from another with `base: other.yaml` (beside it, or one of the project's); mappings are merged.

    Raises:
        UserError: no such recipe, YAML that cannot be read, or a key or value that does not fit.
    """
    path = Path(source).expanduser()
    try:
        values = None if path.is_file() else paper_recipe(source)
        if values is None:
            path = find_recipe(source)
            values = read_yaml(path)
        if "run" in values and "audio_model" not in values:
            raise UserError(
                f"it is a study: `slam-asr study {source}` does all of its runs, `slam-asr train {source} --run NAME` one. "
                f"`slam-asr study {source} --plan` lists their names."
            )
        return from_dict(apply_overrides(values, overrides))
    except UserError as error:
        raise UserError(f"Recipe {path.name}: {error}") from error


def changed_keys(saved: Path, recipe: Recipe) -> list[str]:
    """The top-level keys whose values in the saved recipe differ from those of `recipe`."""
    before = from_dict(read_yaml(saved)).to_dict()
    return [key for key, value in recipe.to_dict().items() if before.get(key) != value]
