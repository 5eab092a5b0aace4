"""`slam-asr export` on tiny models: real files, read by those whose formats they are."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_slam_asr import SlamAsrForConditionalGeneration
from tests.conftest import speak
from trainers.cli import main
from trainers.errors import UserError
from trainers.serving import export
from trainers.serving.export import Wanted, _check_samples, check_wanted, export_model
from trainers.serving.manifest import read_manifest
from trainers.serving.sample_transcripts import errors_a_word

HF_ONLY = Wanted(onnx=False)


def logits(llm: Any, embeddings: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return llm(inputs_embeds=embeddings).logits


def test_the_llm_is_a_plain_folder(exported: Path, torch_model: Any, tiny_processor: Any) -> None:
    llm = AutoModelForCausalLM.from_pretrained(exported / "llm").eval()
    assert type(llm).__module__.startswith("transformers.models.")
    assert "lora" not in " ".join(llm.state_dict())
    embeddings = 0.3 * torch.randn(2, 17, llm.config.hidden_size, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        logits(llm, embeddings), logits(torch_model.language_model, embeddings), atol=1e-4, rtol=1e-4
    )
    tokenizer = AutoTokenizer.from_pretrained(exported / "llm")
    assert tokenizer("fem små fugle").input_ids == tiny_processor.tokenizer("fem små fugle").input_ids


def test_onnx_gives_the_torch_model_s_embeddings(exported: Path, torch_model: Any, tiny_processor: Any) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "audio" / "audio.onnx")
    waves = [speak(["en", "tre", "fem"]), speak(["to"]), speak(["fire"] * 9)]
    request = tiny_processor.apply_transcription_request(waves)
    features, mask = request["input_features"], request["input_features_mask"]
    embeddings, used, scores = session.run(
        None, {"input_features": features.numpy(), "input_features_mask": mask.numpy()}
    )
    with torch.no_grad():
        wanted, wanted_mask = torch_model.get_audio_features(features, mask).padded()
        wanted_scores = torch_model.ctc_log_probs(wanted)
    assert (used.astype(bool) == wanted_mask.numpy()).all()
    keep = wanted_mask.numpy()
    np.testing.assert_allclose(embeddings[keep], wanted.numpy()[keep], atol=1e-4)
    np.testing.assert_allclose(scores[keep], wanted_scores.numpy()[keep], atol=1e-3)


@pytest.mark.parametrize(("precision", "tolerance"), [("f16", 0.02), ("q8_0", 0.3)])
def test_transformers_reads_the_gguf_weights(
    exported: Path, torch_model: Any, precision: str, tolerance: float
) -> None:
    """transformers' reader knows names and layouts by itself."""
    from trainers.serving.gguf_file import read_tensors

    llm = AutoModelForCausalLM.from_pretrained(exported / "llm").eval()
    merged = llm.state_dict()
    for name, tensor in read_tensors(exported / f"llm.{precision}.gguf", llm.config).items():
        assert (tensor - merged[name]).abs().max() <= 0.02 * merged[name].abs().max(), name
    read = AutoModelForCausalLM.from_pretrained(exported, gguf_file=f"llm.{precision}.gguf", dtype=torch.float32).eval()
    embeddings = 0.3 * torch.randn(1, 12, llm.config.hidden_size, generator=torch.Generator().manual_seed(5))
    assert (logits(read, embeddings) - logits(llm, embeddings)).abs().max() < tolerance * logits(llm, embeddings).std()


