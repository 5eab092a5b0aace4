"""LoRA's life: adding, merging, unloading, switching; what is trained; what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, Phi3Config, Phi3ForCausalLM

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
from modeling_slam_asr.lora_slam_asr import add_lora, lora_config, lora_settings

from .conftest import LORA, stir_lora

KINDS = {
    "LoRA": LORA,
    "DoRA": {**LORA, "use_dora": True},
    "rsLoRA": {**LORA, "use_rslora": True},
    "all linear": {**LORA, "target_modules": "all-linear"},
    "a LoraConfig": peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"]),
}


def logits(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


@pytest.mark.parametrize("kind", KINDS)
def test_merge_and_unload(kind: str, make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    model = make_tiny_model(lora=KINDS[kind], encoder_lora=LORA)
    stir_lora(model)
    adapted = logits(model, batch)
    base = logits(make_tiny_model(), batch)
    assert not torch.allclose(adapted, base, atol=1e-3)
    model.save_pretrained(tmp_path / "kept")
    assert torch.allclose(logits(Model.from_pretrained(tmp_path / "kept"), batch), adapted, atol=1e-5)

    model.merge_lora()
    assert torch.allclose(logits(model, batch), adapted, atol=1e-4)
    assert model.config.lora is None and model.config.encoder_lora is None
    assert not any("lora" in name or "base_layer" in name for name in model.state_dict())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("projector.")
    }
    model.save_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(Model.from_pretrained(tmp_path / "merged"), batch), adapted, atol=1e-4)

    loaded = Model.from_pretrained(tmp_path / "kept")
    loaded.unload_lora()
    assert torch.equal(logits(loaded, batch), base)
    loaded.add_lora({"r": 2}, {"r": 2})
    assert loaded.config.lora["r"] == 2 and loaded.parameter_report()["lora"] > 0
    with pytest.raises(ValueError, match="has LoRA already"):
        loaded.add_lora({"r": 2})


def test_targets_that_are_not_there(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path, batch: Any
) -> None:
    """Phi has one layer for q, k and v: LoRA on the usual four would go on `o_proj` alone, and nobody would know."""
    fields = AutoConfig.from_pretrained(tiny_llama_dir).to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    Phi3ForCausalLM(Phi3Config(**{name: fields[name] for name in names})).save_pretrained(tmp_path / "phi")
    AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(tmp_path / "phi")
    bases = str(tiny_whisper_encoder_dir), str(tmp_path / "phi")
    usual = {"r": 2, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    says = (
        r"target_modules names 'k_proj', 'q_proj', 'v_proj', and Phi3ForCausalLM has no such layer\. "
        r"Its linear layers: down_proj, gate_up_proj, o_proj, qkv_proj\. Name some"
    )
    with pytest.raises(ValueError, match=says):
        Model.from_base_models(*bases, lora=usual)
    fitting = {"r": 2, "target_modules": ["qkv_proj", "layers.0.self_attn.o_proj"]}
    model = Model.from_base_models(*bases, lora=fitting, encoder_lora={"r": 2, "target_modules": ["q_proj"]})
    with pytest.raises(
        ValueError, match=r"names 'o_proj', and SlamAsrEncoder has no such layer\. Its linear layers: .*q_proj"
    ):
        Model.from_base_models(*bases, encoder_lora=usual)
    # What was trained so before still loads, in both forms.
    model.unload_lora()
    add_lora(model.language_model, usual)
    model.config.lora = lora_settings(model.language_model)
    stir_lora(model)
    for form in ("standalone", "adapter"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form)
        assert torch.allclose(logits(Model.from_pretrained(tmp_path / form), batch), logits(model, batch), atol=1e-5)


def test_switching(make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    """One pair of base models serves several languages: each adapter brings its projector and its LoRA."""
    expected = {}
    for seed, (name, lora) in enumerate((("da", LORA), ("nl", {"r": 2, "use_dora": True}), ("en", None))):
        model = make_tiny_model(lora=lora)
        stir_lora(model)
        torch.manual_seed(seed)
        with torch.no_grad():
            model.projector.linear2.weight.normal_()
        model.save_pretrained(tmp_path / name, checkpoint_form="adapter")
        expected[name] = logits(model, batch)
    for own in ("da", "en"):
        server = Model.from_pretrained(tmp_path / own)
        others = [name for name in expected if name != own]
        for name in others:
            server.load_adapter(tmp_path / name, name)
            assert torch.allclose(logits(server, batch), expected[own], atol=1e-5)
        for name in (*others, "default", *others[::-1], "default"):
            server.set_adapter(name)
            assert server.active_adapter == name
            wanted = expected[own if name == "default" else name]
            assert torch.allclose(logits(server, batch), wanted, atol=1e-5), (own, name)
            trained = {n for n, p in server.named_parameters() if p.requires_grad and "lora_" in n}
            assert all(name in n.split(".") for n in trained)
        for form in ("adapter", "standalone"):
            server.save_pretrained(tmp_path / "again", checkpoint_form=form)
            assert torch.allclose(logits(Model.from_pretrained(tmp_path / "again"), batch), expected[own], atol=1e-5)
        server.set_adapter(others[0])
        with pytest.raises(ValueError, match=r"set_adapter\('default'\)"):
            server.save_pretrained(tmp_path / "again")
        with pytest.raises(ValueError, match="no adapter 'fy'; loaded are default"):
            server.set_adapter("fy")
        with pytest.raises(ValueError, match="cannot be named"):
            server.load_adapter(tmp_path / "nl", others[0])
        server.merge_lora()
        assert torch.allclose(logits(server, batch), expected[others[0]], atol=1e-4)
    with pytest.raises(ValueError, match="kept_encoder_layers"):
        make_tiny_model(prune_encoder_layers=1).load_adapter(tmp_path / "nl", "nl")


def test_what_is_trained_and_what_is_in_training_mode(make_tiny_model: Callable[..., Any]) -> None:
    model = make_tiny_model(lora={**LORA, "lora_dropout": 0.5}, encoder_lora=LORA)
    assert not model.training
    model.train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("projector.") or "lora_" in name for name in trained)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and ("lora_" in name or name.startswith("projector.")):
            assert module.training, name
        elif not name.startswith("projector") and isinstance(module, torch.nn.LayerNorm):
            assert not module.training, name
    model.eval()
    assert not any(module.training for module in model.modules())


def test_lora_dropout_is_active_in_training_only(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    for extra in ({}, {"use_dora": True}):
        model = make_tiny_model(lora={**LORA, "lora_dropout": 0.9, **extra}, projector_dropout=0.0)
        stir_lora(model)
        assert torch.equal(logits(model, batch), logits(model, batch))
        model.train()
        assert not torch.equal(logits(model, batch), logits(model, batch))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 8}, "Did you mean 'r'"),
        ({"r": 8, "lora_alfa": 3}, "Did you mean 'lora_alpha'"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
        ({"r": 8, "bias": "all"}, "bias='all' is not supported"),
        ({"r": 8, "lora_bias": True}, "lora_bias is not supported"),
        ({"r": 8, "init_lora_weights": "pissa"}, "changes the base weights"),
        ({"r": 0}, "`r` should be a positive integer"),
        ({"r": 8, "target_modules": ["query"]}, "names 'query', and LlamaForCausalLM has no such layer"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str, make_tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=message):
        make_tiny_model(lora=settings)


def quantization(kind: str) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    package = pytest.importorskip(kind.split()[0], reason=f"{kind.split()[0]} is not installed")
    if package.__name__ == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    return BitsAndBytesConfig(load_in_4bit=kind.endswith("4-bit"), load_in_8bit=kind.endswith("8-bit"))


@pytest.mark.parametrize("kind", ["bitsandbytes 4-bit", "bitsandbytes 8-bit", "torchao int8"])
def test_quantized_llm(kind: str, tiny_whisper_encoder_dir: Path, batch: Any, tmp_path: Path) -> None:
    """QLoRA: LoRA and a CTC head are trained on a quantized LLM; encoder, projector, LoRA and the logits' layer stay as they are."""
    from transformers import LlamaConfig, LlamaForCausalLM

    quantization_config = quantization(kind)
    torch.manual_seed(51)
    llama = LlamaConfig(
        vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(llama).save_pretrained(tmp_path / "llm")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"quantization_config": quantization_config, "device_map": device}
    model = Model.from_base_models(tiny_whisper_encoder_dir, tmp_path / "llm", lora=LORA, projector_ctc=True, **options)
    stir_lora(model)
    inputs = batch.to(device)
    model.train()
    model(**inputs, ctc_weight=0.3).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.eval()
    expected = logits(model, inputs)
    model.save_pretrained(tmp_path / "adapter", checkpoint_form="adapter")
    plain = Model.from_pretrained(tmp_path / "adapter").to(device)
    plain.save_pretrained(tmp_path / "standalone")
    assert not torch.equal(logits(plain, inputs), expected)
    for form in ("adapter", "standalone"):
        loaded = Model.from_pretrained(tmp_path / form, **options)
        assert loaded.has_quantized_llm()
        changed = {
            name.removesuffix(".weight").removesuffix(".base_layer")
            for name, parameter in loaded.named_parameters()
            if type(parameter.data) is not torch.Tensor or type(parameter) is not torch.nn.Parameter
        }
        layers = [f"language_model.model.layers.{index}" for index in range(2)]
        linear = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
        assert changed == {f"{layer}.{name}" for layer in layers for name in linear}, form
        assert torch.allclose(logits(loaded, inputs), expected, atol=1e-2), form
        with pytest.raises(ValueError, match="is quantized"):
            loaded.save_pretrained(tmp_path / "full")
        with pytest.raises(ValueError, match="without quantization_config"):
            loaded.merge_lora()
        loaded.save_pretrained(tmp_path / "again", checkpoint_form="adapter")
        assert torch.allclose(
            logits(Model.from_pretrained(tmp_path / "again"), inputs.to("cpu")), logits(plain, inputs).cpu(), atol=1e-4
        )


