"""Checkpoints of a run: which are whole, what is trained in them, and how they are thrown away."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from trainers.errors import DiskFullError, UserError, is_disk_full, listed
from trainers.files import replacing, write_json

MARKER = "complete.json"
TRAINABLE = "trainable.safetensors"
_FULL = 64 * 2**20
_NAME = re.compile(r"checkpoint-(\d+)$")


@contextmanager
def room_to_write(folder: Path, guess: bool = True) -> Iterator[None]:
    """Turns the libraries' many errors about a full disk into one that says so.

    Args:
        guess: also take errors that do not say why writing failed, when next to nothing is free. For blocks that only write.

    Raises:
        DiskFullError: writing failed because the disk of `folder` is full.
    """
    try:
        yield
    except Exception as error:  # the tokenizers' own is a bare Exception
        number = getattr(error, "errno", None)
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        # Errors without a number that may be about writing: torch's and safetensors' are of these kinds.
        guessed = guess and number is None and isinstance(error, RuntimeError | OSError | SafetensorError)
        if isinstance(error, DiskFullError) or not (is_disk_full(error) or (guessed and free < _FULL)):
            raise
        raise DiskFullError(
            f"The disk of {folder} is full ({free / 2**20:.1f} MiB free; {error}): what was being written is not whole and "
            "will not be used. Make room and go on (a training run: with --resume)."
        ) from error


class Marker(TypedDict):
    """What declares a checkpoint whole: its files with their sizes; and how long the run had trained."""

    files: dict[str, int]
    train_seconds: float


def mark_complete(folder: Path, **facts: Any) -> None:
    """Declare a checkpoint whole: a list of its files and sizes, and `facts`, written last and atomically."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    write_json(folder / MARKER, {"files": files, **facts})


def read_marker(folder: Path) -> Marker | None:
    """What `mark_complete` wrote, or None when the checkpoint is not whole.

    It was never finished, cut short, half deleted, or holds something else than the trainer and `mark_complete` write.
    """
    try:
        marker: Marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in marker["files"].items())
        seconds = float(marker.get("train_seconds", 0.0))
        if (folder / TRAINER_STATE_NAME).exists():
            whole &= type(read_state(folder).global_step) is int
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return {**marker, "train_seconds": seconds} if whole and marker["files"] and seconds >= 0 else None


def read_state(folder: Path) -> TrainerState:
    """The Trainer's state in a checkpoint or a finished run."""
    return TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))


def write_state(folder: Path, state: TrainerState) -> None:
    """Write the Trainer's state into `folder`, atomically. By one process: two would write into each other's file."""
    with replacing(folder / TRAINER_STATE_NAME) as partial:
        state.save_to_json(str(partial))


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, whole or not, oldest step first."""
    found = [(int(match[1]), path) for path in output_dir.glob("checkpoint-*") if (match := _NAME.search(path.name))]
    return [path for _, path in sorted(found)]


def last_checkpoint(output_dir: Path) -> Path | None:
    """The whole checkpoint of the latest step, or None."""
    return next((path for path in reversed(list_checkpoints(output_dir)) if read_marker(path) is not None), None)


def remove_incomplete(output_dir: Path) -> list[Path]:
    """Delete checkpoints that are not whole, and return them."""
    broken = [path for path in list_checkpoints(output_dir) if read_marker(path) is None]
    for path in broken:
        remove(path)
    return broken


def rotate(output_dir: Path, keep: int) -> None:
    """Delete all but the `keep` latest whole checkpoints."""
    whole = [path for path in list_checkpoints(output_dir) if read_marker(path) is not None]
    for path in whole[:-keep]:
        remove(path)


def remove(folder: Path) -> None:
    """Delete a checkpoint, its marker first, so that one cut off half way is never taken for whole."""
    if not (folder / MARKER).is_dir():
        (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that are trained, by parameter name, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_trainable(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """Write `trainable.safetensors`, atomically."""
    path = folder / TRAINABLE
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    return path


def read_trainable(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of `trainable.safetensors`.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return dict(load_file(folder / TRAINABLE))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The weights in {folder} cannot be read ({' '.join(str(error).split())}). Delete this folder and go on "
            "(`slam-asr train`: with --resume): from the checkpoint before or, if it is `best`, with the last weights in its place."
        ) from error


def load_trainable(model: nn.Module, folder: Path) -> None:
    """Put the tensors of `trainable.safetensors` into the model, in place.

    Raises:
        UserError: the file cannot be read, or a tensor is missing, unknown, or of another shape; the model is left as it was.
    """
    tensors = read_trainable(folder)
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - tensors.keys())]
    problems += [f"{name} is not trained by this recipe" for name in sorted(tensors.keys() - wanted.keys())]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} where the model has {tuple(wanted[name].shape)}"
        for name in sorted(tensors.keys() & wanted.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        raise UserError(
            f"The checkpoint {folder} does not belong to this recipe: {listed(problems, mark='; ')}. "
            "Resume with the recipe that the run was started with."
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name])
