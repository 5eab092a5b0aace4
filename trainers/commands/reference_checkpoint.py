"""
Converting a checkpoint of the paper's code, or of SLAM-LLM, to this project's format.

Both save a pickled state dict (`.pt`). The code of arXiv 2603.27981 writes `{"step", "projector", "lora"}`, or the projector's
state dict alone; SLAM-LLM writes one flat dictionary with `encoder_projector.*` and `llm.*`. Neither records the base
models, the pruning, or LoRA's alpha: they are arguments here. The file is read without running any code in it.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.checkpoint_slam_asr import load_strictly
from modeling_slam_asr.lora_slam_asr import PREFIX, ParameterReport, set_lora
from trainers.errors import UserError, listed
from trainers.sound import RATE

LORA_NAME = re.compile(r"^(.*)\.lora_(A|B)\.(?:[^.]+\.)?weight$")
# Names before the tensors of the two parts, in the order in which they are tried.
PROJECTOR_PREFIXES = ("encoder_projector.", "projector.")
LLM_PREFIX = "llm."


@dataclass
class ReferenceCheckpoint:
    """
    projector: the projector's tensors by the names of its module.
    lora: LoRA's tensors by the names of PEFT's files, without its prefix; empty when there are none.
    """

    projector: dict[str, torch.Tensor]
    lora: dict[str, torch.Tensor]


def read_reference(path: Path) -> ReferenceCheckpoint:
    """
    Read a `.pt` of the paper's code or of SLAM-LLM with `weights_only=True`.

    Raises:
        UserError: for a file that is not such a checkpoint or holds other objects than tensors and numbers.
    """
    try:
        _refuse_expanding(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"The checkpoint {path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. Name the checkpoint file in it.") from None
    except UserError:
        raise
    except Exception as error:  # unpickling what is no checkpoint raises anything
        raise UserError(
            f"{path} cannot be read as a checkpoint of tensors: it is damaged, or no file that torch wrote, or it holds other "
            "Python objects. A file with these is refused, since loading it would run its code."
        ) from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    projector = content.pop("projector", None)
    lora = content.pop("lora", {})
    rest = {name: value for name, value in content.items() if name not in ("step", "epoch", "global_step")}
    if projector is None:
        projector, more = _split_flat(rest)
        lora = {**lora, **more}
    elif rest:
        raise UserError(
            f"{path} holds {listed(sorted(map(str, rest)))} beside 'projector' and 'lora', which this command does not know."
        )
    for name, value in {**projector, **lora}.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"In {path}, {name!r} is a {type(value).__name__}, not a tensor.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"In {path}, {name!r} has the shape {tuple(value.shape)} but fewer numbers than that.")
    if not projector:
        raise UserError(
            f"{path} holds no projector. Expected 'projector', 'encoder_projector.*' or a projector's own tensors."
        )
    return ReferenceCheckpoint(projector, {_peft_name(name, path): tensor for name, tensor in lora.items()})


def _refuse_expanding(path: Path) -> None:
    """torch stores tensors as they are. An archive whose parts are larger than itself only fills the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > path.stat().st_size:
        raise UserError(
            f"{path} is an archive of {path.stat().st_size} bytes that unpacks to {unpacked}: torch.save writes no such "
            "file, and it is not read. Save the checkpoint again with torch.save."
        )


def projector_settings(projector: dict[str, torch.Tensor], d_model: int) -> dict[str, Any]:
    """The configuration fields that a projector's tensors tell, for an encoder of width `d_model`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in projector.items()}
    if "query" in shapes:
        layers = {int(found[1]) for name in shapes if (found := re.match(r"qformer\.encoder\.layer\.(\d+)\.", name))}
        return {
            "projector_type": "qformer",
            "projector_num_queries": shapes["query"][1],
            "projector_num_layers": len(layers),
        }
    if "linear1.weight" not in shapes or "linear2.weight" not in shapes:
        raise UserError(
            f"The projector has the tensors {listed(sorted(map(str, shapes)))}: this is none of concat-linear, conv1d and Q-Former."
        )
    hidden, width = shapes["linear1.weight"]
    settings = {"projector_hidden_size": hidden, "projector_layer_norm": "layer_norm.weight" in shapes}
    if "conv1d.weight" in shapes:
        return {"projector_type": "conv1d", "projector_downsample_rate": shapes["conv1d.weight"][2], **settings}
    if width % d_model:
        raise UserError(
            f"The projector reads vectors of {width}, which is no multiple of the audio model's width {d_model}. "
            "Give the --audio-model that it was trained for."
        )
    return {"projector_type": "concat_linear", "projector_downsample_rate": width // d_model, **settings}


def lora_settings(
    lora: dict[str, torch.Tensor], rank: int | None, alpha: float | None, dropout: float
) -> dict[str, Any] | None:
    """LoRA's settings from its tensors; alpha, which they do not tell, is twice the rank when None (as in the paper)."""
    if not lora:
        if rank is not None:
            raise UserError("--lora-rank was given, but the checkpoint has no LoRA weights.")
        return None
    ranks = {tensor.shape[0] for name, tensor in lora.items() if name.endswith("lora_A.weight")}
    if len(ranks) != 1:
        raise UserError(f"The LoRA weights have the ranks {sorted(ranks)}; one rank for all is expected.")
    found = ranks.pop()
    if rank is not None and rank != found:
        raise UserError(f"--lora-rank {rank} was given, but the checkpoint's LoRA has rank {found}.")
    targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in lora})
    alpha = 2 * found if alpha is None else alpha
    whole = int(alpha) if float(alpha).is_integer() else alpha
    return {"r": found, "lora_alpha": whole, "lora_dropout": dropout, "target_modules": targets}


