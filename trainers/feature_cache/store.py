"""The cache's files: pieces of some 100 MB, each whole, checked and locked by itself."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors.torch import save

from trainers.data.rows import TrainingRow
from trainers.errors import DiskFullError, UserError, is_disk_full
from trainers.feature_cache.depths import Depth, depth_name
from trainers.feature_cache.keys import cache_key
from trainers.feature_cache.mapped import MappedRows
from trainers.files import lock_file, write_bytes, write_json

META = "cache.json"


class CacheDescription(TypedDict):
    """The content of `cache.json`."""

    format: int
    key: str
    """see [`cache_key`]"""
    encoder: str
    """its fingerprint"""
    mel: dict[str, object]
    depths: list[str]
    dtype: str
    rows: int
    width: int
    """of a state"""
    shard_ends: list[int]
    """of each piece, the row after its last"""


class ShardRecord(TypedDict):
    """What is stored beside a piece, once that is whole."""

    bytes: int
    crc32: int
    frames: list[int]
    """of each row"""
    frames_crc32: NotRequired[int]
    """of `frames` as JSON; records of earlier versions have none"""


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `end` of a data set, at all depths: a safetensors file, and a JSON file once that is complete."""

    folder: Path
    number: int
    start: int
    end: int

    @property
    def data(self) -> Path:
        return self.folder / f"states-{self.number:05d}.safetensors"

    @property
    def record(self) -> Path:
        return self.folder / f"states-{self.number:05d}.json"

    def write(self, states: Mapping[str, list[torch.Tensor]]) -> None:
        """Store `{depth name: [(frames, width) of each row]}`, the data first and then the record that makes it count."""
        first = next(iter(states.values()))
        content = save({name: torch.cat(parts).contiguous() for name, parts in states.items()})
        try:
            write_bytes(self.data, content)
            lengths = [len(part) for part in first]
            crc32 = zlib.crc32(content)
            write_json(
                self.record, ShardRecord(bytes=len(content), crc32=crc32, frames=lengths, frames_crc32=_sum(lengths))
            )
        except OSError as error:
            raise (DiskFullError if is_disk_full(error) else UserError)(
                f"The feature cache cannot be written to {str(self.folder)!r}: {error.strerror or error}. What is "
                "finished stays and is used again: free some space, or choose another cache directory, and start again."
            ) from error

    def frames(self, check: bool = True) -> list[int] | None:
        """Frames of each row; None when the shard is missing, incomplete, or (if `check`) its bytes have changed."""
        try:
            record: ShardRecord = json.loads(self.record.read_text(encoding="utf-8"))
            frames, size, checksum = record["frames"], record["bytes"], record["crc32"]
            if len(frames) != self.end - self.start or self.data.stat().st_size != size:
                return None
            if record.get("frames_crc32", _sum(frames)) != _sum(frames) or (check and _crc32(self.data) != checksum):
                return None
            if not all(type(n) is int and n > 0 for n in frames):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return list(frames)

    def locked(self, wait: bool) -> AbstractContextManager[bool]:
        """Whether this process has the shard to itself; the lock ends with the process, however that ends."""
        return lock_file(self.folder / f"states-{self.number:05d}.lock", wait)


class FeatureCache:
    """
    A finished cache.

    Attributes:
        folder: where it lies.
        depths: names of the depths in it, see [`depth_name`].
        lengths: frames (50 a second) of each row.
    """

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], audio: str) -> None:
        meta: CacheDescription = json.loads((folder / META).read_text(encoding="utf-8"))
        self._audio, self._meta = audio, meta
        self.folder = folder
        self.rows = rows
        self.lengths = list(lengths)
        self.depths, self.width, self.dtype = meta["depths"], meta["width"], meta["dtype"]
        self.shards = shards_of(folder, meta)
        self._places: list[tuple[int, int]] = []
        for shard in self.shards:
            position = 0
            for frames in self.lengths[shard.start : shard.end]:
                self._places.append((shard.number, position))
                position += frames
        self._opened = object()  # pieces that another build has written since are other files

    def __len__(self) -> int:
        return len(self.lengths)

    def key_of(self, depths: Iterable[Depth]) -> str:
        """What [`cache_key`] gives for these depths alone: the same, whatever else the cache holds."""
        names = {depth_name(depth) for depth in depths}
        return cache_key(self._meta["encoder"], names, self._meta["mel"], self.dtype, self._audio)

    def states(self, index: int, depth: Depth) -> torch.Tensor:
        """States before the final LayerNorm of one row: `(frames, d_model)` in the cache's dtype.

        Raises:
            UserError: the cache does not hold this depth.
        """
        name = depth_name(depth)
        if name not in self.depths:
            raise UserError(
                f"The feature cache {str(self.folder)!r} holds the depths {', '.join(self.depths)}, not {name}."
            )
        number, position = self._places[index]
        rows = _mapped(self.shards[number].data, self._opened)
        return rows.rows(name, position, position + self.lengths[index])

    def dataset(self, depth: Depth) -> "FeatureRows":
        """The data set's rows with `encoder_hidden_states` in place of `audio`, for training at one depth."""
        self.states(0, depth)  # an unknown depth fails here, not in a worker
        return FeatureRows(self, depth, self.rows)


class FeatureRows(torch.utils.data.Dataset[TrainingRow]):
    """Rows of a data set at one depth: their own columns without `audio`, and `encoder_hidden_states` `(frames, d_model)`.

    A column's name as index gives the column, as with `datasets.Dataset`.
    """

    def __init__(self, cache: FeatureCache, depth: Depth, rows: Sequence[Mapping[str, Any]]) -> None:
        self.cache = cache
        self.depth = depth
        # Reading a row of a data set that holds its audio would read the audio.
        self.rows = rows.remove_columns("audio") if hasattr(rows, "remove_columns") else rows

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int | str) -> Any:
        if isinstance(index, str):
            return self.rows[index] if hasattr(self.rows, "column_names") else [row.get(index) for row in self.rows]  # type: ignore[call-overload]
        row = {name: value for name, value in self.rows[index].items() if name != "audio"}
        return {**row, "encoder_hidden_states": self.cache.states(index, self.depth)}

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that can be read alone."""
        names = getattr(self.rows, "column_names", None)
        return list(names if names is not None else self.rows[0])


def shards_of(folder: Path, meta: CacheDescription) -> list[Shard]:
    """The pieces that a cache's description lists."""
    ends = meta["shard_ends"]
    return [
        Shard(folder, number, start, end) for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]


@lru_cache(maxsize=64)  # in the process: each holds a file descriptor, and many systems allow 1,024
def _mapped(path: Path, opened: object) -> MappedRows:
    """A piece of the cache that was opened as `opened`, of which the least recently used one is closed for a new one."""
    return MappedRows(path)


def _sum(frames: Sequence[int]) -> int:
    return zlib.crc32(json.dumps(frames).encode())


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
