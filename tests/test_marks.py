"""A mark of doubtful transcripts is of use where people see it: who adds one is told here where it is not shown yet."""

from pathlib import Path

import pytest

from modeling_slam_asr.transcripts_slam_asr import Marks

ROOT = Path(__file__).parents[1]
PLACES = (
    "modeling_slam_asr/recordings_slam_asr.py",
    "trainers/inference/notices.py",
    "trainers/commands/transcribe.py",
    "trainers/serving/server/page.html",
    "hub_upload/templates/app.py",
    "docs/transcribing.md",
)


@pytest.mark.parametrize("place", PLACES)
def test_every_mark_is_told(place: str) -> None:
    text = (ROOT / place).read_text(encoding="utf-8")
    assert [mark for mark in Marks.__annotations__ if mark not in text] == []
