"""What a batch that fails does to the recordings in it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.modeling_slam_asr.conftest import talk


def test_a_batch_that_fails_is_tried_window_by_window(
    make_pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipe()
    recordings = [talk(seconds, seed=i) for i, seconds in enumerate((0.5, 0.4, 2.0, 0.3))]
    expected = [pipe(recording, max_new_tokens=4) for recording in recordings]
    transcribe, bad = pipe._transcribe, pipe.processor.extract_features(recordings[2]).shape

    def poor(windows: list[Any], *rest: Any) -> Any:
        if len(windows) > 1 or windows[0]["features"].shape == bad:
            raise MemoryError("no room")
        return transcribe(windows, *rest)

    monkeypatch.setattr(pipe, "_transcribe", poor)
    answers = pipe(recordings, batch_size=3, on_error="return", max_new_tokens=4)
    assert answers == [*expected[:2], {"text": "", "error": "MemoryError: no room"}, expected[3]]
    with pytest.raises(MemoryError):
        pipe(recordings, batch_size=3, max_new_tokens=4)
