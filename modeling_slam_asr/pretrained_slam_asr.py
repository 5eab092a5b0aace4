"""Making a SLAM-ASR model from its base models, and saving and loading its two checkpoint forms."""

import copy
import difflib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from .checkpoint_slam_asr import (
    HUB_ARGUMENTS,
    MOST_PACKED,
    checkpoint_files,
    for_llm_only,
    hand_quantizer_to_llm,
    hub_arguments,
    load_projector,
    load_strictly,
    of_one_commit,
    read_encoder,
    read_pruned,
    refuse_non_finite,
    refuse_non_finite_files,
    refuse_problems,
    renumbered,
    repository_file,
    stored_numbers,
)
from .configuration_slam_asr import CHECKPOINT_FORMS, SlamAsrConfig, base_config, unknown_key
from .encoder_slam_asr import SlamAsrEncoder
from .generation_slam_asr import multiply_once, quieten, refuse_unfit, stored_generation_config, transcription_defaults
from .lora_slam_asr import (
    LORA_FIELDS,
    LORA_FOLDERS,
    LoraMixin,
    add_lora,
    merged_state,
    read_lora,
    save_lora,
    set_lora,
    without_other_adapters,
)
from .projector_slam_asr import build_projector

if TYPE_CHECKING:
    # transformers keeps beside a checkpoint's model code the files that are named here. A model that was loaded with
    # them can then be saved with all of its code.
    from .pipeline_slam_asr import SlamAsrPipeline  # noqa: F401
    from .processing_slam_asr import SlamAsrProcessor  # noqa: F401

__all__ = ["SavingMixin", "SlamAsrPreTrainedModel"]


