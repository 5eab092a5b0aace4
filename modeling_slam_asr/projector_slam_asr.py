"""Projectors: from the encoder's frames to embeddings that the LLM reads."""

import os
from typing import Any

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from .checkpoint_slam_asr import checkpoint_files, load_strictly, read_pruned
from .configuration_slam_asr import SlamAsrConfig

__all__ = [
    "ConcatLinearProjector",
    "Conv1dProjector",
    "QFormerProjector",
    "build_projector",
    "hidden_size",
    "load_projector",
]


class ConcatLinearProjector(nn.Module):
    """
    The paper's projector: `k` neighbouring frames joined, then Linear, ReLU, Dropout, Linear, LayerNorm.

    Source: SLAM-ASR (arXiv 2402.08846), with the LayerNorm and dropout of arXiv 2603.27981; modules are named as in its code.
    """

    def __init__(self, config: SlamAsrConfig) -> None:
        super().__init__()
        self.downsample_rate = config.projector_downsample_rate
        text_size = hidden_size(config)
        self.linear1 = nn.Linear(config.audio_config.d_model * self.downsample_rate, config.projector_hidden_size)
        self.dropout = nn.Dropout(config.projector_dropout)
        self.linear2 = nn.Linear(config.projector_hidden_size, text_size)
        self.layer_norm = nn.LayerNorm(text_size) if config.projector_layer_norm else nn.Identity()

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, frames, d_model)` and `(batch, frames)` to `(batch, frames // k, hidden)` and its mask."""
        frames, mask = _group(frames, mask, self.downsample_rate)
        hidden = self.dropout(nn.functional.relu(self.linear1(frames)))
        return self.layer_norm(self.linear2(hidden)), mask


class Conv1dProjector(nn.Module):
    """
    A strided convolution over time, ReLU, two Linear layers, LayerNorm, as in the code of arXiv 2603.27981.

    Without the LayerNorm it is SLAM-LLM's `cov1d-linear`, which has a ReLU between its Linear layers instead.
    """

    def __init__(self, config: SlamAsrConfig) -> None:
        super().__init__()
        self.downsample_rate = config.projector_downsample_rate
        size, text_size = config.audio_config.d_model, hidden_size(config)
        self.conv1d = nn.Conv1d(size, size, kernel_size=self.downsample_rate, stride=self.downsample_rate)
        self.linear1 = nn.Linear(size, config.projector_hidden_size)
        self.between = nn.Identity() if config.projector_layer_norm else nn.ReLU()
        self.linear2 = nn.Linear(config.projector_hidden_size, text_size)
        self.layer_norm = nn.LayerNorm(text_size) if config.projector_layer_norm else nn.Identity()

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shapes as in [`ConcatLinearProjector`]."""
        mask = mask[:, self.downsample_rate - 1 :: self.downsample_rate]
        hidden = nn.functional.relu(self.conv1d(frames.transpose(1, 2)).transpose(1, 2))
        return self.layer_norm(self.linear2(self.between(self.linear1(hidden)))), mask


class QFormerProjector(nn.Module):
    """A fixed number of learned queries that attend to the frames (BLIP-2's Q-Former), then Linear and LayerNorm."""

    def __init__(self, config: SlamAsrConfig) -> None:
        super().__init__()
        qformer = Blip2QFormerConfig(
            encoder_hidden_size=config.audio_config.d_model, num_hidden_layers=config.projector_num_layers
        )
        self.query = nn.Parameter(torch.empty(1, config.projector_num_queries, qformer.hidden_size).normal_())
        self.qformer = Blip2QFormerModel(qformer)
        self.linear = nn.Linear(qformer.hidden_size, hidden_size(config))
        self.norm = nn.LayerNorm(hidden_size(config))

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, frames, d_model)` and `(batch, frames)` to `(batch, queries, hidden)` and a mask of ones."""
        query = self.query.expand(len(frames), -1, -1)
        output = self.qformer(query_embeds=query, encoder_hidden_states=frames, encoder_attention_mask=mask.long())
        return self.norm(self.linear(output.last_hidden_state)), mask.new_ones(query.shape[:2])


PROJECTORS: dict[str, type[nn.Module]] = {
    "concat_linear": ConcatLinearProjector,
    "conv1d": Conv1dProjector,
    "qformer": QFormerProjector,
}


def build_projector(config: SlamAsrConfig) -> nn.Module:
    """The projector that `config.projector_type` names, with torch's own initial weights."""
    return PROJECTORS[config.projector_type](config)


def load_projector(projector: nn.Module, path: str | os.PathLike[str], hub: dict[str, Any]) -> None:
    """Give `projector` the tensors of the adapter-form checkpoint at `path`, strictly, in its own dtype and place."""
    weight = next(projector.parameters())
    tensors = read_pruned(checkpoint_files(path, **hub), [], [])
    load_strictly(projector, tensors, os.fspath(path), weight.dtype, "projector.")
    projector.to(weight.device)


def hidden_size(config: SlamAsrConfig) -> int:
    """The width of the LLM's embeddings."""
    return config.text_config.get_text_config().hidden_size


def _group(frames: torch.Tensor, mask: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Join each `size` frames; a last group that is not full is dropped (the processor pads so that none is)."""
    batch, length, width = frames.shape
    groups = length // size
    grouped = frames[:, : groups * size].reshape(batch, groups, size * width)
    return grouped, mask[:, size - 1 :: size][:, :groups]
