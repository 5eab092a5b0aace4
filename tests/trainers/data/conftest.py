"""A long recording, and manifests that name parts of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec

RATE = 16_000


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of noise, as several kinds of file."""
    folder = tmp_path_factory.mktemp("long")
    samples = 0.1 * np.random.default_rng(0).standard_normal(6 * RATE)
    for kind in ("wav", "flac", "mp3"):
        soundfile.write(folder / f"long.{kind}", samples, RATE)
    soundfile.write(folder / "two.wav", np.stack([samples, -0.5 * samples], axis=1), RATE)
    return folder


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(path: Path, **options: Any) -> tuple[Dataset, Any]:
    spec = DataSpec(str(path), **{"min_duration": 0.0, "max_duration": 1e9, **options})
    return prepare([spec], "train", quiet=True, max_bad_fraction=1.0)
