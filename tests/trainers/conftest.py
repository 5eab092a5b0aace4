"""Rows of the tiny corpus for the study's tests."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from trainers.data.spec import DataSpec


@pytest.fixture(scope="session")
def tiny_rows(tiny_audio_dir: Path) -> Dataset:
    """The tiny training set as the trainer prepares it: 16 rows with `audio`, `transcript` and `seconds`."""
    from trainers.data.prepare import prepare

    spec = DataSpec(dataset=str(tiny_audio_dir / "train" / "manifest.jsonl"), min_duration=0.1, language="da")
    return prepare([spec], "train", quiet=True)[0]


@pytest.fixture
def cache_options() -> dict[str, Any]:
    """Options of `build_cache` for tests: exact states, no noise on the screen."""
    return {"dtype": "float32", "quiet": True, "batch_seconds": 3.0}
