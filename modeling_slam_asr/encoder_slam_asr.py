"""Whisper's encoder for utterances of any length up to 30 s, with a padding mask and with blocks left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import WhisperConfig
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoderLayer, WhisperPreTrainedModel
from transformers.utils.output_capturing import capture_outputs

from .projector_slam_asr import ENCODER_FRAMES_PER_SECOND, CtcScores

__all__ = [
    "UNEQUAL",
    "MergedInputs",
    "SlamAsrAudioOutput",
    "SlamAsrEncoder",
    "SlamAsrEncoderOutput",
    "beside",
    "sinusoids",
]

UNEQUAL = "Processor and model must have the same projector settings, and a padded batch its input_features_mask."


@dataclass
class SlamAsrEncoderOutput(BaseModelOutput):
    """
    last_hidden_state (`torch.Tensor` of shape `(batch, frames, d_model)`): after the final LayerNorm, 50 frames a second.
    hidden_states, attentions: of each block, when asked for.
    attention_mask (`torch.Tensor` of shape `(batch, frames)`, bool): True where a frame belongs to the utterance.
    """

    attention_mask: torch.Tensor | None = None


@dataclass
class SlamAsrAudioOutput(BaseModelOutputWithPooling):
    """
    last_hidden_state: the encoder's, `(batch, frames, d_model)`, zero where a frame is padding.
    pooler_output: the audio embeddings of all recordings in a row, `(audio_tokens of the batch, hidden)`.
    attention_mask: `(batch, audio_tokens)`, bool: which recording each of them belongs to.
    """

    attention_mask: torch.Tensor | None = None

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The audio embeddings as `(batch, audio_tokens, hidden)`, zero where there is none, and their mask."""
        assert self.pooler_output is not None and self.attention_mask is not None
        rows = self.pooler_output.new_zeros(*self.attention_mask.shape, self.pooler_output.shape[-1])
        return rows.masked_scatter(self.attention_mask[..., None], self.pooler_output), self.attention_mask

    def rows(self) -> tuple[torch.Tensor, ...]:
        """The audio embeddings of each recording, `(audio_tokens, hidden)`."""
        assert self.pooler_output is not None and self.attention_mask is not None
        return self.pooler_output.split(self.attention_mask.sum(-1).tolist())

    def check_placeholders(self, places: torch.Tensor) -> None:
        """
        Raises:
            ValueError: when a row of `places` `(batch, length)`, bool, has not as many as its recording has embeddings.
        """
        assert self.attention_mask is not None
        wanted, given = places.sum(-1), self.attention_mask.sum(-1).to(places.device)
        if not torch.equal(wanted, given):
            raise ValueError(
                f"input_ids has {wanted.tolist()} audio placeholders a row, but the audio gives {given.tolist()} embeddings. {UNEQUAL}"
            )