def test_the_manifest_tells_what_an_engine_needs(exported: Path, torch_model: Any, tiny_processor: Any) -> None:
    manifest = read_manifest(exported)
    assert set(manifest["parts"]) == {"llm", "onnx", "onnx-int8", "gguf-f16", "gguf-q8_0"}
    for part in manifest["parts"].values():
        assert (exported / part["path"]).exists()
        assert part["check"] and set(part["bounds"]) <= set(part["check"])
    assert manifest["parts"]["llm"]["check"]["sample_wer"] == 0
    assert manifest["parts"]["onnx-int8"]["check"]["samples"] == 2
    assert manifest["parts"]["onnx"]["bounds"]["ctc_kl"] == 1e-3
    row = tiny_processor.prompt_ids(200)
    before, after = manifest["prompt"]["before"], manifest["prompt"]["after"]
    assert before + [tiny_processor.audio_token_id] * 20 + after == row
    assert manifest["audio"]["ctc_tokens"] == [5, 9, 40, 41, 99]
    assert manifest["audio"]["unit"] == 1600
    ends = torch_model.generation_config.eos_token_id
    assert manifest["generation"]["eos_token_ids"] == (ends if isinstance(ends, list) else [ends])
    on_disk = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == on_disk - {"manifest.json"}


def test_a_model_that_decodes_jointly(lora_model_dir: Path, tiny_processor: Any, tmp_path: Path) -> None:
    """Models of `own_data` do; their exports are compared as they decode."""
    model = SlamAsrForConditionalGeneration.from_pretrained(lora_model_dir).eval()
    model.generation_config.ctc_weight = 0.6
    samples = [speak(["en", "tre", "fem"]), speak(["fire"] * 4)]
    manifest = export_model(model, tiny_processor, tmp_path / "exported", Wanted(), samples=samples)
    assert manifest["generation"]["settings"]["ctc_weight"] == 0.6
    check = manifest["parts"]["llm"]["check"]
    assert (check["sample_wer"], check["samples"]) == (0, 2)


def test_transcripts_of_sample_recordings_must_agree(exported: Path) -> None:
    content = read_manifest(exported)
    content["parts"] = {"llm": content["parts"]["llm"]}
    sound = speak(["en", "tre"])
    with pytest.raises(UserError, match=r"The part llm does not compute what the torch model does: sample_wer is"):
        _check_samples(exported, content, [sound], ["words that nobody said"], True, print)
    _check_samples(exported, content, [sound], ["words that nobody said"], False, print)
    assert content["parts"]["llm"]["check"]["sample_wer"] > 0.5


