"""A model's LoRA: adding, merging, taking away, and switching between adapters that share the base models."""

import os
from typing import Any

from torch import nn

from .adapters_slam_asr import (
    add_lora,
    belongs_to,
    has_lora,
    lora_settings,
    read_lora,
    remove_lora,
    set_lora,
)
from .checkpoint_slam_asr import hub_arguments
from .configuration_slam_asr import SlamAsrConfig
from .projector_slam_asr import build_projector, load_projector

LORA_FOLDERS = {"language_model": "language_model_lora", "audio_encoder": "audio_encoder_lora"}
LORA_FIELDS = {"language_model": "lora", "audio_encoder": "encoder_lora"}
# Two checkpoints that agree in these share encoder, LLM and processor.
SHARED_FIELDS = (
    "audio_model_id", "audio_model_revision", "text_model_id", "text_model_revision", "kept_encoder_layers",
    "projector_type", "projector_downsample_rate", "projector_num_queries", "pad_to_30s", "prompt", "use_chat_template",
)  # fmt: skip


class LoraMixin:
    """For [`SlamAsrForConditionalGeneration`]. An adapter is a projector with its LoRA; the model's own is `default`."""

    config: SlamAsrConfig
    audio_encoder: Any
    projector: nn.Module
    language_model: Any

    active_adapter = "default"

    def freeze(self) -> None:
        """Train the projector and the active LoRA only."""
        for part in LORA_FOLDERS:
            for name, parameter in getattr(self, part).named_parameters():
                parameter.requires_grad_(belongs_to(name, self.active_adapter) and parameter.is_floating_point())

    def add_lora(self, lora: Any = None, encoder_lora: Any = None) -> None:
        """
        Put LoRA on the LLM or the encoder, to be trained.

        Args:
            lora, encoder_lora: `peft.LoraConfig` or its keyword arguments as a dict; None adds nothing.
        """
        for part, settings in (("language_model", lora), ("audio_encoder", encoder_lora)):
            if settings is not None:
                if getattr(self.config, LORA_FIELDS[part]) is not None:
                    raise ValueError(f"The {part} has LoRA already. Merge it or unload it first.")
                add_lora(getattr(self, part), settings)
                setattr(self.config, LORA_FIELDS[part], lora_settings(getattr(self, part)))
        self.freeze()

    def merge_lora(self) -> None:
        """Add the active adapter's LoRA into the base weights, in place. The model then needs no PEFT."""
        self._remove_lora(merge=True)

    def unload_lora(self) -> None:
        """Take LoRA away without merging it, in place: LLM and encoder compute as the base models do."""
        self._remove_lora(merge=False)

    def has_quantized_llm(self) -> bool:
        """Whether the LLM's weights are quantized."""
        return bool(getattr(self.language_model, "is_quantized", False))

    def _remove_lora(self, merge: bool) -> None:
        if merge and self.has_quantized_llm():
            raise ValueError(
                "LoRA cannot be added into quantized weights without loss. Load the checkpoint without quantization_config, "
                "merge it there, and quantize the merged checkpoint."
            )
        for part, field in LORA_FIELDS.items():
            if has_lora(getattr(self, part)):
                remove_lora(getattr(self, part), merge)
            setattr(self.config, field, None)
        self.active_adapter = "default"
        self._projectors = {"default": self.projector}
        self.freeze()

    def load_adapter(  # type: ignore[override]  # transformers' own loads LoRA without the projector
        self, path: str | os.PathLike[str], adapter_name: str, **kwargs: Any
    ) -> None:
        """
        Load another adapter-form checkpoint of the same base models, for [`set_adapter`]: its projector and its LoRA.

        Args:
            path: folder or Hub repository.
            adapter_name: a name for it, without dots.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`.
        Raises:
            ValueError: when it was made for other base models or settings, or its tensors do not fit.
        """
        if adapter_name in self._adapters() or not adapter_name or "." in adapter_name:
            raise ValueError(f"An adapter cannot be named {adapter_name!r}. Choose a new name without dots.")
        hub = hub_arguments(kwargs)
        config = SlamAsrConfig.from_pretrained(path, **hub)
        if config.checkpoint_form != "adapter":
            raise ValueError(f"{os.fspath(path)!r} is a standalone checkpoint. Save it with checkpoint_form='adapter'.")
        for name in SHARED_FIELDS:
            if getattr(config, name) != getattr(self.config, name):
                raise ValueError(
                    f"{os.fspath(path)!r} does not fit this model: its {name} is {getattr(config, name)!r}, not "
                    f"{getattr(self.config, name)!r}. Adapters of one model share base models and settings."
                )
        weight = next(self.projector.parameters())
        projector = build_projector(config).to(weight)
        load_projector(projector, path, hub)
        for part, field in LORA_FIELDS.items():
            settings = getattr(config, field)
            if settings is not None:
                model = getattr(self, part)
                tensors = read_lora(path, LORA_FOLDERS[part], hub)
                add_lora(model, settings, adapter_name)
                set_lora(model, tensors, f"{os.fspath(path)} ({LORA_FOLDERS[part]})", adapter_name)
        self._adapters()[adapter_name] = projector.eval()
        self.set_adapter(self.active_adapter)

    def set_adapter(self, adapter_name: str) -> None:  # type: ignore[override]
        """Compute with the adapter of that name, its projector and its LoRA, from now on."""
        adapters = self._adapters()
        if adapter_name not in adapters:
            raise ValueError(f"There is no adapter {adapter_name!r}; loaded are {', '.join(adapters)}.")
        place, training = next(self.projector.parameters()), self.projector.training
        self.projector = adapters[adapter_name].to(place).train(training)
        for part in LORA_FOLDERS:
            model = getattr(self, part)
            if has_lora(model) and adapter_name in model.peft_config:
                model.enable_adapters()
                model.set_adapter(adapter_name)
            elif has_lora(model):
                model.disable_adapters()
        self.active_adapter = adapter_name
        self.freeze()

    def _adapters(self) -> dict[str, nn.Module]:
        """Projectors by the name of their adapter. A plain dict: those not in use are no part of the state dict."""
        if "_projectors" not in self.__dict__:
            self._projectors = {"default": self.projector}
        return self._projectors


def without_other_adapters(model: Any, prefix: str, state: dict[str, Any], keep: bool) -> dict[str, Any]:
    """
    `state` without the tensors of adapters other than `default`, and of that too unless `keep`.

    Without `keep`, base weights get back the names that they have in a model without LoRA.
    """
    if not has_lora(model):
        return state
    output = {}
    for name, tensor in state.items():
        if name.startswith(prefix):
            if "lora_" in name and not (keep and belongs_to(name, "default")):
                continue
            name = name if keep else name.replace(".base_layer.", ".")
        output[name] = tensor
    return output
