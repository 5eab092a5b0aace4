"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """A registry of its own, so that one process can hold several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "slam_asr_requests", "Transcription requests by HTTP status.", ["status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "slam_asr_request_seconds", "From a request to its whole answer.", buckets=_SECONDS, registry=self.registry
        )
        self.wait = Histogram(
            "slam_asr_wait_seconds", "A window's time between cut and model.", buckets=_SECONDS, registry=self.registry
        )
        self.audio = Counter("slam_asr_audio_seconds", "Audio that went through the model.", registry=self.registry)
        self._windows = Histogram(
            "slam_asr_batch_windows", "Windows in a batch.", buckets=_SIZES, registry=self.registry
        )
        self._forward = Histogram(
            "slam_asr_forward_seconds", "A batch's time.", buckets=_SECONDS, registry=self.registry
        )

    def batch(self, windows: int, seconds: float, audio_seconds: float) -> None:
        """Count one batch."""
        self._windows.observe(windows)
        self._forward.observe(seconds)
        self.audio.inc(audio_seconds)

    def watch(self, waiting_windows: Callable[[], float], queued_seconds: Callable[[], float]) -> None:
        """Tell what is waiting whenever somebody asks."""
        for name, text, value in (
            ("slam_asr_waiting_windows", "Windows that are cut and wait.", waiting_windows),
            ("slam_asr_queued_audio_seconds", "Audio that is waiting or at work.", queued_seconds),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def page(self) -> bytes:
        """All of it in Prometheus's text form."""
        return generate_latest(self.registry)
