"""Sounds without a word: made once, told apart by split, learnt from with empty transcripts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.non_speech import SECONDS, make_sound
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import DataSpec
from trainers.sound import RATE
from trainers.train import run_training


@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, 10**6), split=st.sampled_from(["train", "validation", "test"]))
def test_every_sound_is_one(number: int, split: str) -> None:
    wave = make_sound(split, number)
    assert wave.dtype == np.float32 and SECONDS[0] * RATE <= len(wave) <= SECONDS[1] * RATE
    assert np.isfinite(wave).all() and 10 ** (-61 / 20) <= np.abs(wave).max() <= 10 ** (-5.9 / 20)
    assert np.array_equal(wave, make_sound(split, number))
    assert not np.array_equal(wave[:RATE], make_sound(f"{split}2", number)[:RATE])


def test_rows_have_empty_transcripts_and_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLAM_ASR_CACHE", str(tmp_path))
    rows, report = prepare([DataSpec(dataset="non_speech", max_samples=5)], "train")
    assert len(rows) == 5 and not report.dropped and rows["transcript"] == [""] * 5
    for number, row in enumerate(rows):
        assert np.abs(read_audio(row) - make_sound("train", number)).max() < 1e-4
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    again, _ = prepare([DataSpec(dataset="non_speech", max_samples=3)], "train")
    assert len(made) == 5 and len(again) == 3 and {path: path.stat().st_mtime_ns for path in made} == made


def test_a_model_learns_from_them_with_and_without_a_ctc_head(
    tiny_recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLAM_ASR_CACHE", str(tmp_path / "cache"))
    recipe = tiny_recipe(max_steps=2)
    sounds = {"dataset": "non_speech", "max_samples": 6, "language": "en"}
    for number, head in enumerate(({}, {"ctc": True})):
        changed = tiny_recipe(
            train=[*recipe.to_dict()["train"], sounds], projector={"hidden_size": 32, **head}, max_steps=4,
            warm_start={"epochs": 1} if head else None, ctc_weight=0.3 if head else 0.0,
            output_dir=str(tmp_path / f"run{number}"),
        )  # fmt: skip
        assert run_training(changed)["steps"] == 4
        state = json.loads((tmp_path / f"run{number}" / "trainer_state.json").read_text())
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        assert len(losses) == 4 and np.isfinite(losses).all()
