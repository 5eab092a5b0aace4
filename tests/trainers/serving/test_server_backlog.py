"""What finds room in the queue."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from tests.trainers.serving.running import lecture
from trainers.serving.server.backlog import Backlog
from trainers.serving.server.errors import ApiError
from trainers.serving.server.settings import ServerSettings
from trainers.serving.server.upload import announced_seconds


@given(st.lists(st.floats(0, 50), max_size=20), st.floats(0.1, 40), st.none() | st.floats(0.01, 1000))
def test_it_never_holds_more_than_its_limit(lengths: list[float], limit: float, speed: float | None) -> None:
    backlog = Backlog(ServerSettings(max_queue_seconds=limit), lambda: speed)
    admitted = []
    for seconds in lengths:
        recording = backlog.recording(seconds)
        before = backlog.seconds
        try:
            recording.__enter__()
        except ApiError as error:
            assert backlog.seconds == before
            assert error.status == (413 if seconds > limit else 429)
            assert error.status == 413 or 1 <= int(error.headers["Retry-After"]) <= 60
            assert before + seconds > limit
        else:
            admitted.append(recording)
        assert backlog.seconds <= limit * (1 + 1e-9)
    for recording in admitted:
        recording.__exit__(None, None, None)
    assert backlog.seconds == 0


def test_what_is_done_makes_room_and_a_header_that_lies_is_charged() -> None:
    backlog = Backlog(ServerSettings(max_queue_seconds=10), lambda: 2.0)
    with backlog.recording(8) as share:
        with pytest.raises(ApiError, match="busy") as caught, backlog.recording(4):
            pass
        assert caught.value.headers["Retry-After"] == "4"
        share.done = 5.0
        with backlog.recording(4):
            assert backlog.seconds == 7
        share.heard(12.0)
        assert backlog.seconds == 7
        with pytest.raises(ApiError), backlog.request(), backlog.recording(4):
            pass
    with backlog.request(), backlog.recording(10):
        assert backlog.seconds == 10
        with pytest.raises(ApiError), backlog.request():
            pass


def test_lengths_from_headers(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    whole = lecture(2)
    path.write_bytes(whole)
    assert announced_seconds(path) == pytest.approx(3.5)
    path.write_bytes(b"no sound" * 4000)
    assert announced_seconds(path) == 1.0
    stream = bytearray(whole)  # as ffmpeg writes into a pipe: it does not know yet how much will follow
    stream[4:8] = stream[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(stream))
    assert announced_seconds(path) == pytest.approx(3.5, abs=0.01)
