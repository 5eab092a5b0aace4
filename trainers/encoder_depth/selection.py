"""Ways to choose which of an encoder's blocks are pruned: one table, which studies, the profile and the command read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainers.errors import UserError

# What a method may need; said in errors.
PROFILE = "a profile of the encoder"
TRAINED = "a trained model and transcripts"


@dataclass
class DepthProfile:
    """
    What was measured; lists have one entry a block, in the order of `blocks`.

    Attributes:
        blocks: the profiled blocks' indices in the base encoder.
        pruned: indices of base blocks that were gone before.
        cosine_distance: mean of 1 - cosine between a block's input and output.
        cka_distance: 1 - linear CKA of input and output.
        angles: `(blocks + 1, blocks + 1)` mean angle / pi between the states at two depths.
        loss, losses_without: mean loss a token of the whole model, and without each block; empty without a trained model.
    """

    blocks: list[int]
    pruned: list[int]
    cosine_distance: list[float]
    cka_distance: list[float]
    angles: list[list[float]]
    utterances: int
    seconds: float
    loss: float | None = None
    losses_without: list[float] = field(default_factory=list)

    @property
    def angular_distance(self) -> list[float]:
        """Mean angle / pi between each block's input and output."""
        return [self.angles[index][index + 1] for index in range(len(self.blocks))]

    @property
    def methods(self) -> list[str]:
        """The methods that this profile can serve."""
        return [name for name, method in METHODS.items() if method.needs != TRAINED or self.losses_without]

    def recommend(self, method: str, count: int) -> list[int]:
        """`prune_encoder_layers` for leaving out `count` more blocks by one method: base indices, earlier ones included.

        Raises:
            UserError: the method is unknown or was not measured, or `count` blocks cannot go.
        """
        positions = choose_blocks(method, count, len(self.blocks), self)
        return sorted([*self.pruned, *(self.blocks[position] for position in positions)])

    def to_dict(self) -> dict[str, object]:
        """The content of `depth.json`: the measurements, and the recommendations of every method for every count."""
        counts = range(1, len(self.blocks))
        return {
            "blocks": self.blocks,
            "pruned_before": self.pruned,
            "utterances": self.utterances,
            "seconds": self.seconds,
            "cosine_distance": self.cosine_distance,
            "angular_distance": self.angular_distance,
            "cka_distance": self.cka_distance,
            "angles": self.angles,
            "loss": self.loss,
            "losses_without": self.losses_without or None,
            "prune_encoder_layers": {
                method: {str(count): self.recommend(method, count) for count in counts} for method in self.methods
            },
        }


@dataclass(frozen=True)
class Method:
    """
    A way to choose blocks.

    Attributes:
        choose: from how many to prune, the number of blocks, and the profile (a `DepthProfile`; None where `needs` is) to
            the positions to prune, in order.
        prunes: which blocks those are, in words.
        needs: None, `PROFILE`, or `TRAINED` for a profile with losses.
    """

    choose: Callable[[int, int, Any], list[int]]
    prunes: str
    needs: str | None


def needs_of(method: str) -> str | None:
    """What a method needs; None for nothing, and for blocks that are listed and not chosen."""
    return METHODS[method].needs if method in METHODS else None


def choose_blocks(method: str, count: int, blocks: int, profile: DepthProfile | None = None) -> list[int]:
    """Which `count` of `blocks` blocks to prune (positions, in order); `last` and `evenly_spaced` need no profile.

    Raises:
        UserError: the method is unknown or was not measured, chose another number of blocks, or `count` blocks cannot go.
    """
    if method not in METHODS:
        raise UserError(f"The selection method {method!r} is unknown. Choose one of {', '.join(METHODS)}.")
    if not 0 <= count < blocks:
        raise UserError(f"{count} of {blocks} encoder blocks cannot be pruned: give a number from 0 to {blocks - 1}.")
    needs = METHODS[method].needs
    if needs is not None and (profile is None or method not in profile.methods):
        raise UserError(f"The selection method {method!r} needs {needs}.")
    chosen = METHODS[method].choose(count, blocks, profile)
    if len(chosen) != count or len(set(chosen).intersection(range(blocks))) != count:
        raise UserError(
            f"The selection method {method!r} was to choose {count} of {blocks} blocks and chose {chosen}. Where it reads a measure, "
            "the profile may lack it."
        )
    return chosen


def _last(count: int, blocks: int, profile: object) -> list[int]:
    """The paper's way (arXiv 2603.27981)."""
    return list(range(blocks - count, blocks))


def _evenly_spaced(count: int, blocks: int, profile: object) -> list[int]:
    """As distil-whisper (arXiv 2311.00430)."""
    kept = set(np.linspace(0, blocks - 1, blocks - count).round().astype(int).tolist())
    return [position for position in range(blocks) if position not in kept]


def _cosine(count: int, blocks: int, profile: DepthProfile) -> list[int]:
    """ShortGPT's block influence (arXiv 2403.03853)."""
    return _least(profile.cosine_distance, count)


def _angular(count: int, blocks: int, profile: DepthProfile) -> list[int]:
    """As arXiv 2403.17887."""
    start = min(range(blocks - count + 1), key=lambda first: (profile.angles[first][first + count], -first))
    return list(range(start, start + count))


def _cka(count: int, blocks: int, profile: DepthProfile) -> list[int]:
    """Linear centred kernel alignment (arXiv 1905.00414)."""
    return _least(profile.cka_distance, count)


def _leave_one_out(count: int, blocks: int, profile: DepthProfile) -> list[int]:
    return _least(profile.losses_without, count)


def _least(values: Sequence[float], count: int) -> list[int]:
    """The positions of the `count` least values; of equal blocks the later one goes."""
    return sorted(sorted(range(len(values)), key=lambda position: (values[position], -position))[:count])


METHODS = {
    "last": Method(_last, "the last blocks", None),
    "evenly_spaced": Method(_evenly_spaced, "all but evenly spaced ones; the first and the last stay", None),
    "cosine": Method(_cosine, "those with the least influence, 1 - cosine of a block's input and output", PROFILE),
    "angular": Method(_angular, "the run of neighbours with the least angle from its input to its output", PROFILE),
    "cka": Method(_cka, "those whose input and output have the greatest linear CKA", PROFILE),
    "leave_one_out": Method(_leave_one_out, "those without which the trained model's loss rises least", TRAINED),
}
