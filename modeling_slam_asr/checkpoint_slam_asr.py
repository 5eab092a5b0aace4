"""Reading safetensors checkpoints of base models and of our own, strictly, and quantizing the LLM as it is loaded."""

import copy
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .configuration_slam_asr import SlamAsrConfig

__all__ = ["checkpoint_files", "load_strictly", "open_tensors", "read_encoder", "repository_commit", "repository_file"]

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
ENCODER_LAYER = re.compile(r"^layers\.(\d+)\.")


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of `kwargs` that say how to reach a repository."""
    return {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}


def repository_file(model: str | os.PathLike[str], name: str, **hub: Any) -> str | None:
    """Path of a file of a folder or Hub repository, downloaded if need be; None when it has none of this name."""
    return cached_file(model, name, _raise_exceptions_for_missing_entries=False, **hub)


def checkpoint_files(model: str | os.PathLike[str], **hub: Any) -> list[str]:
    """
    Paths of the safetensors files of a folder or Hub repository, downloaded if need be.

    Raises:
        OSError: when it has none, naming the remedy.
    """
    single = repository_file(model, SAFE_WEIGHTS_NAME, **hub)
    if single is not None:
        return [single]
    index = repository_file(model, SAFE_WEIGHTS_INDEX_NAME, **hub)
    if index is None:
        raise OSError(
            f"{os.fspath(model)!r} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}. Pickled weights (.bin, .pt) are "
            "not read, since they can run code: save them as safetensors first."
        )
    files = []
    for name in sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())):
        shard = repository_file(model, name, **hub)
        if shard is None:
            raise OSError(
                f"{os.fspath(model)!r} lacks {name}, which its {SAFE_WEIGHTS_INDEX_NAME} lists. Download it again."
            )
        files.append(shard)
    return files


MOST_PACKED = 8  # parameters that one stored number may hold, where they are quantised


@contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """
    A safetensors file, memory-mapped: tensors are read when they are used.

    Raises:
        ValueError: when the file is cut off or is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"The file {os.fspath(path)!r} is damaged or cut off ({error!s:.500}). Download or save it again."
        ) from error


def stored_numbers(files: Sequence[str]) -> int:
    """How many numbers safetensors files hold, by their headers. Raises a ValueError for one that is cut off."""
    count = 0
    for path in files:
        with open_tensors(path) as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


class StoredTensor:
    """
    A tensor that is read when it is indexed, as transformers' loader does, through a mapping of the file of its own.

    The pages of a file count as memory for as long as it is mapped: whoever converts tensors to another dtype would
    hold them twice.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name

    def __getitem__(self, index: Any) -> torch.Tensor:
        with open_tensors(self.path) as file:
            return file.get_tensor(self.name)[index]


def repository_commit(model: str | os.PathLike[str], **hub: Any) -> str | None:
    """The 40-hex commit that a Hub repository's configuration was read at; None for a folder on disk."""
    if Path(model).is_dir():
        return None
    path = cached_file(model, "config.json", **hub)
    match = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return match.group(1) if match else None


