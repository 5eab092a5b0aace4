"""Elastic depth: one projector for encoders of several depths."""

from collections.abc import Sequence
from typing import Any

import torch

from trainers.data.rows import TrainingRow
from trainers.feature_cache import FeatureRows


class ElasticRows(torch.utils.data.Dataset[TrainingRow]):
    """
    The same utterances at several depths, as rows of one data set.

    A projector trained on these learns to read every depth: a shuffled batch mixes them, and an epoch has each utterance
    at each depth. One checkpoint then serves all of them at load time (`from_pretrained(..., prune_encoder_layers=n)`).

    Args:
        depths: the rows at each depth, in the same order.
        in_turn: each utterance once, the depths in turn; for validation.
    """

    def __init__(self, depths: Sequence[FeatureRows], in_turn: bool = False) -> None:
        self.depths, self.in_turn = list(depths), in_turn

    def __len__(self) -> int:
        return len(self.depths[0]) * (1 if self.in_turn else len(self.depths))

    def __getitem__(self, index: int | str) -> Any:
        if isinstance(index, str):
            return list(self.depths[0][index]) * (1 if self.in_turn else len(self.depths))
        if self.in_turn:
            return self.depths[index % len(self.depths)][index]
        depth, row = divmod(index, len(self.depths[0]))
        return self.depths[depth][row]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that can be read alone."""
        return self.depths[0].column_names
