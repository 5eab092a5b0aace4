"""Speed and size of an evaluated system, with what they depend on."""

import contextlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from trainers.engines import ENGINES
from trainers.provenance import cpu_cores
from trainers.results import SpeedReport

BUSY = 0.25
"""cores; more than this in the hands of other processes, and a speed is not that of an idle machine"""
_PROC_STATUS, _PROC_CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def process_peak_bytes() -> int | None:
    """The most resident memory that this process has had; None where the system does not say it (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def measured_idle(speed: SpeedReport | None) -> bool:
    """Whether a report says that the machine had nothing else to do, so that its speed may be compared."""
    others = speed.get("other_cores") if speed else None
    return others is not None and others < BUSY


def _threads() -> int:
    """torch's, where it computes; the engines without it take all cores."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else cpu_cores()


def _seconds_of_others() -> float:
    """Processor seconds that processes other than this one have used since the machine started."""
    machine, own = psutil.cpu_times(), time.process_time()
    return float(machine.user + machine.system) - own


class SpeedMeter:
    """Times batches of a recogniser. The first `warmup` batches are run and left out.

    ```python
    meter = SpeedMeter(device=model.device, warmup=1)
    for batch in batches:
        with meter.batch(audio_seconds=sum(batch_seconds)):
            texts = recognise(batch)
    meter.measure_first_token(lambda: model.generate(**inputs, max_new_tokens=1))
    report = meter.report(parameters=..., dtype="bfloat16", batch_size=8)
    ```
    Work that is queued on a GPU is waited for before and after every batch.
    """

    def __init__(self, device: Any = "cpu", warmup: int = 1) -> None:
        self.device = str(device)
        self._cuda: Any = None
        if self.device.partition(":")[0] == "cuda":
            import torch

            self._cuda = torch.cuda
        self.warmup = warmup
        self.batches = 0
        self.audio_seconds = 0.0
        self.wall_seconds = 0.0
        self.time_to_first_token: float | None = None
        self._others = 0.0
        self._peak_is_reset = self._reset_peak()

    @contextlib.contextmanager
    def batch(self, audio_seconds: float | Callable[[], float]) -> Iterator[None]:
        """Time one batch of `audio_seconds` of speech (padding not counted), or of as many as the function says afterwards."""
        self._synchronize()
        others, start = _seconds_of_others(), time.perf_counter()
        yield
        self._synchronize()
        elapsed = time.perf_counter() - start
        self.batches += 1
        if self.batches > self.warmup:
            self.audio_seconds += audio_seconds() if callable(audio_seconds) else audio_seconds
            self.wall_seconds += elapsed
            self._others += max(0.0, _seconds_of_others() - others)

    def measure_first_token(self, generate_one_token: Callable[[], Any], repeats: int = 5) -> float:
        """Median wall seconds of `generate_one_token()` over `repeats` calls after one that is left out."""
        seconds = []
        for _ in range(repeats + 1):
            self._synchronize()
            start = time.perf_counter()
            generate_one_token()
            self._synchronize()
            seconds.append(time.perf_counter() - start)
        self.time_to_first_token = statistics.median(seconds[1:])
        return self.time_to_first_token

    def report(
        self, *, parameters: int | None = None, dtype: str = "float32", batch_size: int | None = None
    ) -> SpeedReport:
        """The figures so far. With no more batches than the warm-up, RTFx is `None`."""
        memory, kind = self._peak_memory()
        return SpeedReport(
            audio_seconds=self.audio_seconds,
            wall_seconds=self.wall_seconds,
            rtfx=self.audio_seconds / self.wall_seconds if self.wall_seconds else None,
            peak_memory_bytes=memory,
            peak_memory_kind=kind,
            time_to_first_token_seconds=self.time_to_first_token,
            parameters=parameters,
            device=self.device,
            device_name=self._device_name(),
            threads=_threads(),
            dtype=dtype.removeprefix("torch."),
            batch_size=batch_size,
            warmup_batches=min(self.warmup, self.batches),
            other_cores=round(self._others / self.wall_seconds, 3) if self.wall_seconds else None,
            versions={
                name: sys.modules[name].__version__
                for engine in ENGINES.values()
                for name in engine.packages
                if name in sys.modules
            },
        )

    def _synchronize(self) -> None:
        if self._cuda:
            self._cuda.synchronize(self.device)

    def _reset_peak(self) -> bool:
        """Start the peak at what is in use now. On Linux the kernel resets the process's own high-water mark."""
        if self._cuda:
            self._cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            _PROC_CLEAR.write_text("5")
        except OSError:
            return False
        return True

    def _peak_memory(self) -> tuple[int | None, str]:
        if self._cuda:
            return self._cuda.max_memory_allocated(self.device), "allocated on the GPU since the measuring began"
        if self._peak_is_reset and _PROC_STATUS.exists():
            for line in _PROC_STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024, "resident memory of the process since the measuring began"
        peak = process_peak_bytes()
        if peak is None:
            return None, "not measured on this system"
        return peak, "resident memory of the process over its whole life"

    def _device_name(self) -> str:
        if self._cuda:
            return str(self._cuda.get_device_name(self.device))
        name = platform.processor() or platform.machine()
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    name = line.split(":", 1)[1].strip()
                    break
        return f"{name}, {os.cpu_count()} cores"