class SavingMixin(LoraMixin):
    """For [`SlamAsrForConditionalGeneration`]; stands before `PreTrainedModel`, whose `save_pretrained` writes the files."""

    config: SlamAsrConfig
    state_dict: Any  # of `nn.Module`
    resized_vocabulary: bool = False  # the LLM's embeddings are no longer those of its repository

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        *,
        checkpoint_form: str = "standalone",
        merge_lora: bool = False,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Save weights as safetensors, the configuration, the generation configuration and the code that loads them.

        Args:
            checkpoint_form: `"standalone"`: every weight; `"adapter"`: projector and LoRA, and loading fetches the bases (`audio_model_id`).
            merge_lora: in the standalone form, add LoRA into the weights that are saved: loading then needs no PEFT.
            kwargs: those of `PreTrainedModel.save_pretrained`, such as `max_shard_size`.
        Raises:
            ValueError: for a form that this model cannot be saved in.
        """
        self._check_saving(checkpoint_form, merge_lora, push_to_hub, kwargs.get("variant"))
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder} is a file; a checkpoint is a folder. Name another place.")
        folder.mkdir(parents=True, exist_ok=True)
        before = self.config.checkpoint_form, self.config.lora, self.config.encoder_lora
        earlier = _weights(folder)
        state = self._state_to_save(state_dict, checkpoint_form, merge_lora)
        self.config.checkpoint_form = checkpoint_form
        if merge_lora:
            self.config.lora = self.config.encoder_lora = None
        try:
            super().save_pretrained(folder, is_main_process=is_main_process, state_dict=state, **kwargs)  # type: ignore[misc]
        finally:
            self.config.checkpoint_form, self.config.lora, self.config.encoder_lora = before
        if is_main_process:
            for file, _ in earlier.items() & _weights(folder).items():
                file.unlink()  # of an earlier save in one file, or in shards: loading would prefer it
            self._save_lora_folders(folder, checkpoint_form)
            for file in (*folder.glob("*.safetensors"), *folder.glob("*_lora/*.safetensors")):
                shutil.copymode(folder / "config.json", file)  # safetensors lets the owner alone read
            for source in Path(__file__).parent.glob("*_slam_asr.py"):
                if source.resolve() != (folder / source.name).resolve():
                    shutil.copyfile(source, folder / source.name)

    def _check_saving(self, checkpoint_form: str, merge_lora: bool, push_to_hub: bool, variant: Any) -> None:
        if checkpoint_form not in CHECKPOINT_FORMS:
            raise ValueError(f"checkpoint_form={checkpoint_form!r} is unknown. Choose 'standalone' or 'adapter'.")
        if push_to_hub:
            raise ValueError("save_pretrained does not upload. `push_to_hub(repo_id)` and `slam-asr push` do.")
        if getattr(self, "peft_config", None) is not None:
            raise ValueError("PEFT wraps this model whole. Save the PeftModel, or call its `merge_and_unload()` first.")
        if variant is not None:
            raise ValueError(f"variant={variant!r} cannot be loaded again. Leave it out, or name another folder.")
        if checkpoint_form == "adapter" and merge_lora:
            raise ValueError("The adapter form keeps LoRA apart. merge_lora=True goes with the form 'standalone'.")
        if checkpoint_form == "adapter" and not (self.config.audio_model_id and self.config.text_model_id):
            raise ValueError(
                "The adapter form needs audio_model_id and text_model_id in the configuration. Save the standalone form."
            )
        if checkpoint_form == "adapter" and self.resized_vocabulary:
            raise ValueError(
                "The adapter form holds no embeddings, and resize_token_embeddings changed the LLM's. Save the standalone form."
            )
        if checkpoint_form == "standalone" and self.has_quantized_llm():
            raise ValueError(
                "The LLM is quantized; its weights cannot be saved in full. Save with checkpoint_form='adapter': the LLM is "
                "then fetched from its own repository, and may be quantized again."
            )
        for part, field in LORA_FIELDS.items():
            known = self._adapters().keys() - ({"default"} if getattr(self.config, field) is None else set())
            if unknown := getattr(getattr(self, part), "peft_config", {}).keys() - known:
                raise ValueError(
                    f"The {part} has LoRA {sorted(unknown)} that neither `add_lora` nor `load_adapter` has put there. Use these."
                )
        if self.active_adapter != "default":
            raise ValueError(
                f"The adapter {self.active_adapter!r} is active. It has its own checkpoint: `set_adapter('default')` first."
            )

    def _state_to_save(
        self, state_dict: dict[str, torch.Tensor] | None, checkpoint_form: str, merge_lora: bool
    ) -> dict[str, torch.Tensor]:
        state = self.state_dict() if state_dict is None else dict(state_dict)
        if checkpoint_form == "adapter":
            return {name: tensor for name, tensor in state.items() if name.startswith("projector.")}
        for part, field in LORA_FIELDS.items():
            model, own = getattr(self, part), getattr(self.config, field) is not None
            if merge_lora and own:
                state = merged_state(model, state, f"{part}.")
            else:
                state = without_other_adapters(model, f"{part}.", state, keep=own)
        return dict(sorted(state.items()))  # shards hold the same tensors however the model came about

    def _save_lora_folders(self, folder: Path, checkpoint_form: str) -> None:
        config = self.config
        bases = {
            "language_model": (config.lora, config.text_model_id, config.text_model_revision),
            "audio_encoder": (config.encoder_lora, config.audio_model_id, config.audio_model_revision),
        }
        for part, name in LORA_FOLDERS.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            settings, base, revision = bases[part]
            if checkpoint_form == "adapter" and settings is not None:
                save_lora(getattr(self, part), folder / name, base, revision)


def _weights(folder: Path) -> dict[Path, tuple[int, int]]:
    """The weights in a folder, by the names that transformers gives, each with what changes when it is written."""
    found = {file: file.stat() for file in folder.iterdir() if re.fullmatch(_WEIGHTS, file.name)}
    return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in found.items()}


_WEIGHTS = r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?"
# What `_from_adapter` understands of `from_pretrained`'s arguments, and what has no meaning for it.
_PART_OPTIONS = ("dtype", "device_map", "attn_implementation", "quantization_config", "max_memory", "offload_folder")
_WITHOUT_EFFECT = ("trust_remote_code", "code_revision", "adapter_kwargs", "use_safetensors", "weights_only",
                   "low_cpu_mem_usage", "ignore_mismatched_sizes", "tqdm_class", "use_kernels")  # fmt: skip


class SlamAsrPreTrainedModel(SavingMixin, PreTrainedModel):  # type: ignore[misc]  # `load_adapter` takes the projector too
    """Loading and saving; the parts and what they compute are in `SlamAsrForConditionalGeneration`."""

    config: SlamAsrConfig
    config_class = SlamAsrConfig
    base_model_prefix = "language_model"
    main_input_name = "input_features"
    input_modalities = ("audio", "text")  # type: ignore[assignment]  # as in transformers' own models
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ("cache", "past_key_values")  # type: ignore[assignment]  # as in transformers' own models

    audio_encoder: SlamAsrEncoder
    projector: nn.Module
    language_model: Any  # a causal LLM with `GenerationMixin`; no type of transformers has both

    @classmethod
    def from_base_models(
        cls,
        audio_model: str | os.PathLike[str],
        text_model: str | os.PathLike[str],
        *,
        prune_encoder_layers: int | list[int] = 0,
        lora: Any = None,
        encoder_lora: Any = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | dict[str, str] | None = None,
        quantization_config: Any = None,
        audio_revision: str | None = None,
        text_revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        A model with pretrained encoder and LLM and a fresh projector, ready to be trained.

        Args:
            audio_model, text_model: Hub names or folders; of a Whisper model only the encoder's tensors are read.
            prune_encoder_layers: see [`SlamAsrConfig`].
            lora, encoder_lora: `peft.LoraConfig` or its keyword arguments as a dict.
            dtype: of all parts; float32 when None, the LLM's own when "auto".
            device_map, quantization_config: passed to the LLM's `from_pretrained`; the other parts follow its embeddings.
            attn_implementation: of both transformers, or a dict with one for `audio_config` and one for `text_config`.
            audio_revision, text_revision: branch, tag or commit. The commit that was read is recorded in the configuration.
            kwargs: `token`, `cache_dir`, `local_files_only`, and fields of [`SlamAsrConfig`].
        Raises:
            ValueError: when a tensor of a base model is missing, of another shape or NaN, or an option is unknown.
            OSError: when a base model is not found.
        """
        hub = hub_arguments(kwargs)
        settings = {name: value for name, value in kwargs.items() if name not in HUB_ARGUMENTS}
        for name in settings:
            if name not in SlamAsrConfig.field_names():
                raise ValueError(unknown_key("option of from_base_models", name))
        audio_hub, audio_commit = of_one_commit(audio_model, {**hub, "revision": audio_revision or "main"})
        text_hub, text_commit = of_one_commit(text_model, {**hub, "revision": text_revision or "main"})
        config = SlamAsrConfig(
            audio_config=base_config(audio_model, audio_hub),
            text_config=base_config(text_model, text_hub),
            prune_encoder_layers=prune_encoder_layers,
            audio_model_id=_identifier(audio_model),
            text_model_id=_identifier(text_model),
            audio_model_revision=audio_commit,
            text_model_revision=text_commit,
            checkpoint_form="adapter",
            **settings,
        )
        if dtype == "auto":
            dtype = getattr(config.text_config, "dtype", None)
        model = cls._assemble(
            config, hub, dtype=dtype, device_map=device_map, attn_implementation=attn_implementation,
            quantization_config=quantization_config,
        )  # fmt: skip
        weight = model.language_model.get_input_embeddings().weight
        model.projector = build_projector(config).to(weight.device, model.config.dtype)
        model.generation_config = transcription_defaults(
            model.language_model.generation_config, _end_token(text_model, text_hub)
        )
        model.config.checkpoint_form = "standalone"
        model.add_lora(lora, encoder_lora)
        return model.eval()

    @classmethod
    def _assemble(
        cls,
        config: SlamAsrConfig,
        hub: dict[str, Any],
        *,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | dict[str, str] | None = None,
        **llm_options: Any,
    ) -> Any:
        """The base parts from where the configuration says they are, without LoRA; the projector is on the meta device."""
        dtype = _resolve_dtype(dtype, config)
        options = {"attn_implementation": attn_implementation} if attn_implementation is not None else {}
        llm_attention = attn_implementation
        if isinstance(attn_implementation, Mapping):
            llm_attention = attn_implementation.get("text_config", attn_implementation.get(""))
        audio_hub = {**hub, "revision": config.audio_model_revision or "main"}
        text_hub = {**hub, "revision": config.text_model_revision or "main"}
        for model_id in (config.audio_model_id, config.text_model_id):
            if model_id is None or (os.path.isabs(model_id) and not os.path.isdir(model_id)):
                raise OSError(
                    f"The base model {model_id!r} is not there any more. Put it back, or set audio_model_id and text_model_id "
                    "in config.json to where the bases are. A checkpoint of the standalone form needs neither."
                )
        if llm_options.get("quantization_config") is not None:  # which would round NaN to a number
            refuse_non_finite_files(str(config.text_model_id), checkpoint_files(str(config.text_model_id), **text_hub))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(config.text_model_id),
            config=base_config(str(config.text_model_id), text_hub),
            dtype=dtype,
            device_map=device_map,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **({} if llm_attention is None else {"attn_implementation": llm_attention}),
            **text_hub,
            **{name: value for name, value in llm_options.items() if value is not None},
        )
        language_model, info = loaded
        refuse_unfit(language_model)
        refuse_problems(str(config.text_model_id), missing=info["missing_keys"], mismatched=_shapes(info))
        for name, parameter in language_model.named_parameters():
            refuse_non_finite(str(config.text_model_id), name, parameter)
        files = checkpoint_files(str(config.audio_model_id), **audio_hub)
        with torch.device("meta"):
            model = cls._from_config(config, dtype=dtype, **options)
        load_strictly(
            model.audio_encoder,
            read_encoder(files, config.kept_encoder_layers, config.audio_config.encoder_layers, dtype),
            f"{config.audio_model_id} (encoder)",
        )
        model.audio_encoder.to(language_model.get_input_embeddings().weight.device)
        model.language_model = language_model
        multiply_once(language_model)
        model.config.text_config = language_model.config
        model.config.dtype = dtype
        model.generation_config = transcription_defaults(language_model.generation_config, None)
        quieten(language_model)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Load a checkpoint of either form, strictly.

        Args:
            prune_encoder_layers: prune the checkpoint further while loading; blocks that it lacks cannot come back.
            quantization_config: for the LLM; encoder and projector keep their `dtype`.
            kwargs: those of `PreTrainedModel.from_pretrained`, and fields of [`SlamAsrConfig`] to replace; in the adapter form
                they reach the base parts too.
        Raises:
            ValueError: when a tensor is missing, extra, of another shape, or NaN; or more layers are asked for than stored.
        """
        path = pretrained_model_name_or_path
        if path is None or kwargs.get("state_dict") is not None:
            return super().from_pretrained(path, *args, **kwargs)
        if "torch_dtype" in kwargs:
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        want_info = kwargs.pop("output_loading_info", False)
        hub, commit = of_one_commit(path, hub_arguments(kwargs))
        kwargs |= {"revision": commit} if commit else {}
        fields = {name: kwargs.pop(name) for name in list(kwargs) if name in SlamAsrConfig.field_names()}
        stored = SlamAsrConfig.from_pretrained(path, **hub)
        config = kwargs.pop("config", None)
        if isinstance(config, PreTrainedConfig):
            config = copy.deepcopy(config)
        else:
            config = SlamAsrConfig.from_pretrained(config or path, **hub)
        for name, value in fields.items():
            setattr(config, name, value)
        config.check_fields()
        known = [*SlamAsrConfig.field_names(), *_PART_OPTIONS, *HUB_ARGUMENTS]
        for name in kwargs.keys() - set(known):
            if difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                raise ValueError(unknown_key("option of from_pretrained", name, known))
        lost = set(config.kept_encoder_layers) - set(stored.kept_encoder_layers)
        if lost:
            raise ValueError(
                f"prune_encoder_layers={config.prune_encoder_layers} asks for the encoder blocks {sorted(lost)}, which were pruned "
                f"from {os.fspath(path)!r}: it holds {stored.kept_encoder_layers}. A checkpoint can be pruned further, not less."
            )
        config.refuse_renumbering(stored.kept_encoder_layers, config.kept_encoder_layers)
        config.checkpoint_form = stored.checkpoint_form
        generation = stored_generation_config(path, hub)
        if stored.checkpoint_form == "adapter":
            model = cls._from_adapter(path, config, stored, hub, kwargs)
            info: dict[str, Any] = {}
        else:
            model, info = cls._from_standalone(path, config, stored, hub, args, kwargs)
        model.generation_config = kwargs.get("generation_config") or generation or model.generation_config
        quieten(model.language_model)
        model.freeze()
        return (model, info) if want_info else model

    @classmethod
    def _from_standalone(
        cls,
        path: Any,
        config: SlamAsrConfig,
        stored: SlamAsrConfig,
        hub: dict[str, Any],
        args: Any,
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        kwargs["ignore_mismatched_sizes"] = True  # they are refused below, by name
        kwargs["output_loading_info"] = True
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = for_llm_only(kwargs["quantization_config"], config)
        load: Any = super().from_pretrained  # returns a pair, by output_loading_info
        files = checkpoint_files(path, **hub)
        held = stored_numbers(files)  # a file that is cut off is refused here, by name
        with torch.device("meta"):
            described = cls._from_config(copy.deepcopy(stored))
        asked = sum(tensor.numel() for tensor in (*described.parameters(), *described.buffers()))
        if asked > MOST_PACKED * held + 10_000_000:
            raise ValueError(
                f"The config.json of {os.fspath(path)!r} describes a model of {asked:,} parameters, and its files hold {held:,}. It is "
                "damaged, or meant to fill the memory."
            )
        if kwargs.get("quantization_config") is not None:
            refuse_non_finite_files(os.fspath(path), files, "language_model.")
        converts = _converts(stored, kwargs)
        if config.kept_encoder_layers == stored.kept_encoder_layers and not converts:
            model, info = load(path, *args, config=config, **kwargs)
        else:
            tensors = read_pruned(files, stored.kept_encoder_layers, config.kept_encoder_layers, apart=converts)
            rest = {name: value for name, value in kwargs.items() if name not in hub}
            model, info = load(None, *args, config=config, state_dict=tensors, **rest)
            model.name_or_path = os.fspath(path)
        refuse_problems(os.fspath(path), info["missing_keys"], info["unexpected_keys"], _shapes(info))
        for name, parameter in model.named_parameters():
            refuse_non_finite(os.fspath(path), name, parameter)
        hand_quantizer_to_llm(model)
        return model, info

    @classmethod
    def _from_adapter(
        cls, path: Any, config: SlamAsrConfig, stored: SlamAsrConfig, hub: dict[str, Any], kwargs: dict[str, Any]
    ) -> Any:
        for name in kwargs:
            if name not in (*_PART_OPTIONS, *_WITHOUT_EFFECT, *HUB_ARGUMENTS) and not name.startswith("_"):
                known = [*SlamAsrConfig.field_names(), *_PART_OPTIONS, *HUB_ARGUMENTS]
                raise ValueError(unknown_key("option of from_pretrained", name, known))
        base_hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
        tokens = config.text_config.get_text_config().vocab_size
        model = cls._assemble(config, base_hub, **{name: kwargs[name] for name in _PART_OPTIONS if name in kwargs})
        if model.config.text_config.get_text_config().vocab_size != tokens:
            raise ValueError(
                f"The checkpoint of {os.fspath(path)} does not fit: it was made with an LLM of {tokens} tokens, and "
                f"{config.text_model_id} has {model.config.text_config.get_text_config().vocab_size}. The adapter form holds no "
                "embeddings: a model whose vocabulary was changed has to be saved in the standalone form."
            )
        device = model.language_model.get_input_embeddings().weight.device
        load_projector(model.projector, path, hub, model.config.dtype, device)
        for part, settings in (("language_model", config.lora), ("audio_encoder", config.encoder_lora)):
            if settings is not None:
                add_lora(getattr(model, part), settings, empty=True)
                tensors = read_lora(path, LORA_FOLDERS[part], hub)
                if part == "audio_encoder":
                    blocks = stored.kept_encoder_layers, config.kept_encoder_layers
                    names = {name: renumbered(name, *blocks) for name in tensors}
                    tensors = {new: tensors[name] for name, new in names.items() if new is not None}
                set_lora(getattr(model, part), tensors, f"{os.fspath(path)} ({LORA_FOLDERS[part]})")
        model.name_or_path = os.fspath(path)
        return model.eval()


def _shapes(info: dict[str, Any]) -> list[str]:
    return [
        f"{name} (checkpoint {tuple(stored)}, model {tuple(wanted)})"
        for name, stored, wanted in info["mismatched_keys"]
    ]


def _identifier(model: str | os.PathLike[str]) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else os.fspath(model)


def _resolve_dtype(dtype: torch.dtype | str | None, config: SlamAsrConfig) -> torch.dtype:
    if dtype in (None, "auto"):
        dtype = config.dtype if config.dtype is not None else torch.float32
    resolved = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise ValueError(f"dtype={dtype!r} is no floating-point type of torch. Choose float32, bfloat16 or float16.")
    return resolved


def _converts(stored: SlamAsrConfig, kwargs: dict[str, Any]) -> bool:
    """
    Whether loading converts the weights in host memory, and may hold each file's pages for no longer than it needs.

    DeepSpeed, and an `accelerate` that leaves weights on disk, need whole tensors or files.
    """
    if kwargs.get("device_map") is not None or kwargs.get("quantization_config") is not None:
        return False
    dtype = kwargs.get("dtype")
    if dtype in (None, "auto") or isinstance(dtype, dict) or is_deepspeed_zero3_enabled():
        return False
    return str(dtype).removeprefix("torch.") != str(stored.dtype).removeprefix("torch.")


def _end_token(text_model: str | os.PathLike[str], hub: dict[str, Any]) -> int | None:
    """The tokenizer's end token, which transcripts are trained to end with; None when there is no tokenizer."""
    if repository_file(text_model, "tokenizer_config.json", **hub) is None:
        return None
    return AutoTokenizer.from_pretrained(text_model, **hub).eos_token_id
