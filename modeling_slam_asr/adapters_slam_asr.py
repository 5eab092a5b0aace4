"""LoRA on the LLM or the encoder, through PEFT."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import cached_file

from .checkpoint_slam_asr import refuse_non_finite, refuse_problems

try:
    import peft
except ImportError:  # models without LoRA, or with LoRA merged, need no PEFT
    peft = None

PREFIX = "base_model.model."
DEFAULT_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def is_adapter_tensor(name: str) -> bool:
    """Whether a parameter or module of this name belongs to LoRA."""
    return "lora_" in name


def lora_config(settings: Any) -> Any:
    """A `peft.LoraConfig` from one, or from its keyword arguments; the attention's four projections by default."""
    if peft is None:
        raise ImportError(
            "This model has LoRA weights of their own, which need PEFT: `pip install peft`. A merged model does not."
        )
    if not isinstance(settings, Mapping):
        return settings
    values = {name: value for name, value in settings.items() if name not in ("peft_type", "task_type")}
    return peft.LoraConfig(**values)


def add_lora(model: nn.Module, settings: Any) -> None:
    """Put LoRA layers into `model` (a `PreTrainedModel`), as adapter `default`."""
    config = lora_config(settings)
    if config.target_modules is None:
        config.target_modules = DEFAULT_TARGETS if _has(model, "o_proj") else None
    model.add_adapter(config, adapter_name="default")


def lora_parameters(model: nn.Module) -> int:
    """Number of LoRA parameters in `model`."""
    return sum(p.numel() for name, p in model.named_parameters() if is_adapter_tensor(name))


def save_lora(model: nn.Module, folder: Path, base: str | None, revision: str | None) -> None:
    """Write the adapter in PEFT's own format, so that PEFT alone can put it on the bare base model."""
    folder.mkdir(parents=True, exist_ok=True)
    state = peft.get_peft_model_state_dict(model, adapter_name="default")
    save_file(
        {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    settings = model.peft_config["default"].to_dict()
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    settings.update(base_model_name_or_path=base, revision=revision, inference_mode=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_lora(model: nn.Module, settings: Any, path: str | os.PathLike[str], folder: str, hub: dict[str, Any]) -> None:
    """
    Add the adapter saved under `path/folder` to `model`, strictly.

    Raises:
        ValueError: naming tensors that are missing, extra, of another shape, or not finite.
    """
    add_lora(model, settings)
    file = cached_file(
        path, "adapter_model.safetensors", **{**hub, "subfolder": os.path.join(hub.get("subfolder", ""), folder)}
    )
    with safe_open(file, framework="pt") as opened:
        tensors = {name.removeprefix(PREFIX): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    expected = peft.get_peft_model_state_dict(model, adapter_name="default")
    what = f"{os.fspath(path)} ({folder})"
    shapes = [
        f"{name} (checkpoint {tuple(tensors[name].shape)}, model {tuple(expected[name].shape)})"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    refuse_problems(what, expected.keys() - tensors.keys(), tensors.keys() - expected.keys(), shapes)
    for name, tensor in tensors.items():
        refuse_non_finite(what, name, tensor)
    peft.set_peft_model_state_dict(model, tensors, adapter_name="default")


def merged_language_model(model: nn.Module, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state_dict` of `model` with LoRA added into the base weights and the adapter's names gone; `model` stays as it is."""
    from peft.tuners.lora import LoraLayer

    merged = {
        name.replace(".base_layer.", "."): tensor for name, tensor in state_dict.items() if not is_adapter_tensor(name)
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            original = base.weight.detach().clone()
            module.merge()
            merged[f"{name}.weight"] = base.weight.detach().clone()
            module.merged_adapters.clear()
            base.weight.data.copy_(original)  # exact, where unmerging would leave rounding errors
    return merged


def _has(model: nn.Module, suffix: str) -> bool:
    return any(name.endswith(suffix) for name, _ in model.named_modules())
