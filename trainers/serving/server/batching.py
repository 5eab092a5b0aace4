"""One thread that owns the model: windows of all requests go through it together."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from modeling_slam_asr.recordings_slam_asr import WindowItem
from trainers.serving.server.form import Options
from trainers.serving.server.metrics import Metrics

logger = logging.getLogger(__name__)

_LIKE_LENGTH = 1.5  # a window may be so much longer than another of its batch: what is shorter is padded
_SPEED_MEMORY = 0.9  # share of the past in the running mean of the speed


@dataclass(eq=False)
class Waiting:
    """A window in the queue and where its transcript goes."""

    window: WindowItem
    options: Options
    done: "Future[WindowItem]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def length(self) -> int:
        """Frames of the spectrogram."""
        return int(self.window["features"].shape[-1])


def choose_batch(waiting: Sequence[Waiting], most: int) -> list[Waiting]:
    """
    The window that has waited longest and up to `most - 1` others of like length and equal options, nearest lengths first.

    The first of `waiting` is always among them, so none waits for ever.
    """
    first = waiting[0]
    fitting = [
        one
        for one in waiting[1:]
        if one.options == first.options
        and max(one.length, first.length) <= _LIKE_LENGTH * min(one.length, first.length)
    ]
    fitting.sort(key=lambda one: abs(one.length - first.length))  # stable: of equal ones the older
    return [first, *fitting[: most - 1]]


class Batcher:
    """
    A queue of windows and the thread that takes them from it.

    Args:
        forward: `forward({"windows": [...]}, **options)` as of the pipeline.
        most: windows at a time.
    """

    def __init__(self, forward: Callable[..., dict[str, list[WindowItem]]], most: int, metrics: Metrics) -> None:
        self._forward, self._most, self._metrics = forward, most, metrics
        self._queue: list[Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        self.speed: float | None = None  # seconds of audio that a second of work transcribes, of late
        self._thread = threading.Thread(target=self._work, name="slam-asr-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether windows are being taken."""
        return self._thread.is_alive() and not self._closed

    def waiting(self) -> int:
        """The windows in the queue."""
        return len(self._queue)

    def submit(self, window: WindowItem, options: Options) -> "Future[WindowItem]":
        """The window with its transcript, once it is there. A future that is cancelled while it waits costs no work."""
        one = Waiting(window, options)
        if "features" not in window:  # nothing in it to transcribe
            one.done.set_result(window)
            return one.done
        with self._changed:
            if self._closed:
                raise RuntimeError("The server is shutting down.")
            self._queue.append(one)
            self._changed.notify()
        return one.done

    async def transcribe(self, window: WindowItem, options: Options) -> WindowItem:
        """As [`Batcher.submit`], for an event loop."""
        return await asyncio.wrap_future(self.submit(window, options))

    def close(self) -> None:
        """End the thread, once all that waits is transcribed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            self._transcribe(batch)

    def _next(self) -> list[Waiting]:
        """The next batch; an empty one when there will be none."""
        with self._changed:
            while True:
                self._queue = [one for one in self._queue if not one.done.cancelled()]
                batch = choose_batch(self._queue, self._most) if self._queue else []
                taken = [one for one in batch if one.done.set_running_or_notify_cancel()]
                self._queue = [one for one in self._queue if one not in batch]
                if taken or (self._closed and not self._queue):
                    return taken
                if not self._queue:
                    self._changed.wait()

    def _transcribe(self, batch: list[Waiting]) -> None:
        begun = time.monotonic()
        for one in batch:
            self._metrics.wait.observe(begun - one.since)
        try:
            done = self._forward({"windows": [one.window for one in batch]}, **dict(batch[0].options))["windows"]
        except Exception as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            logger.warning("a batch of %d windows failed (%r); each is tried alone", len(batch), error)
        else:
            self._note_speed(time.monotonic() - begun, done)
            for one, window in zip(batch, done, strict=True):
                one.done.set_result(window)
            return
        # After the `except`: until then the error holds the memory that the failed batch has taken.
        for one in batch:
            self._transcribe([one])

    def _note_speed(self, spent: float, done: list[WindowItem]) -> None:
        heard = sum(end - start for start, end in (window["piece"].window for window in done))
        self._metrics.batch(len(done), spent, heard)
        speed = heard / max(spent, 1e-6)
        self.speed = speed if self.speed is None else _SPEED_MEMORY * self.speed + (1 - _SPEED_MEMORY) * speed
