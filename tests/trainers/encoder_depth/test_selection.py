"""The choice of blocks to prune, and the one table that all who offer the methods read."""

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

from trainers.commands import depth
from trainers.encoder_depth.selection import METHODS, PROFILE, DepthProfile, Method, choose_blocks, needs_of
from trainers.errors import UserError
from trainers.study.recipe import Selection


def _profile(**more: Any) -> DepthProfile:
    angles = np.abs(np.subtract.outer(np.array([0, 1, 5, 5.1, 5.3]), np.array([0, 1, 5, 5.1, 5.3])))
    return DepthProfile(
        blocks=[0, 1, 3, 5], pruned=[2, 4], cosine_distance=[0.5, 0.1, 0.1, 0.4], cka_distance=[0.0, 0.3, 0.2, 0.1],
        angles=angles.tolist(), utterances=3, seconds=9.0, **more,
    )  # fmt: skip


def test_choices() -> None:
    assert choose_blocks("last", 2, 6) == [4, 5]
    kept = [index for index in range(12) if index not in choose_blocks("evenly_spaced", 8, 12)]
    assert kept == [0, 4, 7, 11]  # distil-whisper's layers
    profile = _profile()
    assert choose_blocks("cosine", 1, 4, profile) == [2]  # of equals the later
    assert choose_blocks("cosine", 2, 4, profile) == [1, 2]
    assert choose_blocks("cka", 2, 4, profile) == [0, 3]
    assert choose_blocks("angular", 2, 4, profile) == [2, 3]
    assert profile.recommend("angular", 2) == [2, 3, 4, 5]
    assert profile.recommend("last", 1) == [2, 4, 5]


def test_choices_that_cannot_be() -> None:
    with pytest.raises(UserError, match="'first' is unknown"):
        choose_blocks("first", 1, 4)
    with pytest.raises(UserError, match="4 of 4 encoder blocks cannot"):
        choose_blocks("last", 4, 4)
    with pytest.raises(UserError, match="needs a trained model"):
        choose_blocks("leave_one_out", 1, 4, _profile())
    with pytest.raises(UserError, match="needs a profile"):
        choose_blocks("cka", 1, 4)


@pytest.mark.parametrize("chosen", [[], [1], [1, 1], [1, 4], [0, 1, 2]])
def test_a_method_that_chooses_another_number_of_blocks_is_refused(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose measure an older profile does not have: the encoder would stay as it is."""
    monkeypatch.setitem(METHODS, "mine", Method(lambda *_: chosen, "those of mine", PROFILE))
    with pytest.raises(UserError, match="'mine' was to choose 2 of 4 blocks"):
        choose_blocks("mine", 2, 4, _profile())


def test_all_who_offer_methods_offer_these() -> None:
    assert get_args(Selection) == tuple(METHODS)
    assert all(f"  {name} " in depth.HELP and method.prunes in depth.HELP for name, method in METHODS.items())
    assert _profile(losses_without=[1.0, 2.0, 3.0, 4.0]).methods == list(METHODS)
    assert needs_of("listed") is None and needs_of("last") is None


def test_the_table_needs_no_torch() -> None:
    code = "import sys, trainers.commands.depth; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