@dataclass
class MergedInputs:
    """
    What the LLM reads: `inputs_embeds` `(batch, length, hidden)` and its `attention_mask`, with `labels` where there are any.

    audio: which places hold audio, `(batch, length)`, bool.
    ctc: the CTC head's scores of all frames, those that compression leaves out too; None where nobody asked.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor | None
    audio: torch.Tensor
    ctc: CtcScores | None = None


class SlamAsrEncoder(WhisperPreTrainedModel):
    """
    Whisper's encoder without the two limits of `WhisperEncoder`: the input need not have 3,000 mel frames, and padding is
    masked before each convolution and in the attention, so that an utterance's output does not depend on its batch.

    Args:
        config: the configuration of the *base* encoder; `config.encoder_layers` counts its blocks before pruning.
        kept_layers: indices of the base blocks to build, in increasing order; all when None. Others are never built.
            Block `i` of this module is block `kept_layers[i]` of the base encoder.
    """

    config: WhisperConfig
    _no_split_modules = ["WhisperEncoderLayer"]  # noqa: RUF012  # FSDP looks for each of them, and there is no decoder here
    _can_record_outputs = {"hidden_states": WhisperEncoderLayer, "attentions": WhisperAttention}  # noqa: RUF012

    def __init__(self, config: WhisperConfig, kept_layers: Sequence[int] | None = None) -> None:
        super().__init__(config)
        self.kept_layers = list(range(config.encoder_layers)) if kept_layers is None else list(kept_layers)
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.embed_positions.requires_grad_(False)
        self.layers = nn.ModuleList([WhisperEncoderLayer(config) for _ in self.kept_layers])
        self.layer_norm = nn.LayerNorm(config.d_model)
        self.gradient_checkpointing = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.embed_positions:
            init.copy_(module.weight, sinusoids(*module.weight.shape))
        else:
            super()._init_weights(module)

    def embed(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The two convolutions and the positions: what the first block reads.

        Args:
            input_features: log-mel spectrogram, `(batch, num_mel_bins, mel_frames)`, 100 frames a second.
            attention_mask: `(batch, mel_frames)`, 1 for frames of the utterance; padding stands at the end.
        Returns:
            hidden states `(batch, frames, d_model)` and their mask `(batch, frames)`, bool, with `frames = mel_frames / 2`.
        Raises:
            ValueError: for a wrong number of mel bins, or more frames than the encoder has positions for (30 s).
        """
        if input_features.shape[1] != self.config.num_mel_bins:
            raise ValueError(
                f"This encoder reads {self.config.num_mel_bins} mel bins but got {input_features.shape[1]}. "
                "Use the feature extractor that belongs to the model."
            )
        frames = (input_features.shape[-1] + 1) // 2
        if frames > self.config.max_source_positions:
            raise ValueError(
                f"The audio has {frames} encoder frames ({frames / ENCODER_FRAMES_PER_SECOND:.1f} s) but the encoder has positions for "
                f"{self.config.max_source_positions} ({self.config.max_source_positions / ENCODER_FRAMES_PER_SECOND:.0f} s). "
                "Cut it into shorter windows; the pipeline and `slam-asr transcribe` do so."
            )
        hidden_states = beside(input_features, self.conv1.weight)
        # The convolutions see two neighbours. Zeros beyond the utterance's end are what they would see were it alone.
        if attention_mask is None:
            frame_mask = torch.ones(input_features.shape[0], frames, dtype=torch.bool, device=hidden_states.device)
            hidden_states = nn.functional.gelu(self.conv1(hidden_states))
        else:
            mel_mask = attention_mask.to(hidden_states)[:, None, :]
            hidden_states = nn.functional.gelu(self.conv1(hidden_states * mel_mask)) * mel_mask
            frame_mask = attention_mask[:, ::2].to(device=hidden_states.device, dtype=torch.bool)
        hidden_states = nn.functional.gelu(self.conv2(hidden_states)).transpose(1, 2)
        # Called, not indexed: the weights of an offloaded model are there only while a module is called.
        hidden_states = hidden_states + self.embed_positions(torch.arange(frames, device=hidden_states.device))
        return nn.functional.dropout(hidden_states, p=self.config.dropout, training=self.training), frame_mask

    @capture_outputs
    def forward(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> SlamAsrEncoderOutput:
        """Encode; shapes as in [`embed`] and [`SlamAsrEncoderOutput`]. `kwargs`: `output_hidden_states`, `output_attentions`."""
        hidden_states, frame_mask = self.embed(input_features, attention_mask)
        if self.gradient_checkpointing and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            hidden_states.requires_grad_()  # reentrant checkpoints lose LoRA's gradients where no input asks for one
        block_mask = self.block_mask(hidden_states, frame_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, block_mask)
        return SlamAsrEncoderOutput(self.layer_norm(hidden_states), attention_mask=frame_mask)

    def hidden_states_at(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None, depths: Iterable[int]
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """
        Hidden states *before* the final LayerNorm after each of several numbers of blocks, in one pass.

        An encoder pruned to its first `d` blocks ends with `layer_norm(states[d])`, so one pass serves all depths.

        Args:
            depths: numbers of this module's blocks, each from 0 to `len(layers)`. Deeper blocks than the greatest are not run.
        Returns:
            `{depth: (batch, frames, d_model)}` and the mask `(batch, frames)`.
        """
        wanted = set(depths)
        if not wanted or min(wanted) < 0 or max(wanted) > len(self.layers):
            raise ValueError(
                f"Depths must lie between 0 and {len(self.layers)}, the encoder's blocks; got {sorted(wanted)}."
            )
        hidden_states, frame_mask = self.embed(input_features, attention_mask)
        block_mask = self.block_mask(hidden_states, frame_mask)
        states = {0: hidden_states} if 0 in wanted else {}
        for depth, layer in enumerate(self.layers[: max(wanted)], start=1):
            hidden_states = layer(hidden_states, block_mask)
            if depth in wanted:
                states[depth] = hidden_states
        return states, frame_mask

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            "torch's DataParallel cannot run this model. Start one process a GPU, `torchrun --nproc-per-node 2 train.py`, or show one "
            "GPU alone: CUDA_VISIBLE_DEVICES=0."
        )

    def block_mask(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> Any:
        """The mask that the attention implementation in use wants, from a `(batch, frames)` mask; None if nothing is padded."""
        return create_bidirectional_mask(self.config, inputs_embeds=hidden_states, attention_mask=frame_mask)


def beside(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`tensor` in the dtype of a module's `weight` and on its device, but for a weight that is offloaded."""
    return tensor.to(weight.dtype) if weight.is_meta else tensor.to(weight)


def sinusoids(length: int, channels: int, max_timescale: float = 10_000.0) -> torch.Tensor:
    """Whisper's fixed positions, `(length, channels)`: sines in the first half of the channels, cosines in the second."""
    rates = max_timescale ** -torch.linspace(0, 1, channels // 2)
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
