"""LoRA, DoRA and rsLoRA through PEFT: adding, merging, saving, and switching between adapters."""

import dataclasses
import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .checkpoint_slam_asr import check_tensors, hub_arguments, load_projector, open_tensors, repository_file
from .configuration_slam_asr import SHARED_FIELDS, SlamAsrConfig
from .projector_slam_asr import build_projector

try:
    import peft
    from peft import functional as peft_functional
except ImportError:  # models without LoRA, or with LoRA merged, need no PEFT
    peft = None  # type: ignore[assignment]

__all__ = [
    "ADAPTER_FILE", "LORA_FOLDERS", "PREFIX", "LoraMixin", "ParameterReport", "add_lora", "has_lora", "is_adapter_tensor", "merged_state",
    "read_lora", "refuse_unfit_targets", "set_lora",
]  # fmt: skip

PREFIX = "base_model.model."
ADAPTER_FILE = "adapter_model.safetensors"
# Attention's projections, by the names of most LLMs, of Whisper's encoder, and of Phi-3 and Phi-4.
DEFAULT_TARGETS = (["q_proj", "k_proj", "v_proj", "o_proj"], ["q_proj", "k_proj", "v_proj", "out_proj"], ["qkv_proj", "o_proj"])  # fmt: skip
# These need weights beside LoRA's matrices, which a checkpoint would not keep apart from the base model, or a merge would lose.
UNSUPPORTED = ("modules_to_save", "trainable_token_indices", "layer_replication", "megatron_config", "lora_bias")
# Settings that PEFT takes as regular expressions, or whose keys it takes so. Of a stranger's checkpoint one could run for ever.
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
_LONGEST_PATTERN, _MOST_REPETITIONS = 1_000, 3
# Other ways to initialise change the base weights.
INITIALISATIONS = (True, False, "gaussian", "orthogonal")


def is_adapter_tensor(name: str) -> bool:
    """Whether a parameter or module of this name belongs to LoRA."""
    return "lora_" in name


def belongs_to(name: str, adapter: str) -> bool:
    """Whether a parameter of this name belongs to the adapter of that name."""
    return is_adapter_tensor(name) and adapter in name.split(".")


def _may_take_for_ever(pattern: str) -> bool:
    """Whether a regular expression is long, repeats a group, or repeats more than a few times."""
    repetitions = re.findall(r"[*+{]", pattern)
    return (
        len(pattern) > _LONGEST_PATTERN or len(repetitions) > _MOST_REPETITIONS or bool(re.search(r"\)[*+{]", pattern))
    )


def lora_config(settings: Any) -> Any:
    """
    A `peft.LoraConfig` from one, or from its keyword arguments.

    Raises:
        ImportError: without PEFT.
        ValueError: for settings that LoRA does not have or that a checkpoint could not keep.
    """
    if peft is None:
        raise ImportError(
            "This model has LoRA weights of their own, which need PEFT: `pip install peft`. A merged model does not."
        )
    if isinstance(settings, Mapping):
        values = {name: value for name, value in settings.items() if name not in ("peft_type", "task_type")}
        known = [field.name for field in dataclasses.fields(peft.LoraConfig)]
        for name in values.keys() - set(known):
            nearest = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}.get(name) or next(
                iter(difflib.get_close_matches(name, known, n=1)), None
            )
            hint = f" Did you mean {nearest!r}?" if nearest else " They are the arguments of peft.LoraConfig."
            raise ValueError(f"Unknown LoRA setting {name!r}.{hint}")
        settings = peft.LoraConfig(**values)
    for name in UNSUPPORTED:
        if getattr(settings, name, None):
            raise ValueError(f"The LoRA setting {name} is not supported: it needs weights beside LoRA's. Leave it out.")
    for name in _PATTERNS:
        value = getattr(settings, name, None) or ()
        slow = [
            pattern for pattern in ([value] if isinstance(value, str) else value) if _may_take_for_ever(str(pattern))
        ]
        if slow:
            raise ValueError(
                f"The LoRA setting {name} holds {str(slow[0])[:80]!r}, a pattern that could take for ever. Name the modules in a list, "
                f"or use at most {_MOST_REPETITIONS} repetitions (*, +, {{}}), and none of a group."
            )
    if settings.bias != "none":
        raise ValueError(
            f"The LoRA setting bias={settings.bias!r} is not supported: base weights stay frozen. Use 'none'."
        )
    if settings.init_lora_weights not in INITIALISATIONS:
        raise ValueError(
            f"init_lora_weights={settings.init_lora_weights!r} changes the base weights, which stay as they are here. "
            f"Choose one of {INITIALISATIONS}."
        )
    return settings


