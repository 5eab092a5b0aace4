"""Which utterances make up which batch: seeded, the same for any number of processes, every utterance once an epoch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from trainers.data.rows import TrainingRow

_BUCKET_RATIO = 1.15  # longest over shortest utterance of a bucket: at most 15 % of a batch is padding


@dataclass(frozen=True)
class Key:
    """A row to read for an epoch. One that is not `counted` keeps an idle process busy and has no loss."""

    index: int
    epoch: int = 0
    counted: bool = True


class EpochBatchSampler(Sampler[list[Key]]):
    """One process's micro-batches.

    With `batch_size`, an epoch is a permutation of the rows cut into global batches of `batch_size * world_size`, each
    shared out evenly. With `costs` and `budget`, rows of similar cost share a bucket, and a micro-batch holds as many rows
    of one bucket as keep (rows x largest cost) within the budget; a row above the budget stands alone. With `costs` and
    `batch_size` it holds so many rows of one bucket. The number of micro-batches is the same in every epoch and process,
    rows and order change with the epoch, and every row is counted once an epoch.

    A run on W processes sees the global batches of a run on one process with W times the batch size or, under a
    budget, W times the gradient accumulation.

    Args:
        rows: number of rows.
        seed: of the order.
        batch_size: rows of a micro-batch, when there is no budget.
        costs: what each row costs: seconds of audio, or tokens.
        budget: the most that a micro-batch may cost with its padding.
        rank, world_size: this process among how many.
    """

    def __init__(
        self,
        rows: int,
        *,
        seed: int,
        batch_size: int | None = None,
        costs: Sequence[float] | None = None,
        budget: float | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if (batch_size is None) == (budget is None) or (budget is not None and costs is None):
            raise ValueError("Give either batch_size, with costs or without, or costs with budget.")
        self.rows, self.seed, self.batch_size = rows, seed, batch_size
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.buckets: list[tuple[np.ndarray, int]] = []
        if costs is not None:
            self.buckets = make_buckets(np.asarray(costs, dtype=np.float64), budget, batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is for; the trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.buckets:
            return math.ceil(sum(math.ceil(len(rows) / size) for rows, size in self.buckets) / self.world_size)
        assert self.batch_size is not None
        return math.ceil(self.rows / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Key]]:
        plan = self.plan(self.epoch)
        filler = [Key(plan[-1][0], self.epoch, counted=False)]
        for place in range(self.rank, len(self) * self.world_size, self.world_size):
            batch = plan[place] if place < len(plan) else []
            yield [Key(index, self.epoch) for index in batch] or filler

    def plan(self, epoch: int) -> list[list[int]]:
        """All processes' micro-batches of an epoch: process r takes those at r, r + world_size, and so on."""
        rng = np.random.default_rng([self.seed, epoch])
        if not self.buckets:
            return self._fixed(rng.permutation(self.rows))
        batches = [
            [int(row) for row in shuffled[start : start + size]]
            for rows, size in self.buckets
            for shuffled in [rng.permutation(rows)]
            for start in range(0, len(rows), size)
        ]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _fixed(self, order: np.ndarray) -> list[list[int]]:
        assert self.batch_size is not None
        step = self.batch_size * self.world_size
        chunks = [order[start : start + step] for start in range(0, len(order), step)]
        parts = [part.tolist() for chunk in chunks for part in np.array_split(chunk, self.world_size)]
        return [part for part in parts if part]  # only the last chunk can be smaller than the number of processes


def make_buckets(
    costs: np.ndarray, budget: float | None, batch_size: int | None = None
) -> list[tuple[np.ndarray, int]]:
    """Buckets of rows with similar costs, each with the number of rows that a batch of it may hold: given, or by the budget."""
    order = np.argsort(costs, kind="stable")[::-1]
    buckets = []
    start = 0
    while start < len(order):
        longest = costs[order[start]]
        end = start
        while end < len(order) and costs[order[end]] * _BUCKET_RATIO >= longest:
            end += 1
        if budget is None:
            assert batch_size is not None
            size = batch_size
        else:
            size = max(1, int(budget // longest)) if longest > 0 else len(order)
        # A bucket smaller than one batch takes in shorter rows: a little more padding, fewer tiny batches.
        end = max(end, min(start + size, len(order)))
        buckets.append((order[start:end], size))
        start = end
    return buckets


class EpochRows(Dataset[TrainingRow]):
    """A data set indexed by the sampler's keys: its rows, each with its `index`, the `epoch` it is read for and whether it is `counted`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> TrainingRow:
        row: TrainingRow = self.dataset[key.index]
        return {**row, "index": key.index, "epoch": key.epoch, "counted": key.counted}


def evaluation_batches(costs: Sequence[float], batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """One process's batches of an evaluation: rows of similar cost together, longest first.

    Every process gets the same number of batches; the first few are given to more than one process where the number does
    not divide, so that processes which must move in step can. Results are told apart by their row index.
    """
    order = sorted(range(len(costs)), key=lambda index: (-costs[index], index))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rounds = math.ceil(len(batches) / world_size)
    return [batches[(step * world_size + rank) % len(batches)] for step in range(rounds)]
