"""The engine `torch`: the model itself, loaded part by part."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.engines import ModelSource
from trainers.errors import UserError, reading_files_of
from trainers.files import is_local_name

if TYPE_CHECKING:
    from modeling_slam_asr import SlamAsrPipeline


def load_pipeline(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    merge_lora: bool = True,
) -> "SlamAsrPipeline":
    """
    The ASR pipeline of a model folder or Hub repository.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, ...; the GPU when there is one, if None.
        dtype: `float32`, `bfloat16` or `float16`; as saved, if None.
        merge_lora: add LoRA into the base weights, which computes the same sooner. Quantized weights keep it apart.
    Raises:
        UserError: when there is no SLAM-ASR model of that name, or no such device.
    """
    name = os.fspath(model)
    if device is not None:
        _check_device(device)
    local = Path(name).is_dir()
    if not local and is_local_name(name):
        raise UserError(f"The model {name!r} does not exist. Give a folder with a config.json, or a Hub name.")
    if local and not (Path(name) / "config.json").is_file():
        raise UserError(f"The folder {name!r} has no config.json, so it is no model. `slam-asr train` makes one.")
    with reading_files_of(name):
        return _load_pipeline(name, device, dtype, revision, merge_lora)


def _load_pipeline(
    name: str, device: str | None, dtype: str | None, revision: str | None, merge_lora: bool
) -> "SlamAsrPipeline":
    """Part by part: `pipeline(model=NAME)` would wrap what is wrong with a checkpoint in tracebacks, and ask whether to run code."""
    import torch
    from transformers import AutoConfig

    from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
    from modeling_slam_asr.checkpoint_slam_asr import repository_commit

    commit = repository_commit(name, revision=revision or "main")
    revision = commit or revision  # one commit for model and processor
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    if not isinstance(config, SlamAsrConfig):
        raise UserError(f"{name!r} is a {config.model_type} model, not a SLAM-ASR model.")
    network = SlamAsrForConditionalGeneration.from_pretrained(name, revision=revision, dtype=dtype or "auto")
    try:
        processor = SlamAsrProcessor.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise UserError(
            f"The processor of {name!r} (processor_config.json, tokenizer.json, tokenizer_config.json) cannot be read: "
            f"{error} Write it there with `processor.save_pretrained({name!r})`."
        ) from error
    parameters = network.parameter_report()
    pipe = pipeline_of(network, processor, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if merge_lora and not network.has_quantized_llm():
        network.merge_lora()
    pipe.source = ModelSource(name, commit, parameters)
    return pipe


def pipeline_of(model: Any, processor: Any, device: str | None = None) -> "SlamAsrPipeline":
    """The pipeline of a loaded model and its processor; the device is the library's choice, if None."""
    from modeling_slam_asr import SlamAsrPipeline

    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor, "processor": processor}
    return SlamAsrPipeline(model, **parts, device=device)


def _check_device(device: str) -> None:
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: this machine's torch has no GPU. Use --device cpu.")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"--device {device}: torch cannot compute there ({reason}). Use --device cpu.") from error
