"""One pass of the full encoder for many pruned ones: shared beginnings are computed once."""

from collections.abc import Iterable, Sequence

import torch

from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.errors import UserError

Depth = int | Sequence[int]
"""A number of blocks (the first ones), or the indices of the base encoder's blocks that are kept, in order."""


def kept_blocks(depth: Depth) -> tuple[int, ...]:
    """The kept blocks' indices that a depth stands for."""
    return tuple(range(depth)) if isinstance(depth, int) else tuple(depth)


def depth_name(depth: Depth) -> str:
    """How a depth is called in a cache: `6` for the first six blocks, else the kept indices, as `blocks-0-2-5`."""
    kept = kept_blocks(depth)
    return str(len(kept)) if kept == tuple(range(len(kept))) else "-".join(["blocks", *map(str, kept)])


def check_depths(depths: Iterable[Depth], encoder: SlamAsrEncoder) -> dict[str, tuple[int, ...]]:
    """The distinct depths by name, the shallowest first.

    Raises:
        UserError: no depth at all, or one that names a block which the encoder lacks, or names blocks out of order.
    """
    named = {depth_name(depth): kept_blocks(depth) for depth in depths}
    if not named:
        raise UserError("The list of depths is empty: name at least one number of encoder blocks.")
    for name, kept in named.items():
        missing = [index for index in kept if index not in encoder.kept_layers]
        if missing or list(kept) != sorted(set(kept)):
            raise UserError(
                f"Depth {name} is not possible: the encoder has the blocks {encoder.kept_layers}. "
                "Give a number of blocks, or increasing indices of blocks that are there."
            )
    return dict(sorted(named.items(), key=lambda item: (len(item[1]), item[1])))


@torch.no_grad()
def states_at(
    encoder: SlamAsrEncoder,
    input_features: torch.Tensor,
    attention_mask: torch.Tensor | None,
    depths: Iterable[tuple[int, ...]],
) -> tuple[dict[tuple[int, ...], torch.Tensor], torch.Tensor]:
    """
    Hidden states before the final LayerNorm of several pruned encoders, each block sequence run once.

    For depths that are all "the first n" this is one pass of the deepest, `SlamAsrEncoder.hidden_states_at`; sequences that
    leave out middle blocks share what they begin with and add the rest.

    Args:
        input_features: `(batch, mel_bins, mel_frames)` with `attention_mask` `(batch, mel_frames)`.
        depths: kept blocks' indices, as of [`kept_blocks`].
    Returns:
        `{kept: (batch, frames, d_model)}` and the mask `(batch, frames)`, bool.
    """
    wanted = set(depths)
    place = {index: position for position, index in enumerate(encoder.kept_layers)}
    embedded, frame_mask = encoder.embed(input_features, attention_mask)
    block_mask = encoder.block_mask(embedded, frame_mask)
    found: dict[tuple[int, ...], torch.Tensor] = {}

    def descend(prefix: tuple[int, ...], hidden: torch.Tensor, targets: set[tuple[int, ...]]) -> None:
        while True:
            if prefix in targets:
                found[prefix] = hidden
            branches = sorted({kept[len(prefix)] for kept in targets if len(kept) > len(prefix)})
            if not branches:
                return
            for block in branches[:-1]:
                longer = (*prefix, block)
                below = {kept for kept in targets if kept[: len(longer)] == longer}
                descend(longer, encoder.layers[place[block]](hidden, block_mask), below)
            prefix = (*prefix, branches[-1])
            targets = {kept for kept in targets if kept[: len(prefix)] == prefix}
            hidden = encoder.layers[place[branches[-1]]](hidden, block_mask)

    descend((), embedded, wanted)
    return found, frame_mask
