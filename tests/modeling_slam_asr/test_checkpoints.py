"""The two checkpoint forms: equal in output, the same bytes each time, whole, and small in memory."""

import filecmp
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model

from .conftest import LORA, REPOSITORY, stir_lora

BASES: dict[str, dict[str, Any]] = {
    "projector only": {},
    "LoRA": {"lora": LORA},
    "DoRA": {"lora": {**LORA, "use_dora": True}},
    "rsLoRA": {"lora": {**LORA, "use_rslora": True}},
    "LoRA on both": {"lora": LORA, "encoder_lora": LORA, "prune_encoder_layers": [0]},
}
FORMS: dict[str, dict[str, Any]] = {
    "adapter": {"checkpoint_form": "adapter"},
    "standalone": {},
    "merged": {"merge_lora": True},
    "sharded": {"max_shard_size": "20KB"},
}


@pytest.fixture(params=BASES)
def model(request: Any, make_tiny_model: Callable[..., Any]) -> Any:
    built = make_tiny_model(**BASES[request.param])
    stir_lora(built)
    return built


def logits(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def test_forms_are_equal(model: Any, batch: Any, tmp_path: Path) -> None:
    expected = logits(model, batch)
    live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    request = {name: value for name, value in batch.items() if name != "labels"}
    transcripts = model.generate(**request, max_new_tokens=5)
    for form, options in FORMS.items():
        model.save_pretrained(tmp_path / form, **options)
        loaded, info = Model.from_pretrained(tmp_path / form, output_loading_info=True)
        assert (logits(loaded, batch) - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1), form
        assert torch.equal(loaded.generate(**request, max_new_tokens=5), transcripts), form
        assert not info.get("missing_keys") and not loaded.training
        assert {n for n, p in loaded.named_parameters() if p.requires_grad} == (
            {n for n, p in model.named_parameters() if p.requires_grad}
            if form != "merged"
            else {n for n, p in model.named_parameters() if n.startswith("projector.")}
        )
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    assert all(torch.equal(live[name], tensor) for name, tensor in model.state_dict().items())


def test_saving_twice_gives_the_same_bytes(model: Any, tmp_path: Path) -> None:
    for form, options in FORMS.items():
        first, second, third = (tmp_path / f"{form}{index}" for index in range(3))
        model.save_pretrained(first, **options)
        model.save_pretrained(second, **options)
        Model.from_pretrained(first).save_pretrained(third, **{k: v for k, v in options.items() if k != "merge_lora"})
        names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
        for other in (second, third):
            assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
            assert filecmp.cmpfiles(first, other, names, shallow=False)[0] == names, (form, other)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_whoever_may_read_the_configuration_may_read_the_weights(model: Any, tmp_path: Path) -> None:
    """As a server with a user of its own has to."""
    model.save_pretrained(tmp_path)
    rights = {file.stat().st_mode for file in (tmp_path / "config.json", *tmp_path.rglob("*.safetensors"))}
    assert len(rights) == 1


def test_saving_over_the_folder_that_was_loaded(
    make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path
) -> None:
    model = make_tiny_model()
    for options in ({}, {"checkpoint_form": "adapter"}):
        model.save_pretrained(tmp_path, **options)
        loaded = Model.from_pretrained(tmp_path)
        loaded.save_pretrained(tmp_path, **options)
        assert torch.equal(logits(Model.from_pretrained(tmp_path), batch), logits(model, batch))


def test_changing_the_form_leaves_nothing_behind(
    make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path
) -> None:
    model = make_tiny_model(lora=LORA)
    stir_lora(model)
    for form in ("sharded", "adapter", "standalone", "merged", "adapter", "sharded"):
        model.save_pretrained(tmp_path, **FORMS[form])
        assert torch.allclose(logits(Model.from_pretrained(tmp_path), batch), logits(model, batch), atol=1e-5), form


def test_lora_works_on_the_bare_llm(make_tiny_model: Callable[..., Any], tiny_llama_dir: Path, tmp_path: Path) -> None:
    model = make_tiny_model(lora=LORA)
    stir_lora(model)
    model.save_pretrained(tmp_path, checkpoint_form="adapter")
    written = json.loads((tmp_path / "language_model_lora" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tiny_llama_dir)
    bare = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    alone = peft.PeftModel.from_pretrained(bare, str(tmp_path / "language_model_lora")).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(alone(input_ids=ids).logits, model.language_model(input_ids=ids).logits, atol=1e-5)


def test_the_bases_own_generation_settings_do_not_come_along(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, batch: Any, tmp_path: Path
) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_llama_dir, base)
    settings = json.loads((base / "generation_config.json").read_text())
    chat = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "top_k": 7}
    (base / "generation_config.json").write_text(json.dumps({**settings, **chat}))
    request = {name: value for name, value in batch.items() if name != "labels"}
    model = Model.from_base_models(tiny_whisper_encoder_dir, base, projector_hidden_size=32)
    expected = model.generate(**request, max_new_tokens=8)
    assert torch.equal(model.generate(**request, max_new_tokens=8), expected)
    for form in ("adapter", "standalone"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form)
        assert torch.equal(Model.from_pretrained(tmp_path / form).generate(**request, max_new_tokens=8), expected)


