"""GGUF files of each architecture, against what transformers' own reader makes of them, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainers.errors import UserError
from trainers.gguf_precisions import GGUF_PRECISIONS
from trainers.serving.gguf_file import check_architecture, read_tensors, write_gguf

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases, untied": ("llama", {"attention_bias": True, "tie_word_embeddings": False}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}),
}


def make_llm(name: str, **changes: Any) -> Any:
    kind, settings = CONFIGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **settings, **changes})).eval()
        with torch.no_grad():
            for parameter in llm.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return llm


@pytest.fixture(params=CONFIGS)
def llm(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip("gguf", reason="the extra `export` is not installed")
    return make_llm(request.param)


@pytest.mark.parametrize(("precision", "error"), [("f16", 5e-4), ("q8_0", 5e-3), ("q5_1", 0.05)])
def test_what_is_written_is_read(
    llm: Any, precision: str, error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A precision that the package `gguf` makes is a line of the table."""
    import gguf

    path = tmp_path / "llm.gguf"
    monkeypatch.setitem(GGUF_PRECISIONS, "q5_1", GGUF_PRECISIONS["q8_0"])
    write_gguf(llm, path, precision)
    reader = gguf.GGUFReader(path)
    assert {item.tensor_type.name for item in reader.tensors} == {"F32", precision.upper()}
    assert gguf.LlamaFileType(reader.fields["general.file_type"].contents()).name == f"MOSTLY_{precision.upper()}"
    tensors = read_tensors(path, llm.config)
    state = llm.state_dict()
    if llm.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert set(tensors) == set(state)
    for name, tensor in tensors.items():
        assert (tensor - state[name]).abs().max() <= error * state[name].abs().max(), name
        if tensor.ndim == 1:
            torch.testing.assert_close(tensor, state[name], atol=1e-6, rtol=1e-6)


def test_transformers_reads_the_same_model(llm: Any, tmp_path: Path) -> None:
    """Its reader knows names, layouts and settings by itself; it leaves out biases, and Gemma's scale, which files do not hold."""
    write_gguf(llm, tmp_path / "llm.gguf", "f16")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="llm.gguf", dtype=torch.float32)
    state = {name: tensor for name, tensor in llm.state_dict().items() if not name.endswith("proj.bias")}
    found = {name: tensor for name, tensor in read.state_dict().items() if not name.endswith("proj.bias")}
    assert set(found) == set(state)
    for name, tensor in found.items():
        assert (tensor - state[name]).abs().max() <= 5e-4 * state[name].abs().max(), name
    for name in ("model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps"):
        assert getattr(read.config, name) == pytest.approx(getattr(llm.config, name)), name


def test_scaled_positions_are_in_the_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `export` is not installed")
    llm = make_llm("llama 3")
    write_gguf(llm, tmp_path / "llm.gguf", "f16")
    tensors = {item.name: item.data for item in gguf.GGUFReader(tmp_path / "llm.gguf").tensors}
    plain = 1 / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
    factors = torch.tensor(tensors["rope_freqs.weight"])
    assert factors[0] == 1 and factors[-1] == pytest.approx(8)
    torch.testing.assert_close(plain / factors, llm.model.rotary_emb.inv_freq)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: AutoConfig.for_model("qwen3"), "The LLM is a qwen3 model"),
        (lambda: make_llm("qwen2", use_sliding_window=True).config, "use_sliding_window=True"),
        (lambda: make_llm("gemma3", query_pre_attn_scalar=256).config, "query_pre_attn_scalar=256"),
        (lambda: make_llm("llama", hidden_act="gelu").config, "the activation 'gelu'"),
        (lambda: make_llm("gemma3", layer_types=["full_attention"] * 6).config, "layer_types"),
        (
            lambda: AutoConfig.for_model(
                "llama", rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
            ),
            "rope_type='yarn'",
        ),
    ],
)
def test_what_llama_cpp_lacks_is_refused(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_architecture(make())


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra `export` is not installed")
    llm = make_llm("llama")
    with torch.no_grad():
        llm.model.embed_tokens.weight[3, 3] = 1e6
    with pytest.raises(UserError, match=r"token_embd\.weight has values up to 1e\+06"):
        write_gguf(llm, tmp_path / "llm.gguf", "f16")
