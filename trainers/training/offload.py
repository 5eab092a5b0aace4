"""Encoder blocks out of memory while training does not need them: from cached states only the final LayerNorm is used."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from modeling_slam_asr import SlamAsrForConditionalGeneration
from trainers.training.checkpoints import room_to_write


@contextmanager
def parked_blocks(model: SlamAsrForConditionalGeneration, file: Path) -> Iterator[None]:
    """
    Within it the model has no encoder blocks: they wait in `file`. After it they are back, the same to the bit, on the
    model's device, and the file is gone.

    Raises:
        DiskFullError: there is no room for the file.
    """
    encoder = model.audio_encoder
    blocks = encoder.layers
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with room_to_write(file.parent):
            save_file({name: tensor.contiguous() for name, tensor in blocks.state_dict().items()}, file)
        encoder.layers = nn.ModuleList()
        blocks.to("meta")
        # What stays may be views of the file that held the blocks too; it would stay in memory for them.
        for parameter in encoder.parameters():
            parameter.data = parameter.data.clone()
        return_freed_memory()
        try:
            yield
        finally:
            blocks.load_state_dict(load_file(file, device=str(model.device)), assign=True)
            encoder.layers = blocks.eval()
    finally:
        file.unlink(missing_ok=True)


def return_freed_memory() -> None:
    """Give what lies free within the process back to the system. glibc keeps pieces of this size and then fills them with holes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # not in musl
    if trim is not None:
        trim(0)
