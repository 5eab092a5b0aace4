"""Loading every way: auto classes and pipeline, with the package and without it, from folders, from a Hub, and offline."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline
from transformers.utils import is_flash_attn_2_available

from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from tests.hub_upload.lookalike import Server, serve

from .conftest import LORA, REPOSITORY, noise, stir_lora

# What a machine with torch and transformers alone does not have.
EXTRAS = ("peft", "soundfile", "soxr", "accelerate", "datasets", "evaluate", "jiwer", "rapidfuzz", "scipy", "num2words",
          "matplotlib", "tensorboard", "pandas", "pyarrow", "hypothesis", "pytest", "librosa", "torchaudio")  # fmt: skip
LOAD = """
import json, os, sys
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline
try:
    import modeling_slam_asr
    raise SystemExit("modeling_slam_asr is not hidden")
except ImportError:
    pass
place, options = sys.argv[1], json.loads(sys.argv[2])
wave = np.load(sys.argv[3])
trusted = {"trust_remote_code": True, **options}
config = AutoConfig.from_pretrained(place, **trusted)
processor = AutoProcessor.from_pretrained(place, **trusted)
inputs = processor.apply_transcription_request([wave])
texts, sums = [], []
for auto in (AutoModel, AutoModelForSpeechSeq2Seq):
    model = auto.from_pretrained(place, **trusted)
    with torch.no_grad():
        sums.append(model(**inputs).logits.double().abs().sum().item())
    texts.append(processor.batch_decode(model.generate(**inputs, max_new_tokens=8), skip_special_tokens=True)[0])
hub_options = {k: v for k, v in options.items() if k in ("revision", "token")}
rest = {k: v for k, v in options.items() if k not in hub_options}
asr = pipeline("automatic-speech-recognition", model=place, trust_remote_code=True, model_kwargs=rest, **hub_options)
texts.append(asr(wave, max_new_tokens=8)["text"])
model.save_pretrained("saved-again")
print(json.dumps({"type": config.model_type, "kept": config.kept_encoder_layers, "texts": texts, "sums": sums,
                  "peft": "peft" in sys.modules, "pipeline": type(asr).__name__,
                  "saved": sorted(f for f in os.listdir("saved-again") if f.endswith(".py"))}))
"""


@pytest.fixture(scope="module")
def saved(make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints `adapter`, `standalone` and `merged` of one model, each with its processor."""
    folder = tmp_path_factory.mktemp("saved")
    model = make_tiny_model(lora=LORA, prune_encoder_layers=[0])
    stir_lora(model)
    for form, options in (
        ("adapter", {"checkpoint_form": "adapter"}), ("standalone", {}), ("merged", {"merge_lora": True}),
    ):  # fmt: skip
        model.save_pretrained(folder / form, **options)
        tiny_processor.save_pretrained(folder / form)
    np.save(folder / "wave.npy", noise(1.0))
    return folder


@pytest.fixture(scope="module")
def expected(saved: Path) -> dict[str, Any]:
    """What the model says, loaded by its own class."""
    model = SlamAsrForConditionalGeneration.from_pretrained(saved / "standalone")
    processor = SlamAsrProcessor.from_pretrained(saved / "standalone")
    inputs = processor([np.load(saved / "wave.npy")])
    with torch.no_grad():
        total = model(**inputs).logits.double().abs().sum().item()
    text = processor.batch_decode(model.generate(**inputs, max_new_tokens=8), skip_special_tokens=True)[0]
    return {"text": text, "sum": total}


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with torch, transformers and what these need, without `EXTRAS` and without this project."""
    folder = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.lower().replace("-", "_")
        if not name.endswith(".pth") and not any(
            name.startswith(extra) for extra in (*EXTRAS, "__editable__", "slam_asr")
        ):
            (folder / entry.name).symlink_to(entry)
    return folder


def run_hidden(
    packages: str, cwd: Path, place: Any, options: dict[str, Any], wave: Path, **environment: str
) -> dict[str, Any]:
    """Run `LOAD` where this project is not importable (`-S`: no site-packages but those given)."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOAD, str(place), json.dumps(options), str(wave)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": packages, "HF_HOME": str(cwd / "hf"), "OMP_NUM_THREADS": "1",
             "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result["type"] == "slam_asr" and result["kept"] == [1]
    assert result["texts"] == [expected["text"]] * 3
    assert result["sums"] == pytest.approx([expected["sum"]] * 2, rel=1e-5)
    assert result["pipeline"] == "SlamAsrPipeline"
    assert result["saved"] == sorted(path.name for path in (REPOSITORY / "modeling_slam_asr").glob("*_slam_asr.py"))
    assert len(result["saved"]) <= 14, "loading reads each of them"


