"""Reading safetensors checkpoints of base models and of our own, and checking that every tensor arrived."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
ENCODER_LAYER = re.compile(r"^layers\.(\d+)\.")


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of `kwargs` that say how to reach a repository."""
    return {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}


def checkpoint_files(model: str | os.PathLike[str], **hub: Any) -> list[str]:
    """
    Paths of the safetensors files of a folder or Hub repository, downloaded if need be.

    Raises:
        OSError: when it has none, naming the remedy.
    """
    quiet = {"_raise_exceptions_for_missing_entries": False}
    single = cached_file(model, SAFE_WEIGHTS_NAME, **hub, **quiet)
    if single is not None:
        return [single]
    index = cached_file(model, SAFE_WEIGHTS_INDEX_NAME, **hub, **quiet)
    if index is None:
        raise OSError(
            f"{os.fspath(model)!r} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}. Pickled weights (.bin, .pt) are "
            "not read, since they can run code: save them as safetensors first."
        )
    names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    return [cached_file(model, name, **hub) for name in names]


def repository_commit(model: str | os.PathLike[str], **hub: Any) -> str | None:
    """The 40-hex commit that a Hub repository's configuration was read at; None for a folder on disk."""
    if Path(model).is_dir():
        return None
    path = cached_file(model, "config.json", **hub)
    match = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return match.group(1) if match else None


def read_encoder(files: Iterable[str], kept: list[int]) -> dict[str, torch.Tensor]:
    """
    The encoder's tensors out of a Whisper checkpoint (whole or encoder only), with the kept blocks renumbered from 0.

    Pruned blocks are not read.
    """
    position = {index: place for place, index in enumerate(kept)}
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                name = key.removeprefix("model.").removeprefix("encoder.")
                if key.startswith(("decoder.", "model.decoder.")) or name == "proj_out.weight":
                    continue
                block = ENCODER_LAYER.match(name)
                if block is not None:
                    if int(block[1]) not in position:
                        continue
                    name = f"layers.{position[int(block[1])]}.{name[block.end() :]}"
                tensors[name] = file.get_tensor(key)
    return tensors


def read_pruned(files: Iterable[str], stored: list[int], kept: list[int]) -> dict[str, torch.Tensor]:
    """
    The tensors of one of our own checkpoints without the encoder blocks that are in `stored` and not in `kept`.

    Args:
        stored, kept: indices of the base encoder's blocks in the checkpoint and in the model to load.
    """
    place = {stored.index(index): position for position, index in enumerate(kept)}
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                name = key
                block = ENCODER_LAYER.match(key.removeprefix("audio_encoder."))
                if key.startswith("audio_encoder.") and block is not None:
                    if int(block[1]) not in place:
                        continue
                    name = f"audio_encoder.layers.{place[int(block[1])]}.{key.removeprefix('audio_encoder.')[block.end() :]}"
                tensors[name] = file.get_tensor(key)
    return tensors


def load_strictly(
    module: nn.Module, tensors: dict[str, torch.Tensor], what: str, dtype: torch.dtype | None = None
) -> None:
    """
    Give `module` (which may be on the meta device) exactly these tensors.

    Raises:
        ValueError: naming each tensor that is missing, unexpected, of another shape, or not finite.
    """
    expected = module.state_dict()
    shapes = [
        f"{name} (checkpoint {tuple(tensors[name].shape)}, model {tuple(expected[name].shape)})"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    refuse_problems(
        what, missing=expected.keys() - tensors.keys(), unexpected=tensors.keys() - expected.keys(), mismatched=shapes
    )
    frozen = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for name, tensor in tensors.items():
        refuse_non_finite(what, name, tensor)
        tensors[name] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    module.load_state_dict(tensors, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(frozen[name])


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
    if tensor.is_floating_point() and tensor.numel() and tensor.device.type != "meta":
        low, high = torch.aminmax(tensor.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise ValueError(f"The checkpoint of {what} is damaged: the tensor {name} holds NaN or infinite values.")
