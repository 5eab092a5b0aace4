"""SLAM-ASR: a frozen Whisper encoder, a trained projector and a frozen LLM, with LoRA if wanted."""

import copy
import inspect
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput

from .adapters_slam_asr import add_lora, is_adapter_tensor, load_lora, lora_parameters, merged_language_model, save_lora
from .checkpoint_slam_asr import (
    HUB_ARGUMENTS,
    checkpoint_files,
    hub_arguments,
    load_strictly,
    read_encoder,
    read_pruned,
    refuse_non_finite,
    refuse_problems,
    repository_commit,
)
from .configuration_slam_asr import SlamAsrConfig, kept_layers
from .encoder_slam_asr import SlamAsrEncoder
from .generation_slam_asr import transcript_limit
from .projector_slam_asr import build_projector

LORA_FOLDERS = {"language_model": "language_model_lora", "audio_encoder": "audio_encoder_lora"}


@dataclass
class SlamAsrOutput(ModelOutput):
    """
    loss (`torch.Tensor`, scalar): mean cross-entropy over the transcript's tokens.
    logits (`torch.Tensor`): `(batch, length, vocab)`; with labels only the positions that some row has a label for.
    past_key_values: the LLM's cache.
    hidden_states, attentions: the LLM's, when asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class SlamAsrForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """
    `audio_encoder` → `projector` → `language_model`.

    Only the projector and LoRA are trained; frozen parts stay in evaluation mode. Pruned encoder blocks are never built:
    they are in no state dict, parameter count or checkpoint.
    """

    config: SlamAsrConfig
    config_class = SlamAsrConfig
    base_model_prefix = "model"
    main_input_name = "input_features"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = "past_key_values"

    def __init__(self, config: SlamAsrConfig) -> None:
        super().__init__(config)
        self.audio_encoder = SlamAsrEncoder(config.audio_config, config.kept_encoder_layers)
        self.projector = build_projector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        for part, settings in (("language_model", config.lora), ("audio_encoder", config.encoder_lora)):
            if settings is not None and config.checkpoint_form == "standalone":
                add_lora(getattr(self, part), settings)
        self.freeze()

    # ------------------------------------------------------------------ building and loading

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
        attn_implementation: str | None = None,
        quantization_config: Any = None,
        audio_revision: str | None = None,
        text_revision: str | None = None,
        **kwargs: Any,
    ) -> "SlamAsrForConditionalGeneration":
        """
        A model with pretrained encoder and LLM and a fresh projector, ready to be trained.

        Args:
            audio_model, text_model: Hub names or folders; of a Whisper model only the encoder's tensors are read.
            prune_encoder_layers: see [`SlamAsrConfig`].
            lora, encoder_lora: `peft.LoraConfig` or its keyword arguments as a dict.
            dtype: of all parts, float32 when None.
            device_map, quantization_config: passed to the LLM's `from_pretrained`; the other parts follow its embeddings.
            attn_implementation: of both transformers.
            audio_revision, text_revision: branch, tag or commit. The commit that was read is recorded in the configuration.
            kwargs: `token`, `cache_dir`, `local_files_only`, and fields of [`SlamAsrConfig`].
        """
        hub = hub_arguments(kwargs)
        settings = {name: value for name, value in kwargs.items() if name not in HUB_ARGUMENTS}
        audio_hub = {**hub, "revision": audio_revision or "main"}
        text_hub = {**hub, "revision": text_revision or "main"}
        config = SlamAsrConfig(
            audio_config=AutoConfig.from_pretrained(audio_model, **audio_hub),
            text_config=AutoConfig.from_pretrained(text_model, **text_hub),
            prune_encoder_layers=prune_encoder_layers,
            audio_model_id=_identifier(audio_model),
            text_model_id=_identifier(text_model),
            audio_model_revision=repository_commit(audio_model, **audio_hub),
            text_model_revision=repository_commit(text_model, **text_hub),
            checkpoint_form="adapter",
            **settings,
        )
        model = cls._assemble(
            config, hub, dtype=dtype, device_map=device_map, attn_implementation=attn_implementation,
            quantization_config=quantization_config,
        )  # fmt: skip
        for part, value in (("language_model", lora), ("audio_encoder", encoder_lora)):
            if value is not None:
                add_lora(getattr(model, part), value)
        model.config.lora = _lora_settings(lora)
        model.config.encoder_lora = _lora_settings(encoder_lora)
        model.config.checkpoint_form = "standalone"
        model.freeze()
        return model.eval()

    @classmethod
    def _assemble(
        cls,
        config: SlamAsrConfig,
        hub: dict[str, Any],
        *,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
    ) -> "SlamAsrForConditionalGeneration":
        """The base parts from where the configuration says they are, without LoRA, and a fresh projector."""
        dtype = _resolve_dtype(dtype, config)
        options = {"attn_implementation": attn_implementation} if attn_implementation is not None else {}
        audio_hub = {**hub, "revision": config.audio_model_revision or "main"}
        text_hub = {**hub, "revision": config.text_model_revision or "main"}
        language_model = AutoModelForCausalLM.from_pretrained(
            config.text_model_id, dtype=dtype, device_map=device_map, **options, **text_hub,
            **({"quantization_config": quantization_config} if quantization_config is not None else {}),
        )  # fmt: skip
        files = checkpoint_files(config.audio_model_id, **audio_hub)
        with torch.device("meta"):
            model = cls._from_config(config, dtype=dtype, **options)
        load_strictly(
            model.audio_encoder,
            read_encoder(files, config.kept_encoder_layers),
            f"{config.audio_model_id} (encoder)",
            dtype,
        )
        model.projector = build_projector(config).to(dtype)
        device = language_model.get_input_embeddings().weight.device
        model.audio_encoder.to(device)
        model.projector.to(device)
        model.language_model = language_model
        model.config.text_config = language_model.config
        model.config.dtype = dtype
        model.generation_config = _transcription_defaults(language_model.generation_config)
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> "SlamAsrForConditionalGeneration":
        """
        Load a checkpoint of either form, strictly.

        Args:
            prune_encoder_layers: prune the checkpoint further while loading; blocks that it lacks cannot come back.
            kwargs: those of `PreTrainedModel.from_pretrained`; in the adapter form they reach the base parts too.
        Raises:
            ValueError: when a tensor is missing, extra, of another shape, or NaN; or more layers are asked for than stored.
        """
        if pretrained_model_name_or_path is None or kwargs.get("state_dict") is not None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        prune = kwargs.pop("prune_encoder_layers", None)
        want_info = kwargs.pop("output_loading_info", False)
        hub = hub_arguments(kwargs)
        stored = SlamAsrConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        config = kwargs.pop("config", None)
        if not isinstance(config, PreTrainedConfig):
            config = SlamAsrConfig.from_pretrained(config or pretrained_model_name_or_path, **hub)
        if prune is not None:
            config.prune_encoder_layers = prune
        lost = set(config.kept_encoder_layers) - set(stored.kept_encoder_layers)
        if lost:
            raise ValueError(
                f"prune_encoder_layers={config.prune_encoder_layers} asks for the encoder blocks {sorted(lost)}, which were pruned "
                f"from {os.fspath(pretrained_model_name_or_path)!r}: it holds {stored.kept_encoder_layers} of "
                f"{stored.audio_config.encoder_layers}. A checkpoint can be pruned further, not less."
            )
        if stored.checkpoint_form == "adapter":
            model = cls._from_adapter(pretrained_model_name_or_path, config, hub, kwargs)
            return (model, {}) if want_info else model
        model, info = cls._from_standalone(pretrained_model_name_or_path, config, stored, hub, args, kwargs)
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
    ) -> tuple["SlamAsrForConditionalGeneration", dict[str, Any]]:
        kwargs["ignore_mismatched_sizes"] = True  # they are refused below, by name
        if config.kept_encoder_layers == stored.kept_encoder_layers:
            model, info = super().from_pretrained(path, *args, config=config, output_loading_info=True, **kwargs)
        else:
            tensors = read_pruned(checkpoint_files(path, **hub), stored.kept_encoder_layers, config.kept_encoder_layers)
            rest = {name: value for name, value in kwargs.items() if name not in hub}
            model, info = super().from_pretrained(
                None, *args, config=config, state_dict=tensors, output_loading_info=True, **rest
            )
            model.generation_config = GenerationConfig.from_pretrained(path, **hub)
            model.name_or_path = os.fspath(path)
        mismatched = [f"{name} (checkpoint {tuple(a)}, model {tuple(b)})" for name, a, b in info["mismatched_keys"]]
        refuse_problems(os.fspath(path), info["missing_keys"], info["unexpected_keys"], mismatched)
        for name, parameter in model.named_parameters():
            refuse_non_finite(os.fspath(path), name, parameter)
        model.freeze()
        return model, info

    @classmethod
    def _from_adapter(
        cls, path: Any, config: SlamAsrConfig, hub: dict[str, Any], kwargs: dict[str, Any]
    ) -> "SlamAsrForConditionalGeneration":
        names = ("dtype", "device_map", "attn_implementation", "quantization_config")
        base_hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
        model = cls._assemble(config, base_hub, **{name: kwargs[name] for name in names if name in kwargs})
        tensors = read_pruned(checkpoint_files(path, **hub), [], [])
        projector = {name.removeprefix("projector."): tensor for name, tensor in tensors.items()}
        device = next(model.projector.parameters()).device
        load_strictly(model.projector, projector, os.fspath(path), next(model.projector.parameters()).dtype)
        model.projector.to(device)
        for part, settings in (("language_model", config.lora), ("audio_encoder", config.encoder_lora)):
            if settings is not None:
                load_lora(getattr(model, part), settings, path, LORA_FOLDERS[part], hub)
        model.generation_config = GenerationConfig.from_pretrained(path, **hub)
        model.name_or_path = os.fspath(path)
        model.freeze()
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        checkpoint_form: str = "standalone",
        merge_lora: bool = False,
        state_dict: dict[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
        **kwargs: Any,
    ) -> None:
        """
        Save weights as safetensors, the configuration, the generation configuration and the code that loads them.

        Args:
            checkpoint_form: `"standalone"`: every weight. `"adapter"`: projector and LoRA; the base parts are fetched from
                where they came from (`config.audio_model_id` and so on) when it is loaded.
            merge_lora: in the standalone form, add LoRA into the LLM's weights: loading then needs no PEFT. This model
                itself does not change.
        """
        if checkpoint_form not in ("standalone", "adapter"):
            raise ValueError(f"checkpoint_form={checkpoint_form!r} is unknown. Choose 'standalone' or 'adapter'.")
        if checkpoint_form == "adapter" and not (self.config.audio_model_id and self.config.text_model_id):
            raise ValueError(
                "The adapter form needs audio_model_id and text_model_id in the configuration. Save the standalone form."
            )
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        before = self.config.checkpoint_form, self.config.lora, self.config.encoder_lora
        self.config.checkpoint_form = checkpoint_form
        if state_dict is None:
            state_dict = self.state_dict()
        if checkpoint_form == "adapter":
            state_dict = {name: tensor for name, tensor in state_dict.items() if name.startswith("projector.")}
        elif merge_lora and (self.config.lora or self.config.encoder_lora):
            state_dict = merged_language_model(self, state_dict)
            self.config.lora = self.config.encoder_lora = None
        try:
            super().save_pretrained(folder, *args, state_dict=state_dict, is_main_process=is_main_process, **kwargs)
        finally:
            self.config.checkpoint_form, self.config.lora, self.config.encoder_lora = before
        if not is_main_process:
            return
        for part, name in LORA_FOLDERS.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            settings = self.config.lora if part == "language_model" else self.config.encoder_lora
            if checkpoint_form == "adapter" and settings is not None:
                base = self.config.text_model_id if part == "language_model" else self.config.audio_model_id
                revision = (
                    self.config.text_model_revision if part == "language_model" else self.config.audio_model_revision
                )
                save_lora(getattr(self, part), folder / name, base, revision)
        for source in Path(__file__).parent.glob("*_slam_asr.py"):
            if source.resolve() != (folder / source.name).resolve():
                shutil.copyfile(source, folder / source.name)

    # ------------------------------------------------------------------ what is trained, and how deep the encoder is

    def freeze(self) -> None:
        """Train the projector and LoRA only."""
        for part in (self.audio_encoder, self.language_model):
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(is_adapter_tensor(name) and parameter.is_floating_point())

    def train(self, mode: bool = True) -> "SlamAsrForConditionalGeneration":
        """Training mode for the projector and LoRA's dropout; parts without trainable weights of their own stay in eval mode."""
        super().train(mode)
        for part in (self.audio_encoder, self.language_model):
            if any(p.requires_grad and not is_adapter_tensor(name) for name, p in part.named_parameters()):
                continue
            part.eval()
            for name, module in part.named_modules():
                # Gradient checkpointing asks a block, not its contents, whether it is in training mode.
                if is_adapter_tensor(name) or isinstance(module, GradientCheckpointingLayer):
                    module.training = mode
        return self

    def prune_encoder_layers(self, prune: int | list[int]) -> None:
        """Take blocks away in place; counts and indices are the base encoder's, as in [`SlamAsrConfig`]."""
        present = self.config.kept_encoder_layers
        kept = kept_layers(prune, self.config.audio_config.encoder_layers)
        if not set(kept) <= set(present):
            raise ValueError(
                f"prune_encoder_layers({prune}) would need the blocks {sorted(set(kept) - set(present))}, which are gone already. "
                f"The model holds {present}."
            )
        self.audio_encoder.layers = nn.ModuleList([self.audio_encoder.layers[present.index(index)] for index in kept])
        self.audio_encoder.kept_layers = kept
        self.config.prune_encoder_layers = prune

    def parameter_report(self) -> dict[str, Any]:
        """
        Parameter counts of each part, and against the unpruned model.

        `paper` counts encoder and projector, with LoRA, and leaves the LLM out: the accounting that the savings in
        arXiv 2603.27981 (7-14 %) agree with.
        """
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

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        embeddings = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        return embeddings

    # ------------------------------------------------------------------ computing

    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Audio embeddings for the LLM.

        Args:
            input_features: `(batch, mel_bins, mel_frames)`, with `input_features_mask` `(batch, mel_frames)`.
            encoder_hidden_states: in their place, the encoder's states before its final LayerNorm, `(batch, frames, d_model)`
                (see [`SlamAsrEncoder.hidden_states_at`]), with `encoder_attention_mask` `(batch, frames)`.
        Returns:
            `(batch, audio_tokens, hidden)` and its mask `(batch, audio_tokens)`, bool.
        """
        weight = self.audio_encoder.layer_norm.weight
        if encoder_hidden_states is not None:
            frames = self.audio_encoder.layer_norm(encoder_hidden_states.to(weight))
            mask = encoder_attention_mask
            mask = torch.ones(frames.shape[:2], device=frames.device) if mask is None else mask.to(frames.device)
            mask = mask.bool()
        else:
            encoded = self.audio_encoder(input_features, input_features_mask)
            frames, mask = encoded.last_hidden_state, encoded.attention_mask
        # Padded frames hold what attention made of them; nothing downstream may see it.
        frames = frames.masked_fill(~mask[..., None], 0.0)
        return self.projector(frames.to(next(self.projector.parameters()).dtype), mask)

    def embed_inputs(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings `(batch, length, hidden)` of `input_ids`, audio embeddings in the places of the placeholders."""
        placeholders = input_ids == self.config.audio_token_id
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if input_features is None and encoder_hidden_states is None:
            if placeholders.any():
                raise ValueError("input_ids holds audio placeholders but there is no audio. Pass input_features too.")
            return embeddings
        audio, mask = self.get_audio_features(
            input_features, input_features_mask, encoder_hidden_states, encoder_attention_mask
        )
        wanted, given = placeholders.sum(-1), mask.sum(-1).to(placeholders.device)
        if not torch.equal(wanted, given):
            raise ValueError(
                f"input_ids has {wanted.tolist()} audio placeholders a row, but the audio gives {given.tolist()} embeddings. "
                "Processor and model must have the same projector settings."
            )
        audio = audio.to(embeddings)[mask.to(embeddings.device)]
        return embeddings.masked_scatter(placeholders[..., None], audio)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SlamAsrOutput:
        """
        Args:
            input_ids, attention_mask: `(batch, length)` as the processor makes them, padded at either side.
            labels: `(batch, length)`, -100 where there is no loss. Logits are computed for labelled positions only.
            num_items_in_batch: divide the summed loss by this many label tokens (gradient accumulation); their own number
                when None.
            kwargs: passed to the LLM. The audio arguments are those of [`get_audio_features`].
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("forward needs input_ids; `processor.apply_transcription_request(audio)` makes them.")
            inputs_embeds = self.embed_inputs(
                input_ids, input_features, input_features_mask, encoder_hidden_states, encoder_attention_mask
            )
        accepted = inspect.signature(self.language_model.forward).parameters
        if position_ids is None and attention_mask is not None and past_key_values is None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        if "position_ids" in accepted and position_ids is not None:
            kwargs["position_ids"] = position_ids
        targets = None
        if labels is not None:
            targets = labels[:, 1:]
            positions = (targets != -100).any(0).nonzero().squeeze(-1)
            if "logits_to_keep" in accepted:
                kwargs["logits_to_keep"] = positions
            kwargs.setdefault("use_cache", False)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
        )
        logits, loss = outputs.logits, None
        if targets is not None:
            if logits.shape[1] != len(positions):
                logits = logits[:, positions]
            targets = targets[:, positions].to(logits.device)
            loss = nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-100
            )
            loss = loss / (
                num_items_in_batch if num_items_in_batch is not None else (targets != -100).sum().clamp(min=1)
            )
        return SlamAsrOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )

    @torch.no_grad()
    def generate(
        self,
        input_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Transcribe: new tokens only, `(batch * num_return_sequences, new_tokens)`.

        Each utterance is encoded once, whatever the number of beams. Unless a length is asked for, an utterance may bring
        `config.max_tokens_per_second` tokens for each of its own seconds; a transcript that repeats itself is ended.

        Args:
            generation_config, kwargs: as of `GenerationMixin.generate`; the audio arguments are those of [`forward`].
        """
        if input_ids is None:
            raise ValueError("generate needs input_ids; `processor.apply_transcription_request(audio)` makes them.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        embeddings = self.embed_inputs(
            input_ids, input_features, input_features_mask, encoder_hidden_states, encoder_attention_mask
        )
        embeddings, attention_mask = _pad_left(embeddings, attention_mask.to(embeddings.device))
        config = copy.deepcopy(generation_config if generation_config is not None else self.generation_config)
        rest = config.update(**kwargs)
        seconds = (input_ids == self.config.audio_token_id).sum(-1) * self._seconds_per_audio_token(
            input_features_mask, encoder_attention_mask
        )
        criteria = StoppingCriteriaList(rest.pop("stopping_criteria", None) or [])
        criteria.append(transcript_limit(config, seconds.to(embeddings.device), self.config.max_tokens_per_second))
        return self.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            generation_config=config,
            stopping_criteria=criteria,
            **rest,
        )

    def _seconds_per_audio_token(
        self, input_features_mask: torch.Tensor | None, encoder_attention_mask: torch.Tensor | None
    ) -> torch.Tensor | float:
        if self.config.projector_type != "qformer":
            return self.config.projector_downsample_rate / 50
        for mask, rate in ((input_features_mask, 100), (encoder_attention_mask, 50)):
            if mask is not None:
                return mask.sum(-1) / rate / self.config.projector_num_queries
        return 30 / self.config.projector_num_queries