@pytest.mark.parametrize("kind", ["torchao int8", "bitsandbytes 8-bit", "bitsandbytes 4-bit"])
@pytest.mark.parametrize("form", ["adapter", "standalone"])
def test_damage_shows_through_quantization(
    form: str, kind: str, make_tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    options = {"quantization_config": quantization(kind), "device_map": "cpu"}
    model = make_tiny_model()
    model.language_model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    model.language_model.save_pretrained(tmp_path / "llm")
    model.config.text_model_id = str(tmp_path / "llm")
    model.save_pretrained(tmp_path / form, checkpoint_form=form)
    with pytest.raises(ValueError, match=r"up_proj\.weight holds NaN"):
        Model.from_pretrained(tmp_path / form, **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r"(\w+\.?)+!"},
        {"target_modules": ".*.*.*.*!"},
        {"exclude_modules": "(a|a)*b"},
        {"rank_pattern": {r"(\w+\.?)+!": 4}},
        {"alpha_pattern": {"x" * 2000: 4}},
    ],
)
def test_patterns_that_could_take_for_ever_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a pattern that could take for ever"):
        lora_config({"r": 4, **settings})


def test_patterns_of_modules(make_tiny_model: Callable[..., Any]) -> None:
    model = make_tiny_model(lora={"r": 2, "target_modules": r".*layers\.(0|1)\.self_attn\.(q|v)_proj"})
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 4


