"""Clips of about one length, made of whole utterances, so that their transcripts are known."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.sound import RATE

FILLED = 0.8  # a clip lasts at least this part of the length that is asked for, and at most all of it
_TRIES = 400


@dataclass(frozen=True)
class Clip:
    """samples: mono, float32, at 16 kHz. text: what is said."""

    samples: NDArray[np.float32]
    text: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def make_clips(datasets: Sequence[str], split: str, language: str, seconds: float, count: int) -> list[Clip]:
    """
    So many clips, a seeded choice; utterances may stand in several.

    Args:
        datasets: Hub names, folders, manifests, or `embedded`.
    Raises:
        UserError: when no clip of that length can be made of the utterances.
    """
    specs = [
        DataSpec(dataset=name, split=split, language=language, lowercase=False, remove_punctuation=False)
        for name in datasets
    ]
    rows = prepare(specs, "test", quiet=True)[0]
    lengths, texts = list(rows["seconds"]), list(rows["text"])
    rng, found = random.Random(f"{seconds} {count}"), []
    for _ in range(_TRIES * count):
        chosen: list[int] = []
        left = seconds
        for index in rng.sample(range(len(lengths)), len(lengths)):
            if lengths[index] <= left:
                chosen.append(index)
                left -= lengths[index]
            if seconds - left >= FILLED * seconds:
                sound = np.concatenate([read_audio(rows[one]) for one in chosen])
                found.append(Clip(sound.astype(np.float32), " ".join(texts[one] for one in chosen)))
                break
        if len(found) == count:
            return found
    raise UserError(
        f"Of {len(lengths)} utterances no {count} clips of {FILLED * seconds:.1f} to {seconds:g} s can be made. Name more data."
    )
