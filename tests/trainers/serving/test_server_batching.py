"""The queue of windows and the one thread that owns the model."""

import threading
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client")
pytest.importorskip("fastapi")

from tests.conftest import speak
from tests.trainers.serving.running import HeldModel
from trainers.serving.server.batching import Batcher, Waiting, choose_batch
from trainers.serving.server.metrics import Metrics

PLAIN = (("return_confidence", False),)
SURE = (("return_confidence", True),)


def windows(pipe: Any, count: int) -> list[dict[str, Any]]:
    return [next(iter(pipe.preprocess(speak(["en", "to", "fem"], seed=i)))) for i in range(count)]


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.sampled_from([PLAIN, SURE])), min_size=1, max_size=40),
    st.integers(1, 16),
)
def test_a_batch_has_the_oldest_window_and_others_like_it(queue: list[tuple[int, Any]], most: int) -> None:
    waiting = [Waiting({"features": np.zeros((1, length))}, options) for length, options in queue]
    batch = choose_batch(waiting, most)
    assert batch[0] is waiting[0] and 1 <= len(batch) <= most
    assert len({id(one) for one in batch}) == len(batch) and all(one in waiting for one in batch)
    assert {one.options for one in batch} == {waiting[0].options}
    assert all(2 / 3 <= one.length / waiting[0].length <= 1.5 for one in batch)
    left = [one for one in waiting if one not in batch and one.options == waiting[0].options]
    fitting = [one for one in left if 2 / 3 < one.length / waiting[0].length < 1.5]
    assert not fitting or len(batch) == most, "there was room for one that fits"


def test_windows_that_wait_share_a_batch_and_cancelled_ones_cost_nothing(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    cut = windows(pipe, 8)
    alone = [
        pipe.forward({"windows": [w]}, return_confidence=False)["windows"][0]["piece"].text for w in windows(pipe, 8)
    ]
    held = HeldModel(pipe)
    batcher = Batcher(pipe.forward, 4, Metrics())
    held.hold()
    first = batcher.submit(cut[0], PLAIN)
    assert held.begun.acquire(timeout=30)
    others = [batcher.submit(window, PLAIN) for window in cut[1:]]
    assert others[0].cancel() and others[5].cancel()
    assert not first.cancel(), "it is at work"
    held.released.set()
    done = [first, *others]
    texts = [None if future.cancelled() else future.result(60)["piece"].text for future in done]
    assert texts == [text if index not in (1, 6) else None for index, text in enumerate(alone)]
    assert held.batches == [1, 4, 1]
    with pytest.raises(CancelledError):
        others[0].result()
    batcher.close()


def test_closing_finishes_what_waits_and_takes_no_more(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    held = HeldModel(pipe)
    batcher = Batcher(pipe.forward, 2, Metrics())
    held.hold()
    futures = [batcher.submit(window, PLAIN) for window in windows(pipe, 5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    held.released.set()
    closing.join(60)
    assert all(future.result(0)["piece"].text for future in futures)
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="shutting down"):
        batcher.submit(windows(pipe, 1)[0], PLAIN)


def test_a_window_that_fails_takes_no_other_along(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    cut = windows(pipe, 4)
    cut[2]["ids"] = [10**9] * len(cut[2]["ids"])  # no embedding of this number
    held = HeldModel(pipe)
    batcher = Batcher(pipe.forward, 8, Metrics())
    held.hold()
    blocker = batcher.submit(windows(pipe, 1)[0], PLAIN)
    assert held.begun.acquire(timeout=30)
    futures = [batcher.submit(window, PLAIN) for window in cut]
    held.released.set()
    assert blocker.result(60)
    assert futures[2].exception(60) is not None
    assert all(future.result(60)["piece"].text for index, future in enumerate(futures) if index != 2)
    assert held.batches == [1, 4, 1, 1, 1, 1]
    batcher.close()


def test_options_are_not_mixed_and_silence_does_not_wait(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    cut = windows(pipe, 4)
    held = HeldModel(pipe)
    batcher = Batcher(pipe.forward, 8, Metrics())
    held.hold()
    blocker = batcher.submit(windows(pipe, 1)[0], PLAIN)
    assert held.begun.acquire(timeout=30)
    futures = [batcher.submit(window, options) for window, options in zip(cut, (SURE, PLAIN, SURE, PLAIN), strict=True)]
    quiet = next(iter(pipe.preprocess(np.zeros(16_000, dtype=np.float32))))
    assert batcher.submit(quiet, PLAIN).result(0)["piece"].no_speech
    held.released.set()
    found = [future.result(60)["piece"] for future in futures]
    assert [piece.tokens is not None for piece in found] == [True, False, True, False]
    assert held.batches == [1, 2, 2] and blocker.done()
    assert batcher.speed is not None and batcher.speed > 0
    batcher.close()
