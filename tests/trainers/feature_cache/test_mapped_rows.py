"""Rows read from memory-mapped files."""

import pickle
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trainers.feature_cache.mapped import MappedRows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    width=st.integers(1, 70),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_rows_are_those_that_were_saved(lengths: list[int], width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    saved = {name: torch.randn(sum(lengths), width).to(dtype) for name in ("1", "12", "2")}
    save_file(saved, tmp_path / "rows.safetensors")
    mapped = MappedRows(tmp_path / "rows.safetensors")
    for name, tensor in saved.items():
        start = 0
        for length in lengths:
            found = mapped.rows(name, start, start + length)
            assert found.dtype == dtype and torch.equal(found, tensor[start : start + length])
            found.zero_()  # a copy: the file stays as it is
            start += length
        assert torch.equal(mapped.rows(name, 0, sum(lengths)), tensor)


def test_memory_does_not_grow_with_what_was_read(tmp_path: Path) -> None:
    rows, width = 64 * 1024, 512
    save_file({"1": torch.ones(rows, width, dtype=torch.bfloat16)}, tmp_path / "rows.safetensors")
    mapped = MappedRows(tmp_path / "rows.safetensors")
    before = psutil.Process().memory_info().rss
    total = sum(float(mapped.rows("1", start, start + 256).sum()) for start in range(0, rows, 256))
    assert total == rows * width
    assert psutil.Process().memory_info().rss - before < 16 * 2**20  # of 64 MiB


def test_what_it_cannot_read(tmp_path: Path) -> None:
    save_file({"1": torch.ones(2, 3)}, tmp_path / "rows.safetensors")
    mapped = MappedRows(tmp_path / "rows.safetensors")
    with pytest.raises(KeyError):
        mapped.rows("2", 0, 1)
    with pytest.raises(TypeError):  # `FeatureCache` opens its files anew in a worker
        pickle.dumps(mapped)