def lora_settings(model: Any, adapter: str = "default") -> dict[str, Any]:
    """The settings of an adapter that differ from `peft.LoraConfig`'s defaults, as JSON holds them."""
    defaults = peft.LoraConfig().to_dict()
    leave = ("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
             "auto_mapping")  # fmt: skip
    settings = model.peft_config[adapter].to_dict()
    changed = {name: value for name, value in settings.items() if value != defaults.get(name) and name not in leave}
    return {"r": settings["r"], "lora_alpha": settings["lora_alpha"], **_for_json(changed)}


def add_lora(model: PreTrainedModel, settings: Any, adapter: str = "default", *, empty: bool = False) -> None:
    """
    Put LoRA layers into `model` and make them active.

    Args:
        settings: `peft.LoraConfig` or its keyword arguments. Without `target_modules` the attention's projections get LoRA.
        empty: on the meta device, for [`set_lora`]: settings with sizes that the file does not have then take no memory.
    """
    config = lora_config(settings)
    if config.target_modules is None:
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        config.target_modules = next((list(targets) for targets in DEFAULT_TARGETS if names >= set(targets)), None)
    # PEFT's own way: transformers' `add_adapter` asks for the newest PEFT, which this does not need.
    peft_functional.inject_adapter_in_model(config, model, adapter, low_cpu_mem_usage=empty)
    peft_functional.set_adapter(model, adapter)


def refuse_unfit_targets(model: PreTrainedModel, settings: Any) -> None:
    """A ValueError where `target_modules` of LoRA to be trained lists a layer that is not there (PEFT asks for one of them only) or is tied."""
    targets = lora_config(settings).target_modules
    names = dict(model.named_modules())
    listed = () if targets is None or isinstance(targets, str) else targets
    missing = sorted(t for t in listed if not any(name == t or name.endswith(f".{t}") for name in names))
    if missing:
        linear = {
            name.removesuffix(".base_layer").rpartition(".")[2]
            for name, module in names.items()
            if isinstance(module, nn.Linear | Conv1D) and not is_adapter_tensor(name)
        }
        raise ValueError(
            f"The LoRA setting target_modules names {', '.join(map(repr, missing))}, and {type(model).__name__} has no such layer. "
            f"Its linear layers: {', '.join(sorted(linear - {'lm_head'}))}. Name some of these, or set target_modules to 'all-linear'."
        )
    with_weight = {n.removesuffix(".base_layer"): p for n, p in names.items() if getattr(p, "weight", None) is not None}
    shared = Counter(id(part.weight) for part in with_weight.values())  # each layer once, though LoRA is on it
    tied = {name.rpartition(".")[2] for name, part in with_weight.items() if shared[id(part.weight)] > 1}
    if both := sorted(tied & {target.rpartition(".")[2] for target in listed}):
        raise ValueError(
            f"The LoRA setting target_modules names {both[0]!r}, whose weight is another layer's too: merging changes both. Leave it out."
        )


def is_lora_layer(module: nn.Module) -> bool:
    """Whether a module is one of PEFT's, which holds a base layer and LoRA."""
    return peft is not None and isinstance(module, peft.tuners.lora.LoraLayer)


def has_lora(model: PreTrainedModel) -> bool:
    """Whether `model` has adapters."""
    return bool(getattr(model, "peft_config", None))


def lora_parameters(model: nn.Module) -> int:
    """Number of LoRA parameters in `model`."""
    return sum(p.numel() for name, p in model.named_parameters() if is_adapter_tensor(name))