@pytest.mark.parametrize("form", ["adapter", "standalone", "merged"])
def test_auto_classes_with_the_package(form: str, saved: Path, expected: dict[str, Any]) -> None:
    place = saved / form
    assert isinstance(AutoConfig.from_pretrained(place), SlamAsrConfig)
    processor = AutoProcessor.from_pretrained(place)
    assert isinstance(processor, SlamAsrProcessor)
    wave = np.load(saved / "wave.npy")
    for auto in (AutoModel, AutoModelForSpeechSeq2Seq):
        model = auto.from_pretrained(place)
        assert isinstance(model, SlamAsrForConditionalGeneration)
        with torch.no_grad():
            assert model(**processor([wave])).logits.double().abs().sum().item() == pytest.approx(
                expected["sum"], rel=1e-5
            )
    asr = pipeline("automatic-speech-recognition", model=str(place))
    assert isinstance(asr, SlamAsrPipeline)
    assert asr(wave, max_new_tokens=8)["text"] == expected["text"]
    fresh = AutoModel.from_config(AutoConfig.from_pretrained(saved / "standalone"))
    assert isinstance(fresh, SlamAsrForConditionalGeneration)


@pytest.mark.parametrize("form", ["adapter", "standalone"])
def test_remote_code_from_a_folder(form: str, saved: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    """Run from another folder, with the environment's packages but without this project."""
    packages = sysconfig.get_path("purelib")
    check(run_hidden(packages, tmp_path, saved / form, {}, saved / "wave.npy"), expected)


def test_remote_code_with_torch_and_transformers_alone(
    saved: Path, expected: dict[str, Any], bare_packages: Path, tmp_path: Path
) -> None:
    result = run_hidden(str(bare_packages), tmp_path, saved / "merged", {}, saved / "wave.npy")
    check(result, expected)
    assert not result["peft"]


def test_a_checkpoint_with_lora_says_that_it_needs_peft(saved: Path, bare_packages: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="pip install peft"):
        run_hidden(str(bare_packages), tmp_path, saved / "standalone", {}, saved / "wave.npy")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    server = serve(tmp_path / "hub-content")
    yield server
    server.shutdown()
    server.server_close()


UPLOAD = """
import sys
from huggingface_hub import HfApi
api = HfApi()
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    api.create_repo(name, private=True)
    api.upload_folder(repo_id=name, folder_path=folder)
"""
SAVE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
model = SlamAsrForConditionalGeneration.from_base_models(
    "acme/whisper", "acme/llama", prune_encoder_layers=[0], projector_hidden_size=32, lora={"r": 4, "lora_alpha": 8})
model.load_state_dict(SlamAsrForConditionalGeneration.from_pretrained(sys.argv[2]).state_dict())
model.save_pretrained(sys.argv[3], checkpoint_form="adapter")
SlamAsrProcessor.from_base_models("acme/whisper", "acme/llama").save_pretrained(sys.argv[3])
"""


def test_from_a_hub_and_offline(
    saved: Path,
    expected: dict[str, Any],
    hub: Server,
    tiny_whisper_encoder_dir: Path,
    tiny_llama_dir: Path,
    tmp_path: Path,
) -> None:
    """Private repositories, a token given as an argument, an empty cache; then without a network."""

    def run(code: str, *arguments: Any) -> None:
        environment = {"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_write", "HF_HUB_DISABLE_XET": "1",
                       "HF_HOME": str(tmp_path / "writer"), "OMP_NUM_THREADS": "1"}  # fmt: skip
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    run(UPLOAD, "acme/whisper", tiny_whisper_encoder_dir, "acme/llama", tiny_llama_dir)
    run(SAVE, REPOSITORY, saved / "standalone", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "config.json").read_text())
    assert config["audio_model_id"] == "acme/whisper" and config["text_model_id"] == "acme/llama"
    for name in ("audio_model_revision", "text_model_revision"):
        assert len(config[name]) == 40 and int(config[name], 16)
    peft_config = json.loads((tmp_path / "adapter" / "language_model_lora" / "adapter_config.json").read_text())
    assert peft_config["base_model_name_or_path"] == "acme/llama"
    assert peft_config["revision"] == config["text_model_revision"]

    run(UPLOAD, "acme/model", tmp_path / "adapter")
    # The bases move on: the checkpoint stays with the commits it was made from.
    hub.store.move_head("acme/llama", "model.safetensors", b"broken")
    hub.store.move_head("acme/whisper", "model.safetensors", b"broken")
    packages = sysconfig.get_path("purelib")
    cache = tmp_path / "cache"
    options = {"token": "hf_write", "cache_dir": str(cache)}
    reader = tmp_path / "reader"
    reader.mkdir()
    check(run_hidden(packages, reader, "acme/model", options, saved / "wave.npy", HF_ENDPOINT=hub.url), expected)
    assert sorted(path.name for path in cache.glob("models--*")) == [
        "models--acme--llama", "models--acme--model", "models--acme--whisper",
    ]  # fmt: skip

    hub.store.move_head("acme/model", "model.safetensors", b"broken")
    first = hub.store.load("model", "acme/model")
    assert first is not None
    asked = len(hub.store.log)
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.url}
    check(
        run_hidden(packages, reader, "acme/model", {"cache_dir": str(cache)}, saved / "wave.npy", **offline), expected
    )
    assert len(hub.store.log) == asked


def test_dtype_attention_and_device_map_reach_every_part(saved: Path) -> None:
    for form in ("adapter", "standalone"):
        model = SlamAsrForConditionalGeneration.from_pretrained(
            saved / form, dtype=torch.bfloat16, device_map="cpu", attn_implementation="eager"
        )
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        for part in (model.audio_encoder, model.language_model):
            assert part.config._attn_implementation == "eager"
        inputs = SlamAsrProcessor.from_pretrained(saved / form)([noise(0.5)])
        assert model(**inputs).logits.isfinite().all()
        assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1
        assert SlamAsrForConditionalGeneration.from_pretrained(saved / form, dtype="float16").dtype == torch.float16
        assert SlamAsrForConditionalGeneration.from_pretrained(saved / form, torch_dtype="auto").dtype == torch.float32


def test_offloaded_weights(make_tiny_model: Callable[..., Any], tiny_processor: Any) -> None:
    """Of an offloaded model a module has its weights only while it is called."""
    model = make_tiny_model(projector_ctc=True)
    inputs, options = tiny_processor([noise(0.6), noise(1.1)]), {"max_new_tokens": 5, "ctc_weight": 0.3}
    expected = model.generate(**inputs, **options)
    with torch.no_grad():
        states, mask = model.audio_encoder.hidden_states_at(
            inputs["input_features"], inputs["input_features_mask"], [2]
        )
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.audio_encoder.conv1.weight.is_meta
    assert torch.equal(model.generate(**inputs, **options), expected)
    audio = {"encoder_hidden_states": states[2], "encoder_attention_mask": mask}
    rest = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model.generate(**rest, **audio, **options), expected)


@pytest.mark.parametrize("form", ["adapter", "standalone"])
def test_eager_equals_sdpa(form: str, saved: Path) -> None:
    """In a padded batch: logits, loss and transcripts; also where encoder and LLM differ in it."""
    processor = SlamAsrProcessor.from_pretrained(saved / form)
    inputs = processor([noise(0.5), noise(1.5)])
    labelled = processor([noise(0.5), noise(1.5)], text=["en to", "tre"])
    outputs = []
    for audio, text in (("eager", "eager"), ("sdpa", "sdpa"), ("eager", "sdpa"), ("sdpa", "eager")):
        model = SlamAsrForConditionalGeneration.from_pretrained(
            saved / form,
            attn_implementation=audio if audio == text else {"audio_config": audio, "text_config": text},
        )
        parts = model.audio_encoder, model.language_model
        assert [part.config._attn_implementation for part in parts] == [audio, text]
        with torch.no_grad():
            logits, loss = model(**inputs).logits[inputs["attention_mask"].bool()], model(**labelled).loss
        outputs.append((logits, loss, model.generate(**inputs, max_new_tokens=6)))
    for logits, loss, tokens in outputs[1:]:
        assert torch.allclose(logits, outputs[0][0], atol=1e-4) and torch.allclose(loss, outputs[0][1], atol=1e-5)
        assert torch.equal(tokens, outputs[0][2])


def test_flash_attention_that_is_not_installed(
    saved: Path, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path
) -> None:
    """transformers' own error comes through; nothing falls back to another implementation."""
    if is_flash_attn_2_available():
        pytest.skip("flash-attn is installed")
    bases = str(tiny_whisper_encoder_dir), str(tiny_llama_dir)
    wanted = {"attn_implementation": "flash_attention_2"}
    for load in (
        lambda: SlamAsrForConditionalGeneration.from_pretrained(saved / "adapter", **wanted),
        lambda: SlamAsrForConditionalGeneration.from_pretrained(saved / "standalone", **wanted),
        lambda: SlamAsrForConditionalGeneration.from_base_models(*bases, **wanted),
    ):
        with pytest.raises(ImportError, match=r"FlashAttention2 has been toggled on, but .* be installed"):
            load()
    with pytest.raises(ValueError, match="nonsense"):
        SlamAsrForConditionalGeneration.from_pretrained(saved / "adapter", attn_implementation="nonsense")


def test_a_configuration_can_be_given(saved: Path) -> None:
    config = SlamAsrConfig.from_pretrained(saved / "standalone")
    config.max_tokens_per_second = 3.0
    for form in ("adapter", "standalone"):
        model = SlamAsrForConditionalGeneration.from_pretrained(saved / form, config=config)
        assert model.config.max_tokens_per_second == 3.0
        model = SlamAsrForConditionalGeneration.from_pretrained(saved / form, max_tokens_per_second=4.0)
        assert model.config.max_tokens_per_second == 4.0
        assert model.config.checkpoint_form == form
