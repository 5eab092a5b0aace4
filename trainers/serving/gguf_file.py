"""
The LLM of a model as one GGUF file for llama.cpp, written with the package `gguf`.

The file holds no vocabulary (`tokenizer.ggml.model = "none"`): token ids come from the Hugging Face tokenizer beside it. Names and
layouts are those of llama.cpp's own converter.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.errors import UserError
from trainers.gguf_precisions import GGUF_PRECISIONS

# transformers' model type and llama.cpp's architecture.
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "gemma3_text": "gemma3"}
_GEMMA3_PATTERN = 6  # every sixth layer of Gemma 3 attends to everything; llama.cpp takes that for granted
_GEMMA3_LOCAL_BASE = 10_000.0


def check_precision(precision: str) -> None:
    """
    Raises:
        UserError: for one that is unknown, or that this machine cannot make.
    """
    if precision not in GGUF_PRECISIONS:
        raise UserError(f"--gguf {precision} is unknown. Choose one of {', '.join(GGUF_PRECISIONS)}.")
    if GGUF_PRECISIONS[precision].needs_llama_cpp and importlib.util.find_spec("llama_cpp") is None:
        raise UserError(
            f"--gguf {precision} needs llama.cpp's own quantiser: `pip install llama-cpp-python` (it compiles for minutes), or choose "
            "--gguf q8_0."
        )


def check_architecture(config: Any) -> None:
    """
    Whether llama.cpp computes an LLM of this configuration as transformers does.

    Raises:
        UserError: naming what it does not have.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(
            f"The LLM is a {kind} model; GGUF files are written for {', '.join(ARCHITECTURES)}. Leave --gguf out: the Hugging Face "
            "folder serves every LLM."
        )
    problems = []
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "mlp_bias", "use_bidirectional_attention"):
        if getattr(config, name, None):
            problems.append(f"{name}={getattr(config, name)}")
    if kind == "qwen2" and getattr(config, "use_sliding_window", False):
        problems.append("use_sliding_window=True")
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if activation != ("gelu_pytorch_tanh" if kind == "gemma3_text" else "silu"):
        problems.append(f"the activation {activation!r}")
    if kind == "gemma3_text":
        if config.query_pre_attn_scalar != config.head_dim:
            problems.append(f"query_pre_attn_scalar={config.query_pre_attn_scalar} with heads of {config.head_dim}")
        wanted = ["sliding_attention"] * config.num_hidden_layers
        wanted[_GEMMA3_PATTERN - 1 :: _GEMMA3_PATTERN] = ["full_attention"] * len(wanted[_GEMMA3_PATTERN - 1 :: 6])
        if list(config.layer_types) != wanted:
            problems.append("layer_types other than a full one after each five sliding ones")
        local = config.rope_parameters["sliding_attention"]
        if local["rope_theta"] != _GEMMA3_LOCAL_BASE or local["rope_type"] != "default":
            problems.append(f"rope_parameters {local} of the sliding layers")
    rope = _rope(config)
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        problems.append(f"rope_type={rope['rope_type']!r}")
    if problems:
        raise UserError(
            f"The LLM has what llama.cpp's {ARCHITECTURES[kind]} does not: {'; '.join(problems)}. Leave --gguf out."
        )


