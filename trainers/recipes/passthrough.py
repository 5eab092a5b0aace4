"""`model:` and `trainer:` of a recipe: settings of the libraries' own classes, under the names that those give them.

What a recipe has a key of its own for moves to that key, so that each setting stands in one place.
"""

import copy
import dataclasses
import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trainers.errors import UserError
from trainers.recipes.checked_dataclasses import nearest

# The class's name of a setting -> the recipe's. `model.projector_*` are those of `projector` without being listed here.
_OWN_KEYS = {
    "model": {
        "audio_model_id": "audio_model",
        "audio_model_revision": "audio_revision",
        "text_model_id": "text_model",
        "text_model_revision": "text_revision",
        **{name: name for name in ("prune_encoder_layers", "lora", "pad_to_30s", "prompt", "dtype", "checkpoint_form")},
    },
    "lora": {"lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout"},
    "trainer": {
        "run_name": "name",
        "num_train_epochs": "num_epochs",
        "per_device_train_batch_size": "batch_size",
        "per_device_eval_batch_size": "eval_batch_size",
        "lr_scheduler_type": "schedule",
        "dataloader_num_workers": "num_workers",
        "activation_checkpointing": "gradient_checkpointing",
        **{
            name: name
            for name in (
                "output_dir", "seed", "max_steps", "gradient_accumulation_steps", "learning_rate", "weight_decay",
                "max_grad_norm", "bf16", "gradient_checkpointing", "eval_steps", "save_steps", "save_total_limit",
                "logging_steps", "report_to",
            )
        },
    },
}  # fmt: skip
# Settings that say the same as a key of the recipe in another way: with one, the key must be at its default.
INSTEAD_OF = {"warmup_steps": "warmup_fraction", "lr_scheduler_kwargs": "min_lr_fraction"}
_POWER_OF_TEN = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_FROM_BASES = ("audio_config", "text_config", "is_encoder_decoder")
_PARTS = ("self", "feature_extractor", "tokenizer", "args", "kwargs")
_SET_BY_THE_RUN = (
    "remove_unused_columns", "label_names", "do_train", "do_eval", "do_predict", "eval_strategy", "save_strategy",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "disable_tqdm", "logging_nan_inf_filter",
    "local_rank", "dataloader_drop_last", "data_seed", "length_column_name", "sortish_sampler", "ignore_data_skip",
    "prediction_loss_only", "include_for_metrics", "batch_eval_metrics", "eval_do_concat_batches", "save_only_model",
    "eval_accumulation_steps", "eval_use_gather_object", "use_cache",
)  # fmt: skip
# What a run decides itself, and what to use in its place.
_NOT_PASSED = {
    "push_to_hub": "use the recipe's push_to_hub",
    "hub_token": "a recipe is kept with the run and published; log in with `hf auth login`, or set HF_TOKEN",
    "hub_": "use the recipe's push_to_hub, or `slam-asr push`",
    "use_cpu": "use device: cpu",
    "fp16": "use bf16: float16 overflows in many language models",
    "fp16_": "use bf16: float16 overflows in many language models",
    "generation_": "use decoding",
    "predict_with_generate": "validation always generates",
    "resume_from_checkpoint": "use --resume",
    "deepspeed": "use `accelerate launch --config_file`",
    "fsdp": "use `accelerate launch --config_file`",
    "fsdp_": "use `accelerate launch --config_file`",
    "auto_find_batch_size": "use batch_seconds, and --dry-run for an estimate of the memory",
    "train_sampling_strategy": "use batch_seconds, which puts utterances of similar length together",
    "bf16_full_eval": "validation computes as training does: use dtype: bfloat16",
    "label_smoothing_factor": "the model computes its own loss",
    "neftune_noise_alpha": "the LLM's embeddings are frozen and in evaluation mode, where nothing is added to them",
    **dict.fromkeys(_SET_BY_THE_RUN, "the run sets it itself"),
}