def import_reference(
    checkpoint: Path,
    audio_model: str,
    text_model: str,
    output_dir: Path,
    *,
    prune_encoder_layers: int | list[int] = 0,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_dropout: float = 0.1,
    checkpoint_form: str = "adapter",
    dtype: str = "float32",
    **options: Any,
) -> ParameterReport:
    """
    Write `checkpoint` with its base models as a checkpoint of this project, reload it and compare the two.

    Args:
        options: `audio_revision`, `text_revision`, and fields of `SlamAsrConfig` such as `prompt`.
    Raises:
        UserError, ValueError: when the file is not such a checkpoint or does not fit the base models, naming the tensor.
    """
    from transformers import AutoConfig

    reference = read_reference(checkpoint)
    revision = options.get("audio_revision") or "main"
    d_model = AutoConfig.from_pretrained(audio_model, revision=revision).d_model
    model = SlamAsrForConditionalGeneration.from_base_models(
        audio_model,
        text_model,
        prune_encoder_layers=prune_encoder_layers,
        lora=lora_settings(reference.lora, lora_rank, lora_alpha, lora_dropout),
        dtype=dtype,
        **projector_settings(reference.projector, d_model),
        **options,
    )
    load_strictly(model.projector, reference.projector, f"{checkpoint} (projector)", model.dtype)
    model.projector.to(model.device)
    if reference.lora:
        set_lora(model.language_model, reference.lora, f"{checkpoint} (LoRA)")
    config = model.config
    bases = SlamAsrProcessor.from_base_models(
        audio_model, text_model, audio_revision=config.audio_model_revision, text_revision=config.text_model_revision
    )
    processor = SlamAsrProcessor.from_config(config, bases.feature_extractor, bases.tokenizer)
    model.save_pretrained(output_dir, checkpoint_form=checkpoint_form)
    processor.save_pretrained(output_dir)

    inputs = processor(np.zeros(RATE, dtype=np.float32)).to(model.device)
    with torch.no_grad():
        expected = model(**inputs).logits
        report = model.parameter_report()
        del model
        reloaded = SlamAsrForConditionalGeneration.from_pretrained(output_dir, dtype=dtype)
        if not torch.allclose(reloaded(**inputs).logits, expected, atol=1e-4, rtol=1e-3):
            raise RuntimeError(f"The checkpoint in {output_dir} does not compute what was written to it.")
    return report


def _split_flat(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Projector and LoRA of a flat state dict; a dictionary without known prefixes is a projector's own."""
    names = {name.removeprefix("module."): value for name, value in state.items()}
    prefix = next((known for known in PROJECTOR_PREFIXES if any(name.startswith(known) for name in names)), "")
    projector, lora = {}, {}
    for name, value in names.items():
        if name.startswith(LLM_PREFIX):
            lora[name.removeprefix(LLM_PREFIX)] = value
        elif name.startswith(prefix):
            projector[name.removeprefix(prefix)] = value
        else:
            raise UserError(
                f"The checkpoint holds {name!r}, which belongs neither to a projector nor to LoRA on the LLM."
            )
    return projector, lora


def _peft_name(name: str, path: Path) -> str:
    found = LORA_NAME.match(name)
    if found is None:
        raise UserError(
            f"In {path}, {name!r} is no LoRA tensor (..lora_A.weight or ..lora_B.weight) and cannot be imported."
        )
    return f"{found[1].removeprefix(PREFIX)}.lora_{found[2]}.weight"
