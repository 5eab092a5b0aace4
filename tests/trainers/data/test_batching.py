"""Batches: every utterance once, within the budget, the same for any number of processes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.batching import EpochBatchSampler, evaluation_batches


def rows_of(sampler: EpochBatchSampler, epoch: int) -> list[list[int]]:
    """The counted rows of each of a process's batches in an epoch."""
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(batch and key.epoch == epoch for batch in batches for key in batch)
    return [[key.index for key in batch if key.counted] for batch in batches]


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.floats(0.1, 30), min_size=1, max_size=120),
    budget=st.floats(5, 90),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_budget_batches(costs: list[float], budget: float, world_size: int, seed: int) -> None:
    samplers = [
        EpochBatchSampler(len(costs), seed=seed, costs=costs, budget=budget, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for epoch in range(3):
        ranks = [rows_of(sampler, epoch) for sampler in samplers]
        assert sorted(index for batches in ranks for batch in batches for index in batch) == list(range(len(costs)))
        assert len({len(batches) for batches in ranks}) == 1
        assert all(batch for batches in ranks for batch in batches[:-1])  # only in the last step is one idle
        for batch in (batch for batches in ranks for batch in batches):
            assert len(batch) <= 1 or len(batch) * max(costs[index] for index in batch) <= budget + 1e-6


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 80), batch_size=st.integers(1, 9), world_size=st.integers(1, 4), seed=st.integers(0, 5))
def test_fixed_batches(rows: int, batch_size: int, world_size: int, seed: int) -> None:
    samplers = [
        EpochBatchSampler(rows, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for epoch in range(2):
        ranks = [rows_of(sampler, epoch) for sampler in samplers]
        assert sorted(index for batches in ranks for batch in batches for index in batch) == list(range(rows))
        assert len({len(batches) for batches in ranks}) == 1
        assert all(len(batch) == batch_size for batches in ranks for batch in batches[:-1])
        assert all(len(batches[-1]) <= batch_size for batches in ranks)


def test_two_processes_see_the_global_batches_of_one() -> None:
    one = rows_of(EpochBatchSampler(24, seed=3, batch_size=6), epoch=2)
    ranks = [rows_of(EpochBatchSampler(24, seed=3, batch_size=3, rank=rank, world_size=2), 2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in one]


def test_under_a_budget_two_processes_see_pairs_of_micro_batches() -> None:
    costs = np.random.default_rng(0).uniform(1, 12, 40).tolist()
    one = rows_of(EpochBatchSampler(40, seed=3, costs=costs, budget=20), 1)
    ranks = [
        rows_of(EpochBatchSampler(40, seed=3, costs=costs, budget=20, rank=rank, world_size=2), 1) for rank in (0, 1)
    ]
    steps = [sorted(one[start] + (one[start + 1 : start + 2] or [[]])[0]) for start in range(0, len(one), 2)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == steps


def test_the_order_changes_with_epoch_and_seed_and_is_repeatable() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return rows_of(EpochBatchSampler(30, seed=seed, batch_size=4), epoch)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_padding_is_small_under_a_budget() -> None:
    costs = np.random.default_rng(0).uniform(0.5, 15, 2000)
    batches = EpochBatchSampler(len(costs), seed=0, costs=costs.tolist(), budget=120).plan(0)
    padded = sum(len(batch) * costs[batch].max() for batch in batches)
    assert costs.sum() / padded > 0.87


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 50), batch_size=st.integers(1, 8), world_size=st.integers(1, 4))
def test_evaluation_batches_cover_everything_in_step(rows: int, batch_size: int, world_size: int) -> None:
    costs = [float(index % 7) for index in range(rows)]
    ranks = [evaluation_batches(costs, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert {index for batches in ranks for batch in batches for index in batch} == set(range(rows))
    if world_size == 1:
        assert sum(len(batch) for batch in ranks[0]) == rows


def test_batches_of_a_size_hold_rows_of_like_cost() -> None:
    costs = np.random.default_rng(0).gamma(2, 3, size=400) + 0.5
    batches = EpochBatchSampler(len(costs), seed=0, costs=costs.tolist(), batch_size=8).plan(0)
    assert sorted(row for batch in batches for row in batch) == list(range(400))
    assert max(map(len, batches)) == 8
    padded = sum(len(batch) * costs[batch].max() for batch in batches)
    assert padded < 1.15 * costs.sum()