def fold(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values in which the settings that it has own keys for have moved there.

    Raises:
        UserError: a setting is given both ways.
    """
    folded = copy.deepcopy(dict(values))
    for part, own in _OWN_KEYS.items():
        settings = folded.get(part)
        if not isinstance(settings, dict):
            continue
        for name in list(settings):
            target = own.get(name)
            if target is None and part == "model" and str(name).startswith("projector_"):
                target = f"projector.{name.removeprefix('projector_')}"
            if target is not None:
                _move(folded, f"{part}.{name}", settings.pop(name), target)
    return folded


def _move(values: dict[str, Any], name: str, value: Any, target: str) -> None:
    place, _, key = target.rpartition(".")
    where = values
    if place:
        if not isinstance(values.get(place), dict):
            values[place] = {}
        where = values[place]
    if where.get(key) is not None:
        raise UserError(f"{name} and {target} are one setting, given twice: keep {target}, and leave {name} out.")
    where[key] = value


@lru_cache(maxsize=1)
def projector_keys() -> tuple[str, ...]:
    """The configuration's `projector_*` fields, without that beginning."""
    from modeling_slam_asr import SlamAsrConfig

    return tuple(
        name.removeprefix("projector_") for name in SlamAsrConfig.field_names() if name.startswith("projector_")
    )


def projector_types() -> tuple[str, ...]:
    """What `projector.type` may be: the model package's projectors."""
    from modeling_slam_asr.projector_slam_asr import PROJECTORS

    return tuple(PROJECTORS)


@lru_cache(maxsize=1)
def lora_keys() -> tuple[str, ...]:
    """The arguments of `peft.LoraConfig`."""
    import peft

    return tuple(field.name for field in dataclasses.fields(peft.LoraConfig) if field.init)


def config_keys() -> list[str]:
    """What `model:` may hold for `SlamAsrConfig`."""
    from modeling_slam_asr import SlamAsrConfig

    own = _OWN_KEYS["model"]
    return [
        name
        for name in SlamAsrConfig.field_names()
        if name not in own and name not in _FROM_BASES and not name.startswith("projector_")
    ]


def processor_keys() -> list[str]:
    """What `model:` may hold for `SlamAsrProcessor`."""
    from modeling_slam_asr import SlamAsrProcessor

    names = inspect.signature(SlamAsrProcessor.__init__).parameters
    own = _OWN_KEYS["model"]
    return [name for name in names if name not in (*_PARTS, *own) and not name.startswith("projector_")]


def check_model(settings: Mapping[str, Any], projector: Mapping[str, Any]) -> None:
    """
    Args:
        settings: the recipe's `model`.
        projector: the projector's settings, as the configuration names them.
    Raises:
        UserError: a key that neither configuration nor processor has, or a value that is not possible.
    """
    from modeling_slam_asr import SlamAsrConfig

    known = sorted({*config_keys(), *processor_keys()})
    for name in settings:
        if name in _FROM_BASES:
            raise UserError(f"model.{name} comes from the base models: set audio_model and text_model.")
        if name not in known:
            hint = nearest(str(name), [*known, *_OWN_KEYS["model"]])
            raise UserError(f"Unknown key 'model.{name}'.{hint} Known keys here: {', '.join(known)}.")
    for name, mark in (("language_prompt", "{language}"), ("context_prompt", "{context}")):
        text = settings.get(name)
        if text is not None and (not isinstance(text, str) or mark not in text):
            raise UserError(f"model.{name} is {text!r}; it must be text with {mark} where that is put.")
    try:
        SlamAsrConfig(**{name: value for name, value in settings.items() if name in config_keys()}, **projector)
    except (ValueError, TypeError) as error:
        raise UserError(f"model or projector: {' '.join(str(error).split())}") from error


def with_numbers(value: Any) -> Any:
    """A setting, or a mapping or list of them, where text such as "1e-8", which YAML 1.1 takes for no number, is one."""
    if isinstance(value, dict):
        return {name: with_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [with_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and _POWER_OF_TEN.fullmatch(value) else value


def check_trainer(settings: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: `trainer:` holds a key that the trainer's arguments lack, or one that a run decides itself.
    """
    if not settings:
        return
    from transformers import Seq2SeqTrainingArguments

    fields = [field.name for field in dataclasses.fields(Seq2SeqTrainingArguments) if field.init]
    known = sorted(name for name in fields if not _instead(name))
    for name in settings:
        if name not in fields:
            raise UserError(
                f"Unknown key 'trainer.{name}'.{nearest(str(name), known)} Known keys are the arguments of "
                "transformers.Seq2SeqTrainingArguments."
            )
        if reason := _instead(name):
            raise UserError(f"trainer.{name} cannot be set: {reason}. Leave it out.")


def _instead(name: str) -> str | None:
    """What to use in place of an argument that a run decides itself; None when it may be set."""
    for known, reason in _NOT_PASSED.items():
        if name == known or (known.endswith("_") and name.startswith(known)):
            return reason
    return None