def test_what_cannot_be_saved(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny_model()
    with pytest.raises(ValueError, match="Choose 'standalone' or 'adapter'"):
        model.save_pretrained(tmp_path, checkpoint_form="full")
    with pytest.raises(ValueError, match="keeps LoRA apart"):
        model.save_pretrained(tmp_path, checkpoint_form="adapter", merge_lora=True)
    with pytest.raises(ValueError, match="slam-asr push"):
        model.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(ValueError, match="variant='fp16' cannot be loaded again"):
        model.save_pretrained(tmp_path, variant="fp16")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    model.config.text_model_id = None
    with pytest.raises(ValueError, match="Save the standalone form"):
        model.save_pretrained(tmp_path, checkpoint_form="adapter")


def test_pruned_blocks_are_not_read(make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    """A pruned block may even be damaged: nobody looks at it."""
    from .conftest import edit_tensors

    model = make_tiny_model()
    model.save_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors["audio_encoder.layers.1.fc1.weight"].fill_(float("nan")))
    with pytest.raises(ValueError, match=r"audio_encoder\.layers\.1\.fc1\.weight holds NaN"):
        Model.from_pretrained(tmp_path)
    pruned = Model.from_pretrained(tmp_path, prune_encoder_layers=1)
    model.prune_encoder_layers(1)
    assert torch.equal(logits(pruned, batch), logits(model, batch))
    pruned.save_pretrained(tmp_path / "again")
    with safe_open(tmp_path / "again" / "model.safetensors", framework="pt") as file:
        assert not any(name.startswith("audio_encoder.layers.1.") for name in file.keys())  # noqa: SIM118


MEASURE = """
import json, resource, sys
import torch
from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
torch.randn(64, 64) @ torch.randn(64, 64)
Model.from_pretrained(sys.argv[1])  # a tiny one first: what the libraries need themselves is not the weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Model.from_pretrained(sys.argv[2], **json.loads(sys.argv[3]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(1024 * (peak - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


def test_peak_memory_is_that_of_the_weights(
    tiny_model: Any, tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperModel

    folder = tmp_path_factory.mktemp("memory")
    tiny_model.save_pretrained(folder / "tiny")
    width = {"d_model": 512, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "encoder_layers": 8}
    decoder = {
        "decoder_layers": 1,
        "decoder_ffn_dim": 64,
        "decoder_attention_heads": 8,
        "vocab_size": 100,
        "pad_token_id": 0,
    }
    WhisperModel(WhisperConfig(**width, **decoder)).save_pretrained(folder / "whisper")
    llama = LlamaConfig(
        vocab_size=2000, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8
    )
    LlamaForCausalLM(llama).save_pretrained(folder / "llama")
    model = Model.from_base_models(folder / "whisper", folder / "llama", projector_hidden_size=64)
    for form in ("standalone", "adapter"):
        model.save_pretrained(folder / form, checkpoint_form=form)
    del model
    converted = {"dtype": "bfloat16"}  # half the size on disk, where a second copy would show as 3
    for form, options, bound in (
        ("standalone", {}, 1.15),
        ("standalone", {"prune_encoder_layers": 4}, 1.15),
        ("standalone", converted, 1.4),
        ("standalone", {"prune_encoder_layers": 4, **converted}, 1.4),
        ("adapter", {}, 1.15),
    ):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, folder / "tiny", folder / form, json.dumps(options)],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert float(done.stdout) < bound, (form, options)


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("prune", [0, 1])
def test_conversion_while_loading(
    prune: int, shard: str, make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path
) -> None:
    """Loading in another dtype gives what converting the whole model gives, its generation settings included."""
    model = make_tiny_model(lora=LORA)
    stir_lora(model)
    model.generation_config.max_new_tokens = 17
    for form in ("standalone", "adapter"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form, max_shard_size=shard)
    model.prune_encoder_layers(prune)
    model.to(torch.bfloat16)
    for form in ("standalone", "adapter"):
        for dtype in ("bfloat16", torch.bfloat16):
            loaded = Model.from_pretrained(tmp_path / form, dtype=dtype, prune_encoder_layers=prune)
            assert loaded.dtype == loaded.config.dtype == torch.bfloat16
            assert loaded.generation_config.max_new_tokens == 17
            assert loaded.name_or_path == str(tmp_path / form) and not loaded.training
            assert loaded.state_dict().keys() == model.state_dict().keys()
            for name, tensor in loaded.state_dict().items():
                if form == "standalone" or "lora_" not in name:
                    assert torch.equal(tensor, model.get_parameter(name)), name


def test_the_code_in_a_checkpoint_is_whole(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    make_tiny_model().save_pretrained(tmp_path)
    package = REPOSITORY / "modeling_slam_asr"
    for source in package.glob("*_slam_asr.py"):
        copied = tmp_path / source.name
        assert hashlib.sha256(copied.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_saving_leaves_files_of_others_alone(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny_model()
    kept = ["model_ema.safetensors", "model.fp16.safetensors", "model-best.safetensors"]
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file() and not (tmp_path / "model.safetensors").exists()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("model*safetensors*")) == sorted([*kept, "model.safetensors"])
    assert all((tmp_path / name).read_bytes() == b"mine" for name in kept)


def test_the_callers_generation_config_counts(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    make_tiny_model().save_pretrained(tmp_path)
    asked = GenerationConfig(num_beams=3, max_new_tokens=7)
    loaded = Model.from_pretrained(tmp_path, generation_config=asked)
    assert (loaded.generation_config.num_beams, loaded.generation_config.max_new_tokens) == (3, 7)
