"""Engines behind one pipeline: the same transcripts, and a refusal by name of what one cannot do."""

from pathlib import Path

import pytest

from trainers.errors import UserError
from trainers.serving.engines import load_pipeline


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"engine='tensorflow' is unknown\. Choose one of torch"):
        load_pipeline(tmp_path, engine="tensorflow")


def test_torch_is_the_default(lora_model_dir: Path) -> None:
    pipe = load_pipeline(lora_model_dir, device="cpu")
    assert type(pipe).__name__ == "SlamAsrPipeline" and pipe.model.device.type == "cpu"