def _pad_left(embeddings: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move padding to the left of each row, where generation needs it."""
    order = torch.argsort(mask.long(), dim=1, stable=True)
    if torch.equal(order, torch.arange(mask.shape[1], device=mask.device).expand_as(order)):
        return embeddings, mask
    return embeddings.gather(1, order[..., None].expand_as(embeddings)), mask.gather(1, order)


def _identifier(model: str | os.PathLike[str]) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else os.fspath(model)


def _resolve_dtype(dtype: torch.dtype | str | None, config: SlamAsrConfig) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in (None, "auto"):
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return getattr(torch, str(dtype))


def _lora_settings(lora: Any) -> dict[str, Any] | None:
    if lora is None or isinstance(lora, Mapping):
        return None if lora is None else dict(lora)
    settings = {name: value for name, value in lora.to_dict().items() if value is not None}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}


def _transcription_defaults(base: GenerationConfig) -> GenerationConfig:
    """Greedy decoding with the LLM's own special tokens; chat models' sampling and penalties do not come along."""
    ends: Sequence[int] | int | None = base.eos_token_id
    first = ends[0] if isinstance(ends, Sequence) else ends
    pad = base.pad_token_id if base.pad_token_id is not None else first
    return GenerationConfig(
        bos_token_id=base.bos_token_id, eos_token_id=ends, pad_token_id=pad, num_beams=1, do_sample=False
    )
