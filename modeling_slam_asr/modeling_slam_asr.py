"""SLAM-ASR: a frozen Whisper encoder, a trained projector and a frozen LLM, with LoRA if wanted."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_slam_asr import SlamAsrConfig, kept_layers
from .encoder_slam_asr import UNEQUAL, MergedInputs, SlamAsrAudioOutput, SlamAsrEncoder, beside
from .generation_slam_asr import (
    CACHE,
    EndSilence,
    TranscriptRequest,
    ctc_share,
    draft_decoding,
    llm_arguments,
    multiply_once,
    pad_left,
    transcript_request,
)
from .lora_slam_asr import add_lora, checkpoint_frozen, is_adapter_tensor, is_lora_layer
from .pretrained_slam_asr import SlamAsrPreTrainedModel
from .projector_slam_asr import (
    ENCODER_FRAMES_PER_SECOND,
    ENCODER_SECONDS,
    MEL_FRAMES_PER_SECOND,
    CtcMixin,
    CtcPrefixScores,
    CtcScores,
    build_projector,
    compress_frames,
)

__all__ = ["SlamAsrForConditionalGeneration", "SlamAsrOutput", "cross_entropy"]

_CHUNK = 2**21  # logits in float32 at a time


class _CrossEntropy(torch.autograd.Function):
    """The gradient is made along with the loss, so no probabilities are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, count: torch.Tensor, consume: bool
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits.device)
        gradient = None
        # In float16 a share of a large count is lost, unless the loss is scaled up first: there it is divided in `backward`.
        shares, ctx.count = (1, count) if logits.dtype == torch.float16 else (count, 1)
        if ctx.needs_input_grad[0]:
            gradient = logits.detach() if consume else torch.empty_like(logits)
        labelled = targets != -100
        for rows in labelled.nonzero().squeeze(-1).split(max(1, _CHUNK // logits.shape[-1])):
            log_probabilities = logits[rows].float().log_softmax(-1)
            target = targets[rows, None]
            loss -= log_probabilities.gather(1, target).sum()
            if gradient is not None:
                change = log_probabilities.exp_()
                change.scatter_add_(1, target, -torch.ones_like(target, dtype=change.dtype))
                gradient[rows] = change.div_(shares).to(gradient)
        if gradient is not None:
            gradient[~labelled] = 0
        ctx.gradient, ctx.consume = gradient, consume
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gradient, factor = ctx.gradient, upstream / ctx.count
        if not ctx.consume:
            return gradient * factor.to(gradient), None, None, None
        if gradient is None:
            raise RuntimeError(
                "This loss has been differentiated, and its gradient is used up. Compute it with return_logits=True to "
                "differentiate it more than once."
            )
        ctx.gradient = None
        return gradient.mul_(factor.to(gradient)), None, None, None


@torch.compiler.disable  # how many rows have a label is known at run time only
def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, count: int | torch.Tensor, consume: bool = False
) -> torch.Tensor:
    """
    Cross-entropy of `logits` `(rows, vocab)` and `targets` `(rows)`, summed and divided by `count`, in float32.

    Rows whose target is -100 count nothing. The gradient has the dtype of `logits`; it cannot be differentiated again.

    Args:
        consume: write the gradient over the logits, which nobody needs any more: with a large vocabulary they are the
            largest tensor of a training step. The gradient can then be asked for once.
    """
    return _CrossEntropy.apply(logits, targets, count, consume)


@dataclass
class SlamAsrOutput(CausalLMOutputWithPast):
    """
    loss (`torch.Tensor`, scalar): mean cross-entropy over the transcript's tokens.
    logits (`torch.Tensor`): `(batch, length, vocab)`; with labels only the positions that some row has a label for.
    cache (`past_key_values` before transformers 5.24), hidden_states, attentions: the LLM's, when asked for.
    ctc_log_probs, ctc_mask: of the CTC head, where the loss has a share of it: `(batch, audio_tokens, 1 + classes)` and
        `(batch, audio_tokens)`.
    """

    ctc_log_probs: torch.Tensor | None = None
    ctc_mask: torch.Tensor | None = None


class SlamAsrForConditionalGeneration(CtcMixin, SlamAsrPreTrainedModel, GenerationMixin):  # type: ignore[misc]  # see LoraMixin
    """
    `audio_encoder` → `projector` → `language_model`.

    Only the projector and LoRA are trained; frozen parts stay in evaluation mode. Pruned encoder blocks are never built:
    they are in no state dict, parameter count or checkpoint.
    """

    def __init__(self, config: SlamAsrConfig) -> None:
        super().__init__(config)
        self.audio_encoder = SlamAsrEncoder(config.audio_config, config.kept_encoder_layers)
        self.projector = build_projector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        multiply_once(self.language_model)
        for part, settings in (("language_model", config.lora), ("audio_encoder", config.encoder_lora)):
            if settings is not None and config.checkpoint_form == "standalone":
                add_lora(getattr(self, part), settings)
        self.freeze()
        self.train(self.training)

    def _init_weights(self, module: nn.Module) -> None:
        # The projector keeps torch's own initial weights, which it has already, as in the reference code.
        if not any(module is own for own in self.projector.modules()):
            super()._init_weights(module)

    def train(self, mode: bool = True) -> "SlamAsrForConditionalGeneration":
        """Training mode for the projector and LoRA's dropout; parts without trainable weights of their own stay in eval mode."""
        super().train(mode)
        for part in (self.audio_encoder, self.language_model):
            if any(p.requires_grad and not is_adapter_tensor(name) for name, p in part.named_parameters()):
                continue
            part.eval()
            for name, module in part.named_modules():
                if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                    checkpoint_frozen(module, mode)
                elif is_adapter_tensor(name) or is_lora_layer(module):
                    module.training = mode
        return self

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """See `PreTrainedModel`; works with frozen parts, before or after [`train`]."""
        super().activation_checkpointing_enable(*args, **kwargs)
        self.train(self.training)

    def prune_encoder_layers(self, prune: int | list[int]) -> None:
        """Take blocks away in place; counts and indices are the base encoder's, as in [`SlamAsrConfig`]."""
        present = self.config.kept_encoder_layers
        kept = kept_layers(prune, self.config.audio_config.encoder_layers)
        if not set(kept) <= set(present):
            raise ValueError(
                f"prune_encoder_layers({prune}) needs the blocks {sorted(set(kept) - set(present))}, which are gone already: {present} are left."
            )
        self.config.refuse_renumbering(present, kept)
        self.audio_encoder.layers = nn.ModuleList([self.audio_encoder.layers[present.index(index)] for index in kept])
        self.audio_encoder.kept_layers = kept
        self.config.prune_encoder_layers = prune

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)
        multiply_once(self.language_model)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        before = self.language_model.get_input_embeddings().weight.shape[0]
        embeddings = self.language_model.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        multiply_once(self.language_model)  # the output layer may be another now
        self.resized_vocabulary |= embeddings.weight.shape[0] != before
        self.config.text_config.get_text_config().vocab_size = embeddings.weight.shape[0]
        return embeddings

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SlamAsrAudioOutput:
        """
        Audio embeddings for the LLM.

        Args:
            input_features: `(batch, mel_bins, mel_frames)`, with `input_features_mask` `(batch, mel_frames)`.
            encoder_hidden_states: in their place, the encoder's states before its final LayerNorm, `(batch, frames, d_model)`
                (see [`SlamAsrEncoder.hidden_states_at`]), with `encoder_attention_mask` `(batch, frames)`.
            kwargs: for the encoder, such as `output_hidden_states`.
        """
        encoded: Any = {}
        if encoder_hidden_states is not None:
            frames = self.audio_encoder.layer_norm(beside(encoder_hidden_states, self.audio_encoder.layer_norm.weight))
            mask = torch.ones(frames.shape[:2]) if encoder_attention_mask is None else encoder_attention_mask
            mask = mask.to(frames.device).bool()
        else:
            encoded = self.audio_encoder(input_features, input_features_mask, **kwargs)
            frames, mask = encoded.last_hidden_state, encoded.attention_mask
        # Padded frames hold what attention made of them; nothing downstream may see it.
        frames = frames.masked_fill(~mask[..., None], 0.0)
        embeddings, mask = self.projector(frames.to(next(self.projector.parameters()).dtype), mask)
        return SlamAsrAudioOutput(
            last_hidden_state=frames,
            pooler_output=embeddings[mask],
            hidden_states=encoded.get("hidden_states"),
            attentions=encoded.get("attentions"),
            attention_mask=mask,
        )

    def get_placeholder_mask(
        self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor, audio_features: torch.Tensor | None
    ) -> torch.Tensor:
        """
        Where audio embeddings go, as a mask `(batch, length, hidden)` for `inputs_embeds`; `audio_features` `(audio_tokens, hidden)`.

        Raises:
            ValueError: when `input_ids` has not as many placeholders as there are embeddings.
        """
        places = input_ids == self.config.audio_token_id
        wanted, given = int(places.sum()), 0 if audio_features is None else len(audio_features)
        if wanted and audio_features is None:
            raise ValueError("input_ids holds audio placeholders but there is no audio. Pass input_features too.")
        if wanted != given:
            raise ValueError(f"input_ids has {wanted} audio placeholders for {given} audio embeddings. {UNEQUAL}")
        return places.to(inputs_embeds.device)[..., None].expand_as(inputs_embeds)

    def merge_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        ctc: bool = False,
        **audio: torch.Tensor | None,
    ) -> MergedInputs:
        """
        Audio embeddings in the places of the placeholders, the tokens' embeddings in all others.

        With `config.projector_compress`, the placeholders of frames that are left out go, and rows become shorter.

        Args:
            input_ids, attention_mask, labels: `(batch, length)`.
            ctc: compute the CTC head's log-probabilities too.
            audio: the arguments of [`get_audio_features`].
        """
        found = None
        if audio.get("input_features") is not None or audio.get("encoder_hidden_states") is not None:
            found = self.get_audio_features(**audio, return_dict=True)
        placeholders = input_ids == self.config.audio_token_id
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if found is not None:
            found.check_placeholders(placeholders)
        audio_features = None if found is None else found.pooler_output
        places = self.get_placeholder_mask(input_ids, embeddings, audio_features)[..., 0]
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        attention_mask = attention_mask.to(embeddings.device)
        if found is None:
            return MergedInputs(embeddings, attention_mask, labels, places)
        frames, mask = found.padded()
        compress = self.config.projector_compress is not None
        scores = CtcScores(self.ctc_log_probs(frames), mask) if ctc or compress else None
        heard, used = (frames, mask), places
        if compress and scores is not None:
            sound = self.read_frames(frames, scores.log_probs)
            heard = compress_frames(sound, mask, scores.log_probs.detach(), self.config.projector_compress_keep)
            kept = heard[1].sum(-1, keepdim=True).to(places.device)
            used = places & (places.cumsum(-1) <= kept)
            attention_mask = attention_mask * (used | ~places)
        audio_embeddings = heard[0].to(embeddings)[heard[1].to(embeddings.device)]
        embeddings = embeddings.masked_scatter(used[..., None], audio_embeddings)
        if compress:
            attention_mask, embeddings, used, *rest = pad_left(
                attention_mask, embeddings, used, *([] if labels is None else [labels])
            )
            labels = rest[0] if rest else None
        return MergedInputs(embeddings, attention_mask, labels, used, scores)

    @can_return_tuple
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
        cache: Any = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        return_logits: bool = True,
        ctc_weight: float = 0.0,
        **kwargs: Any,
    ) -> SlamAsrOutput:
        """
        Args:
            input_ids, attention_mask: `(batch, length)` as the processor makes them, padded at either side.
            labels: `(batch, length)`, -100 where there is no loss. Logits are computed for labelled positions only.
            num_items_in_batch: divide the summed loss by this many label tokens (gradient accumulation); their own number
                when None.
            return_logits: False where only the loss is wanted: its gradient then takes the logits' place in memory.
            ctc_weight: the CTC head's share of the loss, `(1 - ctc_weight) * cross-entropy + ctc_weight * CTC`. With 1 the LLM
                only lends its embeddings: there are no logits.
            past_key_values, cache: the LLM's cache, under either name.
            kwargs: passed to the LLM. The audio arguments are those of [`get_audio_features`].
        """
        scores, ctc = None, None
        cache = past_key_values if cache is None else cache
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError(
                    "forward needs input_ids; `processor.apply_transcription_request(audio)` makes them. If this is "
                    "transformers' own ASR pipeline around a loaded model: without `import modeling_slam_asr` only a folder "
                    "or Hub name gets the right one, `pipeline(task, model=NAME, trust_remote_code=True)`."
                )
            names = ("input_features", "input_features_mask", "encoder_hidden_states", "encoder_attention_mask")
            given = (input_features, input_features_mask, encoder_hidden_states, encoder_attention_mask)
            audio = dict(zip(names, given, strict=True))
            if labels is not None and ctc_weight >= 1:
                frames, frames_mask = self.get_audio_features(**audio, return_dict=True).padded()
                scores = CtcScores(self.ctc_log_probs(frames), frames_mask)
                alone = self.ctc_loss(scores, labels, num_items_in_batch)
                return SlamAsrOutput(loss=alone, ctc_log_probs=scores.log_probs, ctc_mask=scores.mask)
            merged = self.merge_inputs(input_ids, attention_mask, labels, ctc=ctc_weight > 0, **audio)
            scores = merged.ctc
            if labels is not None and ctc_weight > 0 and scores is not None:
                ctc = self.ctc_loss(scores, labels, num_items_in_batch)
            inputs_embeds, labels = merged.inputs_embeds, merged.labels
            if attention_mask is not None or cache is None:
                attention_mask = merged.attention_mask
        accepted = llm_arguments(self.language_model.__class__)
        if position_ids is None and attention_mask is not None and cache is None:
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
        if cache is not None:
            kwargs[CACHE] = cache
        outputs = self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        logits, loss = outputs.logits, None
        if targets is not None:
            if logits.shape[1] != len(positions):
                logits = logits[:, positions]
            targets = targets[:, positions].to(logits.device)
            count = num_items_in_batch if num_items_in_batch is not None else (targets != -100).sum().clamp(min=1)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), count, consume=not return_logits)
            if ctc is not None:
                loss = (1 - ctc_weight) * loss + ctc_weight * ctc
        return SlamAsrOutput(
            loss=loss,
            logits=logits if return_logits else None,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            ctc_log_probs=scores.log_probs if scores is not None else None,
            ctc_mask=scores.mask if scores is not None else None,
            **{CACHE: outputs.get(CACHE)},
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]  # audio comes first; the rest passes through
        self,
        input_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        request: TranscriptRequest | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Transcribe: new tokens only, `(batch * num_return_sequences, new_tokens)`.

        Each utterance is encoded once, whatever the number of beams. Without `max_new_tokens`, an utterance may bring
        `config.max_tokens_per_second` tokens for each of its own seconds, and no more than a `max_length`, which counts new
        tokens here; a transcript that repeats itself is ended.

        Args:
            labels: `(batch, length)`, of a batch to train on: its transcripts are not read.
            generation_config, kwargs: as of `GenerationMixin.generate`; the audio arguments are those of [`forward`].
                `prompt_columns=True`, here or in the generation configuration, is for programs that cut the prompt off
                themselves, `tokens[:, input_ids.shape[1]:]`: each row then begins with an audio placeholder for every
                column of `input_ids`. The processor's `decode` leaves placeholders out, so it reads both forms alike.
                `ctc_draft=True`: the LLM verifies one utterance's CTC transcript; `ctc_only=True` gives that transcript itself.
                `ctc_weight`, 0 to below 1: how much the CTC head has to say in each next token, see [`CtcPrefixScores`].
            request: in place of both, what [`transcript_request`] made of them.
        """
        if input_ids is None:
            raise ValueError("generate needs input_ids; `processor.apply_transcription_request(audio)` makes them.")
        if request is None:
            request = self.transcript_request(
                input_ids, input_features_mask, encoder_attention_mask, generation_config, **kwargs
            )
        if labels is not None:
            attention_mask = (labels == -100) * (1 if attention_mask is None else attention_mask)
        config, rest = request.config, dict(request.options)
        ctc = ctc_share(config, rest, self.config.projector_ctc, len(input_ids), type(self.language_model))
        merged = self.merge_inputs(
            input_ids,
            attention_mask,
            ctc=ctc.needed,
            input_features=input_features,
            input_features_mask=input_features_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )
        if ctc.only and merged.ctc is not None:
            heard = self.ctc_sequences(merged.ctc, min(request.end_tokens, default=0)).to(input_ids.device)
            columns = torch.full_like(input_ids, self.config.audio_token_id)
            return torch.cat([columns, heard], dim=1) if request.prompt_columns else heard
        attention_mask, embeddings = pad_left(merged.attention_mask, merged.inputs_embeds)
        placeholders = input_ids == self.config.audio_token_id
        processors = LogitsProcessorList(rest.pop("logits_processor", None) or [])
        ends = config.eos_token_id if isinstance(config.eos_token_id, list | tuple) else [config.eos_token_id]
        silent = placeholders.any(-1) & ~merged.audio.any(-1).to(placeholders.device)
        if silent.any() and ends[0] is not None:
            processors.append(EndSilence(silent, ends[0]))
        if ctc.weight and merged.ctc is not None:
            processors.append(CtcPrefixScores(merged.ctc, self.ctc_tokens(), request.end_tokens, ctc.weight))
        if ctc.draft and merged.ctc is not None:
            guess, streamer = self.ctc_transcripts(merged.ctc)[0], rest.get("streamer")
            if streamer is not None and hasattr(streamer, "put_draft"):
                streamer.put_draft(guess)
            rest["custom_generate"] = draft_decoding(guess, streamer)
        output = self.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            generation_config=config,
            logits_processor=processors,
            **{**rest, "stopping_criteria": request.stopping_criteria()},
        )
        if not request.prompt_columns:
            return output
        tokens = output if isinstance(output, torch.Tensor) else output.sequences
        columns = tokens.new_full((len(tokens), input_ids.shape[1]), self.config.audio_token_id)
        tokens = torch.cat([columns, tokens], dim=1)
        if isinstance(output, torch.Tensor):
            return tokens
        output.sequences = tokens
        return output

    def transcript_request(
        self,
        input_ids: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> TranscriptRequest:
        """The settings of a call of [`generate`] with these arguments; given to it as `request`, they are not derived again."""
        masks = (input_features_mask, MEL_FRAMES_PER_SECOND), (encoder_attention_mask, ENCODER_FRAMES_PER_SECOND)
        known = [mask.sum(-1).to(input_ids.device) / rate for mask, rate in masks if mask is not None]
        seconds = known[0] if known else torch.tensor(ENCODER_SECONDS)
        tokens = (input_ids == self.config.audio_token_id).sum(-1)
        return transcript_request(
            self.generation_config,
            generation_config,
            kwargs,
            tokens * self.config.audio_geometry.seconds_per_token(seconds),
            self.config.max_tokens_per_second,
        )
