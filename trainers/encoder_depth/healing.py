"""Healing: what remains of a pruned encoder learns to give the full encoder's output, from speech without transcripts.

The teacher's states come from a feature cache, and so do the states that enter the first trained block: the frozen blocks
below it and the pruned ones above are never run. Compare "label-free healing" in rasgaard/whisper-large-v3-turbo-encoder-pruned
and the layer distillation of arXiv 2311.00430.
"""

import copy
import functools
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from modeling_slam_asr.lora_slam_asr import add_lora, is_adapter_tensor, merged_state
from trainers.data.batching import EpochBatchSampler
from trainers.data.manifests import load_manifest
from trainers.data.rows import Utterance, from_rows
from trainers.data.scan import scan
from trainers.data.spec import DataSpec
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.data.tables import table_suffix
from trainers.errors import UserError
from trainers.feature_cache import FeatureRows
from trainers.files import replacing, write_json
from trainers.recipes.checked_dataclasses import LATER, check_numbers
from trainers.training.loop import TrainingLoop

logger = logging.getLogger(__name__)

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass
class HealSpec:
    """
    How a pruned encoder is healed.

    Attributes:
        speech: sound files, folders with sound files at any depth, or manifests; transcripts are not needed. The training
            speech if empty.
        audio_root, segments: of the manifests, as in [`DataSpec`].
        blocks: how many of the last kept blocks are trained; all when None.
        steps, batch_seconds: length of the training, in batches of so many seconds of sound.
        learning_rate: peak, after a warm-up of 5 %, then down to 10 % of it along a cosine.
        bf16: compute products in bfloat16; weights, outputs and the loss stay in float32.
        lora_rank, lora_learning_rate: for healing by LoRA, which is merged into the blocks afterwards.
        save_steps: steps between checkpoints.
    """

    speech: list[str] = field(default_factory=list)
    audio_root: str | None = field(default=None, metadata={LATER: True})
    segments: Literal["auto", "ignore"] = field(default="auto", metadata={LATER: True})
    blocks: int | None = None
    steps: int = 1000
    batch_seconds: float = 60.0
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    bf16: bool = False
    lora_rank: int = 16
    lora_learning_rate: float = 1e-3
    save_steps: int = 200
    seed: int = 42

    def __post_init__(self) -> None:
        above_zero = "steps batch_seconds learning_rate lora_rank lora_learning_rate save_steps"
        check_numbers(self, "heal.", above_zero=above_zero)
        if self.blocks is not None and self.blocks < 1:
            raise UserError(f"heal.blocks={self.blocks}: give at least 1, or null for all.")


def untranscribed(
    speech: Sequence[str],
    quiet: bool = False,
    audio_root: str | None = None,
    segments: Literal["auto", "ignore"] = "auto",
) -> Dataset:
    """Rows of sound files, folders and manifests, with `seconds`; what is left out is counted in a warning.

    Args:
        audio_root, segments: of the manifests, as in [`DataSpec`].

    Raises:
        UserError: a path does not exist, or there is no sound that can be read.
    """
    found: list[Utterance] = []
    for name in speech:
        path = Path(name).expanduser()
        if not path.exists():
            raise UserError(f"heal.speech names {name!r}, which does not exist.")
        if path.is_file() and table_suffix(path) is not None:
            found += load_manifest(DataSpec(name, audio_root=audio_root, segments=segments), untranscribed=True)
            continue
        files = (
            [path]
            if path.is_file()
            else sorted(item for item in path.rglob("*") if item.suffix.lower() in SOUND_SUFFIXES)
        )
        found += [Utterance(id=str(file), audio=file, text="") for file in files]
    rows = from_rows(found) if found else None
    scanned = scan(rows, "decode", "reading untranscribed speech", quiet) if rows is not None else []
    good = [index for index, item in enumerate(scanned) if item.error is None and 0.1 <= item.duration <= 30]
    if rows is None or not good:
        raise UserError(
            f"heal.speech={list(speech)} holds no sound of 0.1 to 30 s ({', '.join(SOUND_SUFFIXES)}) that can be read."
        )
    damaged = [item for item in scanned if item.error is not None]
    if len(good) < len(scanned):
        first = f", the first: {damaged[0].error}" if damaged else ""
        logger.warning(
            f"heal.speech: {len(scanned) - len(good)} of {len(scanned)} recordings are left out: "
            f"{len(scanned) - len(good) - len(damaged)} are not of 0.1 to 30 s, {len(damaged)} damaged{first}"
        )
    return rows.select(good).add_column("seconds", [scanned[index].duration for index in good])


def trained_blocks(spec: HealSpec, kept: Sequence[int]) -> int:
    """How many of the last kept blocks are trained."""
    return len(kept) if spec.blocks is None else min(spec.blocks, len(kept))


class Healed(TypedDict):
    """The content of `healing.json`; losses are means over up to 64 utterances of the training speech."""

    method: Literal["encoder", "lora"]
    steps: int
    seconds: NotRequired[float]
    """that the steps took; older versions did not write it"""
    loss_before: float
    loss_after: float
    settings: dict[str, Any]
    """those of [`HealSpec`]"""