@pytest.mark.parametrize(("wer", "refused"), [(0.4, False), (0.6, True)])
def test_sample_transcripts_are_written_with_the_int8_audio_part_too(
    wer: float, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs where it is there, with the first LLM part that can run here."""
    asked: list[tuple[str, bool]] = []

    def figures(folder: Path, llm: str, sounds: Any, texts: Any, int8: bool = False) -> dict[str, float]:
        asked.append((llm, int8))
        return {"sample_wer": wer if int8 else 0.0, "samples": 1.0}

    monkeypatch.setattr(export, "sample_figures", figures)
    runnable = ["llm", "gguf-f16"]
    monkeypatch.setattr(export, "_llm_to_run", lambda path, part, precision: part if part in runnable else None)
    kinds = {"onnx": "float32", "onnx-int8": "int8", "llm": "float32", "gguf-f16": "f16"}
    parts: Any = {name: {"path": name, "precision": kind, "check": {}, "bounds": {}} for name, kind in kinds.items()}
    content: Any = {"parts": parts}
    if refused:
        with pytest.raises(UserError, match=r"The part onnx-int8 .* sample_wer is 0\.6, the bound is 0\.5"):
            _check_samples(tmp_path, content, [], [], True, print)
    said: list[str] = []
    _check_samples(tmp_path, content, [], [], not refused, said.append)
    assert asked[-3:] == [("llm", False), ("llm", True), ("gguf-f16", False)]
    assert parts["onnx-int8"]["check"]["sample_wer"] == wer
    assert parts["onnx-int8"]["bounds"] == ({} if refused else {"sample_wer": 0.5})
    assert f"onnx-int8: word error rate against the model's own transcripts {wer} on 0 recordings" in said
    runnable.clear()
    _check_samples(tmp_path, content, [], [], True, said.append)
    assert "no transcripts were compared" in said[-1]


def test_words_for_an_empty_transcript_are_errors() -> None:
    assert errors_a_word(["", "en to"], ["", "en to"]) == 0
    assert errors_a_word(["", "en to"], ["tre", "en fire fem"]) == 1.5
    assert errors_a_word([""], ["en to tre"]) == 3
    assert errors_a_word(["en to", ""], ["", ""]) == 1


def test_a_ctc_head_that_says_something_else_is_refused(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores decide words in joint decoding, and the embeddings do not show them."""
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    from trainers.serving import onnx_export

    class Stirred(onnx_export.AudioPart):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.classes = self.classes.roll(1, 0)

    monkeypatch.setattr(onnx_export, "AudioPart", Stirred)
    model = make_tiny_model(projector_ctc=True, projector_ctc_tokens=[5, 9, 40, 41, 99])
    with pytest.raises(UserError, match=r"The float32 ONNX file .* the torch model does: ctc_kl is [^;]*\. Nothing"):
        export_model(model, tiny_processor, tmp_path / "out", Wanted())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(exported: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    weights = copy / "llm.q8_0.gguf"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"llm\.q8_0\.gguf is not the file that was exported"):
        read_manifest(copy)
    assert read_manifest(copy, "onnx")["format"] == 1
    weights.unlink()
    with pytest.raises(UserError, match=r"lacks llm\.q8_0\.gguf"):
        read_manifest(copy, "gguf-q8_0")
    with pytest.raises(UserError, match="exported without 'gguf-q4_k_m'"):
        read_manifest(copy, "gguf-q4_k_m")
    (copy / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        read_manifest(copy)


def test_hf_only_needs_no_extra(lora_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_extras(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.split(".")[0] not in ("onnx", "onnxruntime", "onnxscript", "gguf"), name
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    folder = tmp_path / "out"
    assert main(["export", str(lora_model_dir), str(folder), "--hf-only", "--dtype", "bfloat16"]) == 0
    manifest = read_manifest(folder)
    assert list(manifest["parts"]) == ["llm"] and manifest["parts"]["llm"]["precision"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(folder / "llm").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hf-only", "--int8"], "--int8 is about the ONNX part"),
        (["--gguf", "q5_k"], "--gguf q5_k is unknown"),
        (["--no-llm-weights"], "Add --gguf"),
        (["--hf-only", "--gguf", "f16"], "Leave --gguf"),
        (["--hf-only", "--sample", "a.wav"], "--sample needs the ONNX part"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "no/model", str(tmp_path / "out"), *arguments]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime, gguf: `pip install \"slam-asr\[export\]\"`"):
        check_wanted(Wanted(gguf=["q8_0"]))
    with pytest.raises(UserError, match="llama-cpp-python"):
        check_wanted(Wanted(onnx=False, gguf=["q4_k_m"]))
    check_wanted(HF_ONLY)


def test_a_folder_with_content_is_left_alone(lora_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(lora_model_dir.iterdir())
    assert main(["export", str(lora_model_dir), str(lora_model_dir), "--hf-only"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert sorted(lora_model_dir.iterdir()) == before


def test_an_artefact_that_differs_leaves_nothing_behind(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_stirred(model: Any, folder: Path, dtype: torch.dtype) -> None:
        with torch.no_grad():
            model.language_model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
        write(model, folder, dtype)

    write = export.write_llm
    monkeypatch.setattr(export, "write_llm", write_stirred)
    with pytest.raises(UserError, match=r"The LLM's folder does not compute what the torch model does: kl is"):
        export_model(make_tiny_model(), tiny_processor, tmp_path / "out", HF_ONLY)
    assert list(tmp_path.iterdir()) == []


def test_a_q_former_is_refused(make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    model = make_tiny_model(projector_type="qformer", projector_num_queries=4, projector_num_layers=1)
    with pytest.raises(UserError, match="The projector is a qformer"):
        export_model(model, tiny_processor, tmp_path / "out", Wanted())
    assert list(tmp_path.iterdir()) == []