def of_one_commit(repository: str | os.PathLike[str], hub: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The Hub's arguments for every file of a model, and its commit: one that lands meanwhile would mix two models."""
    commit = repository_commit(repository, **hub)
    return {**hub, "revision": commit} if commit else hub, commit


def read_encoder(
    files: Iterable[str], kept: list[int], num_layers: int, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """
    The encoder's tensors out of a Whisper checkpoint (whole or encoder only), with the kept blocks renumbered from 0.

    Args:
        kept: indices of the blocks to read, of `num_layers` in all; the others are not read.
        dtype: what to convert floating-point tensors to; they stay as they are when None.
    """
    tensors = {}
    for path in files:
        with open_tensors(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                name = key.removeprefix("model.").removeprefix("encoder.")
                if key.startswith(("decoder.", "model.decoder.")) or name == "proj_out.weight":
                    continue
                new_name = renumbered(name, list(range(num_layers)), kept)
                if new_name is not None:
                    tensor = file.get_tensor(key)
                    if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                        tensor = StoredTensor(path, key)[...].to(dtype)
                    tensors[new_name] = tensor
    return tensors


def read_pruned(files: Iterable[str], stored: list[int], kept: list[int], *, apart: bool = False) -> dict[str, Any]:
    """
    The tensors of one of our own checkpoints without the encoder blocks that are in `stored` and not in `kept`.

    Blocks are renumbered from 0; the pruned ones are not read.

    Args:
        apart: each as a [`StoredTensor`].
    """
    prefix = "audio_encoder."
    tensors: dict[str, Any] = {}
    for path in files:
        with open_tensors(path) as file:
            for key in file.keys():  # noqa: SIM118
                name: str | None = key
                if key.startswith(prefix):
                    inner = renumbered(key.removeprefix(prefix), stored, kept)
                    name = None if inner is None else prefix + inner
                if name is not None:
                    tensors[name] = StoredTensor(path, key) if apart else file.get_tensor(key)
    return tensors


def renumbered(name: str, stored: list[int], kept: list[int]) -> str | None:
    """The name of an encoder's tensor when of the blocks `stored` only `kept` are left; None in a block that is not."""
    block = ENCODER_LAYER.match(name)
    if block is None or int(block[1]) >= len(stored):
        return name  # a block too many keeps its name, which the model lacks: it is refused, not dropped
    index = stored[int(block[1])]
    return f"layers.{kept.index(index)}.{name[block.end() :]}" if index in kept else None


def load_strictly(
    module: nn.Module, tensors: dict[str, torch.Tensor], what: str, dtype: torch.dtype | None = None, prefix: str = ""
) -> None:
    """
    Give `module` (which may be on the meta device) exactly these tensors.

    Args:
        what: the checkpoint, for messages.
        prefix: what precedes the module's own names in `tensors` and in messages.
    Raises:
        ValueError: naming each tensor that is missing, unexpected, of another shape, or not finite.
    """
    expected = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    check_tensors(what, tensors, expected)
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    converted = {
        name.removeprefix(prefix): tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    module.load_state_dict(converted, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained[name])


def load_projector(
    projector: nn.Module, path: str | os.PathLike[str], hub: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    """
    Give `projector` the tensors of the adapter-form checkpoint at `path`, strictly.

    It may be on the meta device: a configuration with sizes that the file does not have then takes no memory.
    """
    tensors = read_pruned(checkpoint_files(path, **hub), [], [])
    load_strictly(projector, tensors, os.fspath(path), dtype, "projector.")
    projector.to(device)


def check_tensors(what: str, tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Raise a ValueError that names each tensor that is missing, unexpected, of another shape, or not finite."""
    shapes = [
        f"{name} (checkpoint {tuple(tensors[name].shape)}, model {tuple(expected[name].shape)})"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    refuse_problems(what, expected.keys() - tensors.keys(), tensors.keys() - expected.keys(), shapes)
    for name, tensor in tensors.items():
        refuse_non_finite(what, name, tensor)


def refuse_problems(
    what: str, missing: Iterable[str] = (), unexpected: Iterable[str] = (), mismatched: Iterable[str] = ()
) -> None:
    """Raise a ValueError that names the tensors, if there are any."""
    problems = []
    for label, names in (("missing", missing), ("not part of the model", unexpected), ("of another shape", mismatched)):
        listed = sorted(names)
        if listed:
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            problems.append(f"{len(listed)} tensor(s) {label}: {', '.join(listed[:5])}{more}")
    if problems:
        raise ValueError(
            f"The checkpoint of {what} does not fit: {'; '.join(problems)}. It is damaged or was made for another configuration; "
            "nothing is filled in at random. Download or save it again."
        )


def refuse_non_finite(what: str, name: str, tensor: torch.Tensor) -> None:
    """Raise a ValueError if a floating-point tensor holds NaN or infinity."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao's quantized weights: of whole numbers and their scales
        for part in tensor.__tensor_flatten__()[0]:
            refuse_non_finite(what, name, getattr(tensor, part))
        return
    # bitsandbytes may keep whole numbers as the bits of floats.
    packed = getattr(tensor, "quant_state", None) is not None
    if tensor.is_floating_point() and tensor.numel() and tensor.device.type != "meta" and not packed:
        values = tensor.detach()
        low, high = torch.aminmax(values.to(torch.bfloat16) if values.itemsize == 1 else values)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise ValueError(f"The checkpoint of {what} is damaged: the tensor {name} holds NaN or infinite values.")


def refuse_non_finite_files(what: str, files: Iterable[str], prefix: str = "") -> None:
    """Raise a ValueError if a tensor of safetensors files whose name begins with `prefix` holds NaN or infinity."""
    for path in files:
        with open_tensors(path) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        for name in names:
            refuse_non_finite(what, name, StoredTensor(path, name)[...])


def for_llm_only(quantization_config: Any, config: SlamAsrConfig) -> Any:
    """
    The quantization configuration with encoder, projector and LoRA left out of it.

    What it leaves out itself is a part of the LLM: where it names nothing, the layer that gives the logits, as when the
    LLM comes from its own repository.
    """
    quantization_config = copy.deepcopy(quantization_config)
    for name in ("llm_int8_skip_modules", "modules_to_not_convert"):
        if hasattr(quantization_config, name):
            skipped = getattr(quantization_config, name) or [_output_layer(config)]
            ours = ["audio_encoder", "projector", r".*\.lora_[AB]\.default"]
            setattr(quantization_config, name, [*skipped, *(f"language_model.{skip}" for skip in skipped), *ours])
    return quantization_config


def _output_layer(config: SlamAsrConfig) -> str:
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(config.text_config)
    head = language_model.get_output_embeddings()
    return next(name for name, module in language_model.named_modules() if module is head)


def hand_quantizer_to_llm(model: Any) -> None:
    """Mark the LLM as quantized in place of the whole, as when it comes from its own repository: only it is."""
    marks = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit",
             "is_4bit_serializable", "is_8bit_serializable")  # fmt: skip
    for owner, receiver, names in (
        (model, model.language_model, marks),
        (model.config, model.language_model.config, ("quantization_config",)),
    ):
        for name in names:
            if name in vars(owner):
                setattr(receiver, name, vars(owner).pop(name))
