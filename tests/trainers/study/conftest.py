"""A tiny study on the tiny base models and corpus."""

from pathlib import Path
from typing import Any

import pytest
import yaml

AXES = {"prune_encoder_layers": [0, 1], "lora": [False, True], "seed": [1]}


@pytest.fixture
def make_study(tmp_path: Path, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_audio_dir: Path) -> Any:
    """A function that writes a tiny study and returns its file; keyword arguments replace its parts."""

    def data(split: str) -> dict[str, Any]:
        return {"dataset": str(tiny_audio_dir / split / "manifest.jsonl"), "min_duration": 0.1}

    def make(grid: dict[str, Any] | None = None, run: dict[str, Any] | None = None, **parts: Any) -> Path:
        shared = {
            "audio_model": str(tiny_whisper_encoder_dir), "text_model": str(tiny_llama_dir),
            "projector": {"hidden_size": 32, "dropout": 0.0}, "lora": {"r": 2, "alpha": 4, "dropout": 0.0},
            "train": data("train"), "validation": data("test"), "test": data("test"), "max_steps": 4, "batch_size": 4,
            "learning_rate": 1e-3, "eval_steps": 4, "save_steps": 2, "device": "cpu",
            "decoding": {"num_beams": 1, "max_new_tokens": 8}, **(run or {}),
        }  # fmt: skip
        values = {
            "name": "tiny", "output_dir": str(tmp_path / "study"), "run": shared, "grid": {**AXES, **(grid or {})},
            "cache": {"dtype": "float32"}, "profile_samples": 4, **parts,
        }  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return make
