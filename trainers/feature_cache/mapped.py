"""Rows of a memory-mapped safetensors file, without the file staying in the process's memory."""

import json
import mmap
from pathlib import Path

import numpy as np
import torch

_NUMPY = {"BF16": (np.uint16, torch.bfloat16), "F32": (np.float32, torch.float32)}
_PAGES = mmap.ALLOCATIONGRANULARITY


class MappedRows:
    """
    The two-dimensional tensors of a safetensors file, in bfloat16 or float32.

    What is read is copied and its pages are given back: a training that goes through a cache of 50 GB would otherwise seem
    to hold 50 GB, and job schedulers count that. The system still keeps in its page cache what it has room for.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = int.from_bytes(self._map[:8], "little")
        self._header = json.loads(self._map[8 : 8 + size])
        self._data = 8 + size

    def rows(self, name: str, start: int, end: int) -> torch.Tensor:
        """`(end - start, width)`: a copy of these rows of the tensor `name`."""
        entry = self._header[name]
        kind, dtype = _NUMPY[entry["dtype"]]
        width = entry["shape"][1]
        step = width * dtype.itemsize
        first = self._data + entry["data_offsets"][0] + start * step
        values = np.frombuffer(self._map, dtype=kind, count=(end - start) * width, offset=first)
        found = torch.from_numpy(values.reshape(end - start, width).copy()).view(dtype)
        if hasattr(mmap, "MADV_DONTNEED"):
            whole = first // _PAGES * _PAGES
            self._map.madvise(mmap.MADV_DONTNEED, whole, first + (end - start) * step - whole)
        return found
