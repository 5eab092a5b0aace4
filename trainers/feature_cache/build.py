"""Filling a cache: the encoder runs once over the data, in batches of similar length."""

import logging
import math
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from modeling_slam_asr.processing_slam_asr import SlamAsrProcessor, pad_features
from trainers.data.rows import read_audio
from trainers.errors import DiskFullError, UserError, is_disk_full
from trainers.feature_cache.depths import Depth, check_depths, states_at
from trainers.feature_cache.keys import FORMAT, audio_fingerprints, cache_key, encoder_fingerprint, mel_settings
from trainers.feature_cache.store import META, CacheDescription, FeatureCache, Shard, shards_of
from trainers.files import lock_file, read_object, write_json
from trainers.sound import RATE

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SHARD_BYTES = 128 * 2**20
GIGABYTE = 10**9


def build_cache(
    directory: str | Path,
    rows: Sequence[Mapping[str, Any]],
    encoder: SlamAsrEncoder,
    processor: SlamAsrProcessor,
    depths: Iterable[Depth],
    *,
    dtype: str = "bfloat16",
    batch_seconds: float = 60.0,
    max_gigabytes: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 2,
    quiet: bool = False,
    check: bool = True,
) -> FeatureCache:
    """
    The encoder states of `rows` at all `depths`, from the cache under `directory` or, where that lacks them, computed.

    The cache's sub-folder is named by a hash of all that its content depends on, so another encoder, depth set, spectrogram
    setting or sound gets another one. Pieces that are complete are used again after an interruption; pieces that are
    missing, truncated or altered are made anew. Several processes may build the same cache: they share the pieces.

    Args:
        rows: a data set or list of rows with `audio` (as `load_audio` takes it) and, if known, `seconds` or `duration`.
        encoder: the encoder with every block that the depths need; its device and dtype are used.
        depths: numbers of blocks, or lists of kept block indices.
        dtype: stored as `bfloat16` or `float32`.
        batch_seconds: seconds of sound, padding included, in one encoder batch. The states do not depend on it.
        max_gigabytes: the most that the cache may take on disk (10^9 bytes).
        shard_bytes: size of one file of the cache, and so of what an interruption can lose.
        workers: threads that read sound and compute spectrograms.
        check: compare the checksum of every piece, not only its size, when an existing cache is opened.

    Raises:
        UserError: the cache would be larger than `max_gigabytes` or the free disk space, or a recording cannot be read.
    """
    if dtype not in DTYPES:
        raise UserError(f"The feature cache's dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
    if not len(rows):
        raise UserError("There is no utterance to compute features of: the data set is empty.")
    named = check_depths(depths, encoder)
    fingerprint, mel = encoder_fingerprint(encoder), mel_settings(processor)
    workers = max(workers, 1)
    audio = audio_fingerprints(rows, workers)
    key = cache_key(fingerprint, named, mel, dtype, audio)
    folder = Path(directory) / key[:24]
    seconds = durations(rows)
    sizes = [_row_bytes(each, len(named), encoder, processor, dtype) for each in seconds]
    meta: CacheDescription = {
        "format": FORMAT, "key": key, "encoder": fingerprint, "mel": mel, "depths": list(named), "dtype": dtype,
        "rows": len(rows), "width": encoder.config.d_model, "shard_ends": _shard_ends(sizes, shard_bytes),
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        meta = _agree_on(folder, meta)
    except OSError as error:
        raise (DiskFullError if is_disk_full(error) else UserError)(
            f"The feature cache cannot be made in {str(directory)!r}: {error.strerror or error}. "
            "Name a directory that can be written to, on a disk with space."
        ) from error
    shards = shards_of(folder, meta)
    found = {shard.number: shard.frames(check) for shard in shards}
    missing = [shard for shard in shards if found[shard.number] is None]
    if missing:
        todo = sum(sum(sizes[shard.start : shard.end]) for shard in missing)
        _check_space(directory, sum(sizes), todo, max_gigabytes)
        if not quiet:
            there = len(shards) - len(missing)
            done = f"; {there} of {len(shards)} pieces are there" if there else ""
            size = f"{sum(sizes) / GIGABYTE:.3g} GB for {sum(seconds) / 3600:.2f} h of sound at {len(named)} depth(s)"
            logger.warning(f"feature cache: {size} in {folder}{done}")
        builder = _Builder(rows, seconds, encoder, processor, named, DTYPES[dtype], batch_seconds, workers, quiet)
        builder.fill(missing)
        found.update({shard.number: shard.frames(check=False) for shard in missing})
    lengths = [frames for shard in shards for frames in found[shard.number] or []]
    return FeatureCache(folder, rows, lengths, audio)


def durations(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of each row: its `seconds` or `duration`, else measured by reading the recording."""
    names = getattr(rows, "column_names", None)
    for name in ("seconds", "duration"):
        if names is not None:
            values = list(rows[name]) if name in names else []  # type: ignore[call-overload]
        else:
            values = [row.get(name) for row in rows]
        if values and all(value is not None and math.isfinite(value) and value > 0 for value in values):
            return [float(value) for value in values]
    return [len(read_audio(row)) / RATE for row in rows]


@dataclass
class _Builder:
    """Computes the states of shards."""

    rows: Sequence[Mapping[str, Any]]
    seconds: Sequence[float]
    encoder: SlamAsrEncoder
    processor: SlamAsrProcessor
    named: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    batch_seconds: float
    workers: int
    quiet: bool

    def fill(self, missing: Sequence[Shard]) -> None:
        """Make every shard of `missing`; those that another process is at are waited for at the end."""
        training = self.encoder.training
        self.encoder.eval()
        total = sum(shard.end - shard.start for shard in missing)
        try:
            with (
                tqdm(total=total, desc="encoding", unit="utt", disable=self.quiet) as bar,
                ThreadPoolExecutor(self.workers) as pool,
            ):
                busy = [shard for shard in missing if not self._make(shard, pool, bar, wait=False)]
                for shard in busy:
                    self._make(shard, pool, bar, wait=True)
        finally:
            self.encoder.train(training)

    def _make(self, shard: Shard, pool: ThreadPoolExecutor, bar: Any, wait: bool) -> bool:
        """Compute and store a shard unless another process has done so; False if it is being made there right now."""
        with shard.locked(wait) as owned:
            if not owned:
                return False
            if shard.frames() is None:
                shard.record.unlink(missing_ok=True)  # a damaged shard must not look complete while it is made again
                shard.write(self._encode(shard, pool, bar))
            else:
                bar.update(shard.end - shard.start)
        return True

    def _encode(self, shard: Shard, pool: ThreadPoolExecutor, bar: Any) -> dict[str, list[torch.Tensor]]:
        indices = range(shard.start, shard.end)
        states: dict[str, dict[int, torch.Tensor]] = {name: {} for name in self.named}
        for batch, spectrograms in self._batches(list(indices), pool):
            features, mask = pad_features(spectrograms)
            device = self.encoder.conv1.weight.device
            reached, frame_mask = states_at(self.encoder, features.to(device), mask.to(device), self.named.values())
            lengths = frame_mask.sum(-1).tolist()
            for name, kept in self.named.items():
                if not torch.isfinite(reached[kept].sum(dtype=torch.float32)):
                    self._refuse(batch, reached[kept], name)
                hidden = reached[kept].to(self.dtype).cpu()
                for position, index in enumerate(batch):
                    states[name][index] = hidden[position, : lengths[position]]
            bar.update(len(batch))
        return {name: [found[index] for index in indices] for name, found in states.items()}

    def _refuse(self, batch: Sequence[int], hidden: torch.Tensor, name: str) -> None:
        bad = [index for index, own in zip(batch, hidden, strict=True) if not torch.isfinite(own).all()]
        listed = ", ".join(str(self.rows[index].get("id", index)) for index in bad)
        raise UserError(
            f"The encoder gives NaN or infinite states at depth {name} for: {listed or 'the whole batch'}. "
            "Use bfloat16 or float32 weights, or leave these recordings out."
        )

    def _batches(self, indices: list[int], pool: ThreadPoolExecutor) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Rows of similar length with their spectrograms, read by the pool a little ahead of the encoder."""
        waiting: deque[tuple[list[int], list[Future[np.ndarray]]]] = deque()
        for batch in batches_by_length(indices, self.seconds, self.batch_seconds):
            waiting.append((batch, [pool.submit(self._spectrogram, self.rows[index]) for index in batch]))
            if len(waiting) > 2:
                ready, futures = waiting.popleft()
                yield ready, [future.result() for future in futures]
        for ready, futures in waiting:
            yield ready, [future.result() for future in futures]

    def _spectrogram(self, row: Mapping[str, Any]) -> np.ndarray:
        return self.processor.extract_features(read_audio(row, self.processor.sampling_rate))


def batches_by_length(indices: Iterable[int], seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Rows of similar length, the longest first: what a batch takes when each is padded to its longest is `batch_seconds` at most."""
    batches: list[list[int]] = []
    for index in sorted(indices, key=lambda index: -seconds[index]):
        if batches and (len(batches[-1]) + 1) * seconds[batches[-1][0]] <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _row_bytes(seconds: float, depths: int, encoder: SlamAsrEncoder, processor: SlamAsrProcessor, dtype: str) -> int:
    most = encoder.config.max_source_positions
    frames = most if processor.pad_to_30s else min(most, processor.audio_geometry.encoder_frames(seconds))
    return frames * encoder.config.d_model * DTYPES[dtype].itemsize * depths


def _shard_ends(sizes: Sequence[int], most: int) -> list[int]:
    ends, filled = [], 0
    for index, size in enumerate(sizes):
        if filled and filled + size > most:
            ends.append(index)
            filled = 0
        filled += size
    return [*ends, len(sizes)]


def _agree_on(folder: Path, meta: CacheDescription) -> CacheDescription:
    """The description that is in the folder already, if it is of this very cache; else `meta`, written."""
    with lock_file(folder / "cache.lock", wait=True):
        present = read_object(folder / META)
        fixed = {name: value for name, value in meta.items() if name != "shard_ends"}
        if fixed.items() <= present.items():
            ends = present.get("shard_ends")
            if (
                isinstance(ends, list)
                and all(type(end) is int and end > 0 for end in ends)
                and ends == sorted(set(ends))
                and ends[-1:] == [meta["rows"]]
            ):
                return cast(CacheDescription, present)
        for pattern in ("states-*.json", "states-*.safetensors"):  # of a foreign or damaged cache
            for file in folder.glob(pattern):
                file.unlink()
        write_json(folder / META, meta)
        return meta


def _check_space(directory: str | Path, total: int, todo: int, max_gigabytes: float | None) -> None:
    if max_gigabytes is not None and total > max_gigabytes * GIGABYTE:
        raise UserError(
            f"The feature cache would take {total / GIGABYTE:.3g} GB, more than max_gigabytes={max_gigabytes:g}. "
            "Raise the limit, take fewer depths or hours, or train without the cache."
        )
    free = shutil.disk_usage(directory).free
    if todo > free:
        raise DiskFullError(
            f"The feature cache needs {todo / GIGABYTE:.3g} GB more in {str(directory)!r}, and only {free / GIGABYTE:.3g} GB "
            "are free. Free some space, choose another cache directory, or take fewer depths or hours."
        )
