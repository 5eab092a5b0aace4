"""The audio part without torch: the spectrogram, compression, and real runs of an exported file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from modeling_slam_asr.processing_slam_asr import pad_features
from modeling_slam_asr.projector_slam_asr import compress_frames
from tests.conftest import speak
from trainers.errors import UserError
from trainers.serving.onnx_audio import OnnxAudio, compress, log_mel


@pytest.mark.parametrize("mel_bins", [40, 80, 128])
@pytest.mark.parametrize("kind", ["speech", "silence", "noise", "full scale", "a click"])
def test_the_spectrogram_is_whisper_s(kind: str, mel_bins: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=mel_bins)
    rng = np.random.default_rng(0)
    samples = {
        "speech": speak(["en", "fem", "tre"])[:11_200],
        "silence": np.zeros(8_000, np.float32),
        "noise": (0.05 * rng.standard_normal(16_000)).astype(np.float32),
        "full scale": np.sign(np.sin(np.arange(4_800) * 0.3)).astype(np.float32),
        "a click": np.eye(1, 3_200, 1_600, dtype=np.float32)[0],
    }[kind]
    wanted = extractor(samples, sampling_rate=16_000, padding="longest", truncation=False, return_tensors="np")
    found = log_mel(samples, np.float32(extractor.mel_filters), extractor.n_fft, extractor.hop_length)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted["input_features"][0], atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 30), sharp=st.floats(0.1, 8.0), keep=st.floats(0.02, 0.98))
def test_compression_is_the_model_s(seed: int, frames: int, sharp: float, keep: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(1, frames, 4, generator=generator)
    scores = (sharp * torch.randn(1, frames, 4, generator=generator)).log_softmax(-1)
    wanted, used = compress_frames(embeddings, torch.ones(1, frames, dtype=torch.bool), scores, keep)
    found = compress(embeddings[0].numpy(), scores[0].numpy(), keep)
    np.testing.assert_allclose(found, wanted[used].numpy(), atol=1e-5)


def test_from_samples_to_embeddings(exported: Path, torch_model: Any, tiny_processor: Any) -> None:
    """One recording alone, and in a batch with longer and shorter ones."""
    waves = [speak(["en", "tre", "fem"]), speak(["to"])[:1_001], speak(["fire"] * 5)]
    audio = OnnxAudio(exported, threads=1)
    heard = audio(waves)
    for wave, item in zip(waves, heard, strict=True):
        np.testing.assert_allclose(audio.features(wave), tiny_processor.extract_features(wave), atol=1e-4)
        request = tiny_processor.apply_transcription_request([wave])
        with torch.no_grad():
            found = torch_model.get_audio_features(request["input_features"], request["input_features_mask"])
        wanted = found.pooler_output
        np.testing.assert_allclose(item.embeddings, wanted.numpy(), atol=2e-3)
        np.testing.assert_allclose(audio([wave])[0].embeddings, item.embeddings, atol=1e-4)
        assert item.placeholders == len(wanted)
        assert item.ctc_log_probs is not None and item.ctc_log_probs.shape == (item.placeholders, 6)
    assert audio.ctc_tokens([1, 5]) == [5, 99]
    assert audio([]) == []


def test_int8_is_near(exported: Path) -> None:
    wave = speak(["en", "tre", "fem"])
    exact, rounded = (OnnxAudio(exported, int8=int8, threads=1)([wave])[0].embeddings for int8 in (False, True))
    cosine = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(rounded, axis=-1)
    assert 0.95 < cosine.mean() < 1 - 1e-7


def test_what_it_cannot_take_is_refused(exported: Path) -> None:
    audio = OnnxAudio(exported, threads=1)
    with pytest.raises(UserError, match=r"lasts 31\.0 s; one call takes at most 30 s"):
        audio([np.zeros(31 * 16_000, np.float32)])
    with pytest.raises(UserError, match="one row of samples"):
        audio([np.zeros((2, 1_600), np.float32)])


def test_no_torch_is_imported(exported: Path) -> None:
    code = (
        "import sys, numpy; from trainers.serving.onnx_audio import OnnxAudio; "
        f"print(OnnxAudio({str(exported)!r})([numpy.zeros(16000, 'f4')])[0].embeddings.shape); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "(10, 32)"), done.stderr


def test_a_graph_of_a_model_that_reads_tokens(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path
) -> None:
    """What its LLM reads comes out of the graph, for every length, as the torch model makes it."""
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    from trainers.serving.onnx_export import audio_figures, export_onnx, probe_features, torch_embeddings

    model = make_tiny_model(projector_ctc=True, projector_ctc_tokens=[5, 9, 40, 41, 99], projector_compress="tokens")
    export_onnx(model.eval(), tiny_processor, tmp_path / "audio.onnx")
    features = probe_features(tiny_processor)
    expected = torch_embeddings(model, features)
    figures = audio_figures(tmp_path / "audio.onnx", features, expected)
    assert figures["max_error"] < 1e-4 and figures["batch_error"] < 1e-4 and figures["ctc_kl"] < 1e-5
    raw = model.get_audio_features(*pad_features(features[:1]), return_dict=True).pooler_output
    assert not np.allclose(expected[0][0], raw.detach().numpy(), atol=1e-2), "the frames themselves"
