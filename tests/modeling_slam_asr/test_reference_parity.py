"""The model gives the reference code's numbers when it has the reference code's weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor

from .conftest import noise
from .reference import HIDDEN, OPTIONS, SIZE, WhisperEncoder, reference_projector, sequence_loss


@pytest.fixture(scope="module")
def reference_encoder(tiny_whisper_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A random encoder of the reference's, run to 2 of its 3 blocks, and a Whisper folder that holds its weights."""
    import json

    folder = tmp_path_factory.mktemp("reference") / "whisper"
    shutil.copytree(tiny_whisper_encoder_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(7)
    encoder = WhisperEncoder(40, SIZE, heads=4, inner=2 * SIZE, blocks=3, depth=2).eval()
    save_file(encoder.transformers_state(), folder / "model.safetensors", metadata={"format": "pt"})
    return encoder, folder


@pytest.mark.parametrize("kind", OPTIONS)
def test_loss_and_gradients(kind: str, reference_encoder: tuple[Any, Path], tiny_llama_dir: Path) -> None:
    encoder, folder = reference_encoder
    torch.manual_seed(8)
    theirs = reference_projector(kind).eval()
    ours = SlamAsrForConditionalGeneration.from_base_models(
        folder, tiny_llama_dir, prune_encoder_layers=1, projector_hidden_size=HIDDEN, **OPTIONS[kind]
    )
    ours.projector.load_state_dict(theirs.state_dict())
    processor = SlamAsrProcessor.from_config(
        ours.config,
        SlamAsrProcessor.from_base_models(str(folder), str(tiny_llama_dir)).feature_extractor,
        SlamAsrProcessor.from_base_models(str(folder), str(tiny_llama_dir)).tokenizer,
    )
    for seconds, text in ((0.7, "en to"), (2.0, "fem")):
        inputs = processor(noise(seconds), text=text)
        ours.zero_grad()
        loss = ours(**inputs).loss
        loss.backward()

        theirs.zero_grad()
        tokenizer = processor.tokenizer
        with torch.no_grad():
            frames = encoder(inputs["input_features"])
        expected = sequence_loss(
            ours.language_model,
            theirs(frames),
            tokenizer("Transcribe speech to text.\n", add_special_tokens=False).input_ids,
            tokenizer(text, add_special_tokens=False).input_ids,
            tokenizer.eos_token_id,
        )
        expected.backward()

        assert torch.allclose(loss, expected, atol=1e-5)
        for (name, mine), (_, other) in zip(ours.projector.named_parameters(), theirs.named_parameters(), strict=True):
            scale = max(1.0, other.grad.abs().max().item())  # float32 rounds in proportion to the greatest entries
            assert mine.grad is not None and torch.allclose(mine.grad, other.grad, atol=1e-5 * scale), name
