"""OpenAI's own weights and real speech, where they lie beside the repository."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
from modeling_slam_asr import SlamAsrProcessor

from .conftest import REPOSITORY, noise

WHISPER = REPOSITORY / ".." / "shared" / "weights" / "whisper-base-encoder"
SPEECH = REPOSITORY / ".." / "shared" / "speech"
pytestmark = pytest.mark.skipif(
    not WHISPER.is_dir() or not SPEECH.is_dir(), reason="there are no real weights and speech here"
)


@pytest.fixture(scope="module")
def clips() -> list[str]:
    """Four recordings of different length."""
    found = [
        path
        for path in sorted(SPEECH.glob("nl/commonvoice61/**/*"))
        if path.suffix in (".wav", ".flac", ".mp3", ".ogg")
    ]
    if len(found) < 4:
        pytest.skip("there is no Dutch speech here")
    return [str(path) for path in found[:4]]


@pytest.fixture(scope="module")
def parts(tiny_llama_dir: Path) -> tuple[Any, Any]:
    torch.manual_seed(41)
    model = Model.from_base_models(WHISPER, tiny_llama_dir, projector_hidden_size=64)
    return model, SlamAsrProcessor.from_base_models(str(WHISPER), str(tiny_llama_dir))


def test_thirty_second_windows_equal_whisper(parts: tuple[Any, Any], clips: list[str]) -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model, processor = parts
    config = WhisperConfig.from_pretrained(WHISPER)
    whisper = WhisperEncoder(config).eval()
    whisper.load_state_dict(model.audio_encoder.state_dict())
    whole = SlamAsrProcessor(processor.feature_extractor, processor.tokenizer, pad_to_30s=True)
    inputs = whole(clips[:1])
    assert inputs["input_features"].shape[-1] == 3000
    with torch.no_grad():
        expected = whisper(inputs["input_features"]).last_hidden_state
        actual = model.audio_encoder(inputs["input_features"], inputs["input_features_mask"]).last_hidden_state
    assert torch.allclose(actual, expected, atol=1e-5)


def test_a_batch_is_encoded_as_its_members_alone(parts: tuple[Any, Any], clips: list[str]) -> None:
    model, processor = parts
    sources: list[Any] = [*clips, noise(0.3)]
    batch = processor(sources, padding_side="left")
    with torch.no_grad():
        audio = model.get_audio_features(batch["input_features"], batch["input_features_mask"]).rows()
        for index, source in enumerate(sources):
            alone = processor(source)
            single = model.get_audio_features(alone["input_features"], alone["input_features_mask"]).pooler_output
            assert torch.allclose(audio[index], single, atol=1e-4), source