def heal(
    encoder: SlamAsrEncoder,
    inputs: FeatureRows,
    targets: FeatureRows,
    spec: HealSpec,
    folder: Path,
    *,
    method: Literal["encoder", "lora"] = "encoder",
    quiet: bool = False,
) -> Healed:
    """
    Train the last blocks of a pruned `encoder`, in place, until its output is near the full encoder's.

    The loss is the mean squared difference of the outputs after the final LayerNorm (which stays as it is), over the frames
    of the utterances. An interrupted training goes on from its last checkpoint in `folder`; a finished one is loaded.

    Args:
        encoder: the pruned encoder, with every kept block.
        inputs: states that enter the first trained block: at the depth of the kept blocks below it.
        targets: states of the full encoder, of the same utterances.
        method: train the blocks' weights, or LoRA on their attention that is merged at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = folder / "healing.json"
    if finished.is_file():
        encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
        return cast(Healed, json.loads(finished.read_text(encoding="utf-8")))
    count = trained_blocks(spec, encoder.kept_layers)
    encoder.eval().requires_grad_(False)
    before = _mean_loss(encoder, inputs, targets, count, spec.bf16)
    if method == "lora":
        student = copy.deepcopy(encoder)
        add_lora(student, {"r": spec.lora_rank, "lora_alpha": 2 * spec.lora_rank, "target_modules": LORA_TARGETS})
        student.requires_grad_(False)
    else:
        student = encoder
    for layer in student.layers[-count:]:
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(method == "encoder" or is_adapter_tensor(name))
    rate = spec.lora_learning_rate if method == "lora" else spec.learning_rate
    seconds = _train(student, inputs, targets, spec, rate, count, folder, quiet)
    if method == "lora":
        encoder.load_state_dict(merged_state(student, student.state_dict(), ""))
    encoder.requires_grad_(False)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with replacing(folder / "encoder.safetensors") as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    result: Healed = {
        "method": method,
        "steps": spec.steps,
        "seconds": round(seconds, 3),
        "loss_before": before,
        "loss_after": _mean_loss(encoder, inputs, targets, count, spec.bf16),
        "settings": asdict(spec),
    }
    write_json(finished, result)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return result


def _train(
    encoder: SlamAsrEncoder,
    inputs: FeatureRows,
    targets: FeatureRows,
    spec: HealSpec,
    rate: float,
    count: int,
    folder: Path,
    quiet: bool,
) -> float:
    """Take the steps, and return how many seconds they took."""
    trained = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    sampler = EpochBatchSampler(len(inputs), seed=spec.seed, costs=list(inputs["seconds"]), budget=spec.batch_seconds)
    plan_of = functools.lru_cache(maxsize=1)(sampler.plan)

    def loss_of_step(step: int) -> torch.Tensor:
        epoch, place = divmod(step, len(sampler))
        return _loss(encoder, inputs, targets, plan_of(epoch)[place], count, spec.bf16)

    loop = TrainingLoop(
        trained,
        [torch.optim.AdamW(trained.values(), lr=rate, weight_decay=spec.weight_decay)],
        steps=spec.steps,
        rate_factor=lambda step: _rate_factor(step, spec.steps),
        checkpoint=folder / "checkpoint.pt",
        description="healing",
        save_steps=spec.save_steps,
        quiet=quiet,
    )
    loop.run(loss_of_step)
    return loop.seconds


def _loss(
    encoder: SlamAsrEncoder, inputs: FeatureRows, targets: FeatureRows, batch: Sequence[int], count: int, bf16: bool
) -> torch.Tensor:
    """Mean squared difference of the outputs of the rows `batch`, over their frames."""
    device, dtype = encoder.conv1.weight.device, encoder.conv1.weight.dtype
    entering = [inputs[index]["encoder_hidden_states"] for index in batch]
    wanted = [targets[index]["encoder_hidden_states"] for index in batch]
    hidden = nn.utils.rnn.pad_sequence(entering, batch_first=True).to(device, dtype)
    goal = nn.utils.rnn.pad_sequence(wanted, batch_first=True).to(device, dtype)
    lengths = torch.tensor([len(item) for item in entering], device=device)
    mask = torch.arange(hidden.shape[1], device=device) < lengths[:, None]
    block_mask = encoder.block_mask(hidden, mask)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for layer in encoder.layers[-count:]:
            hidden = layer(hidden, block_mask)
    hidden = hidden.to(dtype)
    difference = encoder.layer_norm(hidden) - encoder.layer_norm(goal)
    return difference[mask].float().square().mean()


@torch.no_grad()
def _mean_loss(encoder: SlamAsrEncoder, inputs: FeatureRows, targets: FeatureRows, count: int, bf16: bool) -> float:
    rows = range(min(64, len(inputs)))
    return sum(float(_loss(encoder, inputs, targets, [index], count, bf16)) for index in rows) / len(rows)


def _rate_factor(step: int, steps: int) -> float:
    warmup = max(1, math.ceil(0.05 * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
