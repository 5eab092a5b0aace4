"""How much audio is waiting, and when there is too much of it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainers.serving.server.errors import ApiError
from trainers.serving.server.settings import ServerSettings

_LONGEST_WAIT = 60  # seconds, of a Retry-After: the openai client takes no longer one


class Share:
    """One recording's audio in the backlog, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.announced, self.done = seconds, 0.0

    @property
    def left(self) -> float:
        """What is not transcribed yet."""
        return max(self.announced - self.done, 0.0)

    def heard(self, seconds: float) -> None:
        """The recording is at least so long, whatever its header says."""
        self.announced = max(self.announced, seconds)


class Backlog:
    """
    The requests at work. Of the event loop's thread alone.

    Args:
        speed: tells how many seconds of audio a second of work transcribes, or None before there is any figure.
    """

    def __init__(self, settings: ServerSettings, speed: Callable[[], float | None]) -> None:
        self._limit, self._most = settings.max_queue_seconds, settings.max_requests
        self._speed = speed
        self._shares: set[Share] = set()
        self._requests = 0

    @property
    def seconds(self) -> float:
        """Audio that is waiting or at work."""
        return math.fsum(share.left for share in self._shares)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Room for one more request, before its body is read.

        Raises:
            ApiError: 429.
        """
        if self._requests >= self._most or self.seconds >= self._limit:
            raise self._full()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def recording(self, seconds: float) -> Iterator[Share]:
        """Room for a recording of this length.

        Raises:
            ApiError: 429, or 413 when it would not even find room alone.
        """
        if seconds > self._limit:
            raise ApiError(
                413,
                f"The recording is {seconds:.0f} s long; this server takes up to {self._limit:g} s. Send it in parts.",
                param="file",
                code="audio_too_long",
            )
        if self.seconds + seconds > self._limit:
            raise self._full()
        share = Share(seconds)
        self._shares.add(share)
        try:
            yield share
        finally:
            self._shares.discard(share)

    def _full(self) -> ApiError:
        waiting, speed = self.seconds, self._speed()
        wait = min(max(math.ceil(waiting / speed), 1), _LONGEST_WAIT) if speed else 1
        return ApiError(
            429,
            f"The server is busy: {self._requests} requests, {waiting:.0f} s of audio waiting. Try again in {wait} s.",
            code="queue_full",
            headers={"Retry-After": str(wait)},
        )
