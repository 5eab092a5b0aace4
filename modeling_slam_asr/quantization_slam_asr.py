"""Quantizing the LLM of a standalone checkpoint, and nothing else of it, as it is loaded."""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .configuration_slam_asr import SlamAsrConfig


def for_llm_only(quantization_config: Any, config: SlamAsrConfig) -> Any:
    """
    The quantization configuration with encoder, projector and LoRA left out of it.

    What it leaves out itself is a part of the LLM: where it names nothing, the layer that gives the logits, as when the
    LLM comes from its own repository.
    """
    quantization_config = copy.deepcopy(quantization_config)
    for name in ("llm_int8_skip_modules", "modules_to_not_convert"):
        if hasattr(quantization_config, name):
            skipped = getattr(quantization_config, name) or [_output_layer(config)]
            ours = ["audio_encoder", "projector", r".*\.lora_[AB]\.default"]
            setattr(quantization_config, name, [*skipped, *(f"language_model.{skip}" for skip in skipped), *ours])
    return quantization_config


def _output_layer(config: SlamAsrConfig) -> str:
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(config.text_config)
    head = language_model.get_output_embeddings()
    return next(name for name, module in language_model.named_modules() if module is head)


def hand_quantizer_to_llm(model: Any) -> None:
    """Mark the LLM as quantized in place of the whole, as when it comes from its own repository: only it is."""
    marks = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit",
             "is_4bit_serializable", "is_8bit_serializable")  # fmt: skip
    for owner, receiver, names in (
        (model, model.language_model, marks),
        (model.config, model.language_model.config, ("quantization_config",)),
    ):
        for name in names:
            if name in vars(owner):
                setattr(receiver, name, vars(owner).pop(name))