def save_lora(model: Any, folder: Path, base: str | None, revision: str | None) -> None:
    """Write the adapter in PEFT's own format, so that PEFT alone can put it on the bare base model."""
    folder.mkdir(parents=True, exist_ok=True)
    state = peft.get_peft_model_state_dict(model, adapter_name="default")
    save_file(
        {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / ADAPTER_FILE,
        metadata={"format": "pt"},
    )
    settings = model.peft_config["default"].to_dict()
    settings.update(base_model_name_or_path=base, revision=revision, inference_mode=True, auto_mapping=None)
    text = json.dumps(_for_json(settings), indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def read_lora(path: str | os.PathLike[str], folder: str, hub: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of the adapter saved under `path/folder`, without PEFT's prefix."""
    subfolder = os.path.join(hub.get("subfolder", ""), folder)
    file = repository_file(path, ADAPTER_FILE, **{**hub, "subfolder": subfolder})
    if file is None:
        raise ValueError(
            f"The checkpoint of {os.fspath(path)} is incomplete: its configuration names LoRA weights but there is no "
            f"{folder}/{ADAPTER_FILE}. Download or save it again."
        )
    with open_tensors(file) as opened:
        return {name.removeprefix(PREFIX): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def set_lora(model: PreTrainedModel, tensors: dict[str, torch.Tensor], what: str, adapter: str = "default") -> None:
    """
    Give the adapter, which `model` has already, exactly these tensors (named as in PEFT's files, without its prefix).

    Raises:
        ValueError: naming tensors that are missing, extra, of another shape, or not finite.
    """
    expected = peft.get_peft_model_state_dict(model, adapter_name=adapter)
    check_tensors(what, tensors, expected)
    empty = any(tensor.is_meta for tensor in expected.values())
    if empty:
        tensors = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    peft.set_peft_model_state_dict(model, tensors, adapter_name=adapter, low_cpu_mem_usage=empty)


def merged_state(model: PreTrainedModel, state_dict: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """
    `state_dict` with the active LoRA of `model` added into the base weights and the adapter's own tensors gone.

    `model`, whose names begin with `prefix` there, stays as it is to the last bit.
    """
    merged = {
        name.replace(".base_layer.", ".") if name.startswith(prefix) else name: tensor
        for name, tensor in state_dict.items()
        if not (name.startswith(prefix) and is_adapter_tensor(name))
    }
    for name, layer in _lora_layers(model):
        base = layer.get_base_layer()
        original = base.weight.detach().clone()
        layer.merge(safe_merge=True)
        merged[f"{prefix}{name}.weight"] = base.weight.detach().clone()
        layer.merged_adapters.clear()
        base.weight.data.copy_(original)  # exact, where unmerging would leave rounding errors
    return merged


def remove_lora(model: PreTrainedModel, merge: bool) -> None:
    """Take all adapters out of `model`, adding the active one into the base weights first if `merge`."""
    for name, layer in list(_lora_layers(model)):
        if merge:
            layer.merge(safe_merge=True)
            layer.merged_adapters.clear()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if is_lora_layer(module):
            yield name, module


def _for_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Names of modules, which PEFT holds as sets, in a fixed order."""
    names = ("target_modules", "exclude_modules")
    return {
        name: sorted(value) if isinstance(value, set) or (name in names and isinstance(value, list)) else value
        for name, value in settings.items()
    }


LORA_FOLDERS = {"language_model": "language_model_lora", "audio_encoder": "audio_encoder_lora"}
LORA_FIELDS = {"language_model": "lora", "audio_encoder": "encoder_lora"}


class PaperSaving(TypedDict):
    """Encoder and projector, with LoRA; the LLM is left out: the savings in arXiv 2603.27981 (7-14 %) agree with this."""

    total: int
    unpruned: int
    saving: float


class ParameterReport(TypedDict):
    """Numbers of parameters, and the saving as a fraction of those of the unpruned model."""

    encoder: int
    encoder_unpruned: int
    projector: int
    language_model: int
    lora: int
    encoder_lora: int
    total: int
    total_unpruned: int
    saving: float
    trainable: int
    paper: PaperSaving


class LoraMixin:
    """For [`SlamAsrForConditionalGeneration`]. An adapter is a projector with its LoRA; the model's own is `default`."""

    config: SlamAsrConfig
    audio_encoder: Any
    projector: nn.Module
    language_model: Any
    parameters: Any  # of `nn.Module`

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
        Raises:
            ValueError: it has LoRA already, or lacks a layer that `target_modules` lists.
        """
        for part, settings in (("language_model", lora), ("audio_encoder", encoder_lora)):
            if settings is not None:
                if getattr(self.config, LORA_FIELDS[part]) is not None:
                    raise ValueError(f"The {part} has LoRA already. Merge it or unload it first.")
                refuse_unfit_targets(getattr(self, part), settings)
                add_lora(getattr(self, part), settings)
                setattr(self.config, LORA_FIELDS[part], lora_settings(getattr(self, part)))
        self.freeze()

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refused: transformers' own would freeze the projector, and save LoRA without it."""
        raise ValueError("add_adapter would train and save LoRA without the projector. Use `add_lora(lora_config)`.")

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

    def parameter_report(self) -> ParameterReport:
        """Parameter counts of each part, and against the unpruned model."""
        lora = lora_parameters(self.language_model)
        encoder_lora = lora_parameters(self.audio_encoder)
        encoder = sum(p.numel() for p in self.audio_encoder.parameters()) - encoder_lora
        block = sum(
            p.numel() for name, p in self.audio_encoder.layers[0].named_parameters() if not is_adapter_tensor(name)
        )
        pruned = self.config.audio_config.encoder_layers - len(self.config.kept_encoder_layers)
        projector = sum(p.numel() for p in self.projector.parameters())
        language_model = sum(p.numel() for p in self.language_model.parameters()) - lora
        total = encoder + projector + language_model + lora + encoder_lora
        trained = encoder + projector + lora + encoder_lora
        unpruned = encoder + block * pruned + projector
        return {
            "encoder": encoder,
            "encoder_unpruned": encoder + block * pruned,
            "projector": projector,
            "language_model": language_model,
            "lora": lora,
            "encoder_lora": encoder_lora,
            "total": total,
            "total_unpruned": unpruned + language_model,
            "saving": 1 - total / (unpruned + language_model),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "paper": {"total": trained, "unpruned": unpruned, "saving": 1 - trained / unpruned},
        }

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
        with torch.device("meta"):
            projector = build_projector(config)
        load_projector(projector, path, hub, weight.dtype, weight.device)
        for part, field in LORA_FIELDS.items():
            settings = getattr(config, field)
            if settings is not None:
                model = getattr(self, part)
                tensors = read_lora(path, LORA_FOLDERS[part], hub)
                add_lora(model, settings, adapter_name, empty=True)
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
            if not has_lora(model):
                continue
            for _, layer in _lora_layers(model):
                layer.enable_adapters(adapter_name in model.peft_config)
            if adapter_name in model.peft_config:
                peft_functional.set_adapter(model, adapter_name)
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
            if is_adapter_tensor(name) and not (keep and belongs_to(name, "default")):
                continue
            name = name if keep else name.replace(".base_layer.", ".")
        output[name] = tensor
    return output


def checkpoint_frozen(block: Any, mode: bool) -> None:
    """
    Let a frozen block be checkpointed without its dropout.

    Gradient checkpointing asks the block itself whether it is in training mode, and so do those dropouts that are no
    modules of their own, as in Whisper and OPT. The block's mode is therefore training outside the checkpoint only.
    """
    block.training = mode
    if not isinstance(block._gradient_checkpointing_func, _EvalCheckpoint):
        block._gradient_checkpointing_func = _EvalCheckpoint(block, block._gradient_checkpointing_func)


@dataclass
class _EvalCheckpoint:
    """`checkpoint` with `block` in evaluation mode in both the first and the repeated forward pass."""

    block: nn.Module
    checkpoint: Any

    def __call__(self, function: Any, *args: Any) -> Any:
        def in_eval(*inputs: Any) -> Any:
            self.block.training = False
            try:
                return function(*inputs)
            finally:
                self.block.training = True

        return self.checkpoint(in_eval, *args)
