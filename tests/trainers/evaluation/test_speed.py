"""The speed report holds what was measured, and leaves the warm-up out."""

import json

import pytest
import torch

from trainers.evaluation import SpeedMeter


def test_warmup_is_left_out_and_rtfx_is_audio_over_wall() -> None:
    meter = SpeedMeter(warmup=2)
    for seconds in (100.0, 100.0, 3.0, 4.0):
        with meter.batch(audio_seconds=seconds):
            torch.ones(10).sum()
    report = meter.report(parameters=5, dtype="torch.bfloat16", batch_size=2)
    assert report["audio_seconds"] == 7
    assert report["rtfx"] == pytest.approx(7 / report["wall_seconds"])
    assert (report["warmup_batches"], report["dtype"], report["batch_size"], report["parameters"]) == (
        2,
        "bfloat16",
        2,
        5,
    )
    assert report["device"] == "cpu" and report["threads"] == torch.get_num_threads()
    json.dumps(report, allow_nan=False)


def test_only_warmup_gives_no_rtfx() -> None:
    meter = SpeedMeter(warmup=1)
    with meter.batch(audio_seconds=1.0):
        pass
    assert meter.report()["rtfx"] is None


def test_peak_memory_sees_a_large_allocation() -> None:
    meter = SpeedMeter(warmup=0)
    before = meter.report()["peak_memory_bytes"]
    block = torch.ones(64 * 2**20, dtype=torch.float32)  # 256 MiB
    del block
    after = meter.report()
    assert before is not None and after["peak_memory_bytes"] is not None
    assert after["peak_memory_bytes"] - before > 200 * 2**20
    assert "resident memory" in after["peak_memory_kind"]


def test_a_second_meter_starts_its_own_peak() -> None:
    block = torch.ones(64 * 2**20, dtype=torch.float32)
    first = SpeedMeter().report()
    del block
    second = SpeedMeter().report()
    assert first["peak_memory_bytes"] is not None and second["peak_memory_bytes"] is not None
    if "since the measuring began" in second["peak_memory_kind"]:
        assert second["peak_memory_bytes"] < first["peak_memory_bytes"]


def test_time_to_first_token_is_a_median_without_the_first_call() -> None:
    calls = []
    meter = SpeedMeter()
    seconds = meter.measure_first_token(lambda: calls.append(1), repeats=4)
    assert len(calls) == 5 and seconds >= 0
    assert meter.report()["time_to_first_token_seconds"] == seconds


def test_a_failing_batch_is_not_counted() -> None:
    meter = SpeedMeter(warmup=0)
    with pytest.raises(RuntimeError), meter.batch(audio_seconds=9.0):
        raise RuntimeError
    assert meter.report()["audio_seconds"] == 0