def test_targets_with_tied_weights(make_tiny_model: Callable[..., Any]) -> None:
    model = make_tiny_model()
    model.add_lora({"r": 2, "target_modules": ["lm_head"]})
    model.unload_lora()
    model.language_model.lm_head.weight = model.get_input_embeddings().weight
    for name in ("lm_head", "model.embed_tokens"):
        with pytest.raises(ValueError, match=f"names '{name.rpartition('.')[2]}', whose weight is another layer's too"):
            model.add_lora({"r": 2, "target_modules": ["q_proj", name]})
    model.add_lora({"r": 2, "target_modules": ["q_proj"]})


def test_lora_by_other_ways_is_refused_before_it_is_lost(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model, settings = make_tiny_model(), peft.LoraConfig(r=2, target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"without the projector. Use `add_lora"):
        model.add_adapter(settings)
    model.language_model.add_adapter(settings)
    for form in ("standalone", "adapter"):
        with pytest.raises(ValueError, match=r"language_model has LoRA \['default'\] that neither `add_lora`"):
            model.save_pretrained(tmp_path, checkpoint_form=form)
    model.unload_lora()
    model.add_lora(settings)
    model.save_pretrained(tmp_path)


def test_peft_around_the_whole_model(make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    """PEFT's own way to save is the one then; what the model itself would write could not be read again."""
    model, again = make_tiny_model(), make_tiny_model()
    again.load_state_dict(model.state_dict())
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["projector"], init_lora_weights=False)
    )
    with pytest.raises(ValueError, match="PEFT wraps this model whole"):
        model.save_pretrained(tmp_path / "own")
    wrapped.save_pretrained(tmp_path / "peft")
    loaded = peft.PeftModel.from_pretrained(again, tmp_path / "peft")
    with torch.no_grad():
        logits = wrapped.eval()(**batch).logits
        assert torch.allclose(loaded.eval()(**batch).logits, logits, atol=1e-6)
        merged = wrapped.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        assert torch.allclose(type(merged).from_pretrained(tmp_path / "merged")(**batch).logits, logits, atol=1e-5)