def write_gguf(llm: Any, path: Path, precision: str) -> None:
    """
    Write an LLM without LoRA.

    Args:
        llm: a causal LM of transformers in float32, see [`check_architecture`].
        precision: one of `GGUF_PRECISIONS`, of matrices; vectors stay float32.
    """
    if GGUF_PRECISIONS[precision].needs_llama_cpp:
        halves = path.with_name(path.name + ".f16")
        write_gguf(llm, halves, "f16")
        _quantise(halves, path, precision)
        halves.unlink()
        return
    import gguf

    config = llm.config
    kind = gguf.GGMLQuantizationType[precision.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]  # weights that share a scale
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type])
    _write_settings(writer, llm, precision)
    for name, tensor in _tensors(llm):
        data = tensor.detach().float().numpy()
        if data.ndim == 1:
            writer.add_tensor(name, data)
        elif block > 1 and data.shape[-1] % block == 0:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            largest = float(np.abs(data).max())
            if largest > float(np.finfo(np.float16).max):
                raise UserError(
                    f"The LLM's tensor {name} has values up to {largest:.3g}, which float16 cannot hold. Choose --gguf q8_0."
                )
            writer.add_tensor(name, data.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_tensors(path: Path, config: Any) -> dict[str, torch.Tensor]:
    """
    The tensors of such a file, dequantised to float32, under the names and in the layout of transformers.

    Args:
        config: of the LLM.
    """
    import gguf

    names = {ours: theirs for theirs, ours in _names(config).items()}
    tensors = {}
    for item in gguf.GGUFReader(path).tensors:
        if item.name in names:
            data = gguf.quants.dequantize(item.data, item.tensor_type).astype(np.float32)
            tensors[names[item.name]] = torch.from_numpy(_from_gguf(names[item.name], data, config))
    return tensors


# ---------------------------------------------------------------------- settings


def _write_settings(writer: Any, llm: Any, precision: str) -> None:
    import gguf

    config, rope = llm.config, _rope(llm.config)
    writer.add_type("model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if config.model_type == "llama":
        writer.add_rope_dimension_count(_head_size(config))
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{precision.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _rope(config: Any) -> dict[str, Any]:
    """Rotary positions of the layers that attend to everything."""
    parameters = config.rope_parameters
    return dict(parameters.get("full_attention", parameters))


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


# ---------------------------------------------------------------------- tensors


def _names(config: Any) -> dict[str, str]:
    """llama.cpp's name for each tensor of the LLM."""
    import gguf
    from transformers import AutoModelForCausalLM

    architecture = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[ARCHITECTURES[config.model_type]]
    table = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    with torch.device("meta"):
        own = AutoModelForCausalLM.from_config(config).state_dict()
    names = {}
    for name in own:
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise UserError(f"llama.cpp's {ARCHITECTURES[config.model_type]} has no tensor {name!r}. Leave --gguf out.")
        names[name] = theirs
    return names


def _tensors(llm: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors as the file holds them."""
    state = llm.state_dict()
    for name, theirs in _names(llm.config).items():
        yield theirs, torch.from_numpy(_to_gguf(name, state[name].float().numpy(), llm.config))
    if _rope(llm.config)["rope_type"] == "llama3":
        base, size = _rope(llm.config)["rope_theta"], _head_size(llm.config)
        plain = 1.0 / base ** (torch.arange(0, size, 2).float() / size)
        yield "rope_freqs.weight", plain / llm.model.rotary_emb.inv_freq.float()


def _to_gguf(name: str, data: NDArray[Any], config: Any) -> NDArray[Any]:
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        return data + 1  # llama.cpp multiplies by the weight, Gemma by one more
    heads = _rotated_heads(name, config)
    if heads is None:
        return data
    # llama.cpp rotates neighbouring dimensions of a Llama's heads, transformers those half a head apart.
    return np.ascontiguousarray(data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape))


def _from_gguf(name: str, data: NDArray[Any], config: Any) -> NDArray[Any]:
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        return data - 1
    heads = _rotated_heads(name, config)
    if heads is None:
        return data
    return np.ascontiguousarray(data.reshape(heads, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape))


def _rotated_heads(name: str, config: Any) -> int | None:
    if config.model_type != "llama":
        return None
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else None


def _quantise(source: Path, target: Path, precision: str) -> None:
    """By llama.cpp's own quantiser."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{precision.upper()}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), settings) != 0:
        raise UserError(f"llama.cpp could not quantise the LLM to {precision}. Choose --gguf q8_0.")
