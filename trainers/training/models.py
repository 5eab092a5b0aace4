"""The model and processor that a recipe describes."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import set_seed

from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.checkpoint_slam_asr import checkpoint_files, load_strictly, open_tensors, repository_file
from modeling_slam_asr.lora_slam_asr import ADAPTER_FILE, LORA_FOLDERS, has_lora, is_adapter_tensor, read_lora, set_lora
from trainers.embedded.base_models import base_model
from trainers.errors import UserError
from trainers.files import is_local_name
from trainers.recipe import DecodingSpec, Recipe
from trainers.recipes.passthrough import config_keys
from trainers.recipes.safe_yaml import load_yaml

# Settings of LoRA without which the same weights are another model.
_LORA_SETTINGS = (
    "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "layers_to_transform", "rank_pattern", "alpha_pattern"
)  # fmt: skip
logger = logging.getLogger(__name__)


def build_model(recipe: Recipe) -> SlamAsrForConditionalGeneration:
    """The recipe's model with a fresh projector and LoRA, seeded, or those of `init_from`.

    Base parts are frozen; trainable parts are in float32.
    """
    set_seed(recipe.seed)
    with reading_base_models(recipe):
        model = SlamAsrForConditionalGeneration.from_base_models(
            base_model(recipe.audio_model),
            base_model(recipe.text_model),
            prune_encoder_layers=recipe.prune_encoder_layers,
            dtype=getattr(torch, recipe.dtype),
            audio_revision=recipe.audio_revision,
            text_revision=recipe.text_revision,
            **config_settings(recipe),
        )
    for parameter in model.parameters():
        if parameter.requires_grad:  # AdamW's small steps vanish in bfloat16 weights
            parameter.data = parameter.data.float()
    if recipe.init_from is not None:
        start_from(model, recipe.init_from)
    set_decoding(model, recipe.decoding)
    return model


def start_from(model: SlamAsrForConditionalGeneration, checkpoint: str) -> None:
    """
    Copy the projector of a SLAM-ASR checkpoint into `model`, and its LoRA where both have one.

    Args:
        checkpoint: a folder or Hub name, of either form. Its encoder and LLM are not read: `model` keeps its own.
    Raises:
        UserError: it is no such checkpoint, its projector or LoRA does not fit, or its LoRA has other settings.
    """
    lora_folder = LORA_FOLDERS["language_model"]
    try:
        projector, lora = {}, {}
        for path in checkpoint_files(checkpoint):
            with open_tensors(path) as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if name.startswith("projector."):
                        projector[name] = file.get_tensor(name).float()
                    elif name.startswith("language_model.") and is_adapter_tensor(name):
                        own = name.removeprefix("language_model.").replace(".default.", ".")
                        own = own.replace("magnitude_vector.weight", "magnitude_vector")  # PEFT's name in DoRA
                        lora[own] = file.get_tensor(name).float()
        if repository_file(checkpoint, ADAPTER_FILE, subfolder=lora_folder) is not None:
            lora = {name: tensor.float() for name, tensor in read_lora(checkpoint, lora_folder, {}).items()}
        load_strictly(model.projector, projector, checkpoint, prefix="projector.")
        if not lora and _lora_is_merged(checkpoint):
            logger.warning(
                "The LoRA of %s is merged into its LLM, which is not read: training starts from its projector alone.", checkpoint
            )  # fmt: skip
        if lora and has_lora(model.language_model):
            _refuse_other_lora(SlamAsrConfig.from_pretrained(checkpoint).lora or {}, model.config.lora or {})
            set_lora(model.language_model, lora, f"{checkpoint} (LoRA)")
    except (OSError, ValueError) as error:
        raise UserError(
            f"init_from={checkpoint!r} cannot be started from: {' '.join(str(error).split())} It must be a SLAM-ASR checkpoint "
            "whose projector and LoRA have the recipe's settings."
        ) from error


def _refuse_other_lora(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """A ValueError where the settings of a checkpoint's LoRA and of the run's make other models of the same weights."""
    for name in _LORA_SETTINGS:
        their, our = (_plain_setting(settings.get(name)) for settings in (theirs, ours))
        if their != our:
            raise ValueError(f"Its LoRA has {name}={their!r}, the recipe's has {name}={our!r}.")


def _plain_setting(value: Any) -> Any:
    """A setting of LoRA with one form for all that is not set, and for names in any order."""
    return (sorted(value, key=str) if isinstance(value, list | tuple | set) else value) or None


def _lora_is_merged(checkpoint: str) -> bool:
    """Whether a checkpoint without LoRA of its own was trained with it, by what is kept beside its weights."""
    for name in ("publication.json", "recipe.yaml"):
        path = repository_file(checkpoint, name)
        try:
            kept = load_yaml(Path(path).read_text(encoding="utf-8")) if path is not None else None
        except (yaml.YAMLError, UnicodeError):
            continue  # it tells nothing
        if isinstance(kept, dict) and kept.get("lora"):
            return True
    return False


def build_processor(recipe: Recipe) -> SlamAsrProcessor:
    """The processor that belongs to the recipe's model."""
    with reading_base_models(recipe):
        return SlamAsrProcessor.from_base_models(
            base_model(recipe.audio_model),
            base_model(recipe.text_model),
            audio_revision=recipe.audio_revision,
            text_revision=recipe.text_revision,
            **processor_settings(recipe),
        )


def config_settings(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `SlamAsrConfig` that the recipe gives, beside the base models and which blocks are pruned."""
    return {
        **_shared_settings(recipe),
        **{name: value for name, value in recipe.model.items() if name in config_keys()},
        "lora": recipe.lora.to_peft() if recipe.lora is not None else None,
    }


def processor_settings(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `SlamAsrProcessor` that the recipe gives."""
    names = inspect.signature(SlamAsrProcessor.__init__).parameters
    return {name: value for name, value in {**_shared_settings(recipe), **recipe.model}.items() if name in names}


def _shared_settings(recipe: Recipe) -> dict[str, Any]:
    prompt = {} if recipe.prompt is None else {"prompt": recipe.prompt}
    return {**recipe.projector.to_config(), "pad_to_30s": recipe.pad_to_30s, **prompt}


@contextmanager
def reading_base_models(recipe: Recipe) -> Iterator[None]:
    """Turns the library's errors about models that cannot be found or downloaded into one that names the recipe's keys."""
    try:
        yield
    except OSError as error:
        gone = [
            name for name in (recipe.audio_model, recipe.text_model) if is_local_name(name) and not Path(name).is_dir()
        ]
        why = f"There is no folder {gone[0]!r}." if gone else " ".join(str(error).split())
        raise UserError(
            f"A base model cannot be read (audio_model={recipe.audio_model!r}, text_model={recipe.text_model!r}): {why}"
        ) from error


def set_decoding(model: SlamAsrForConditionalGeneration, decoding: DecodingSpec) -> None:
    """Make the recipe's decoder the model's own, so that validation, test and every later use decode alike."""
    config: Any = model.generation_config
    config.num_beams = decoding.num_beams
    config.max_new_tokens = decoding.max_new_tokens
    config.repetition_penalty = decoding.repetition_penalty
    if decoding.num_beams > 1:
        config.length_penalty = decoding.length_penalty
    if decoding.ctc_weight:
        config.ctc_weight = decoding.ctc_weight
