"""Cutting long recordings: nothing lost, nothing twice, no window too long, cuts where it is quiet."""

import sys
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.audio_slam_asr import read_blocks
from modeling_slam_asr.windows_slam_asr import FLOOR_DB, VoiceDetector, Window, cut_windows, find_pause, frame_levels
from tests.modeling_slam_asr.conftest import SHARED_SPEECH, talk

RATE = 16_000


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def rebuilt(windows: Sequence[Window]) -> np.ndarray:
    """The recording again, of overlaps only one copy."""
    parts = [window.samples[round(window.overlap * RATE) :] for window in windows]
    return np.concatenate(parts)


@settings(max_examples=40, deadline=None)
@given(
    loud=st.lists(st.tuples(st.booleans(), st.integers(50, 30_000)), min_size=1, max_size=12),
    window=st.floats(1.0, 4.0),
    overlap=st.floats(0.0, 0.4),
    block=st.integers(1_000, 70_000),
)
def test_every_sample_is_covered_once(loud: list[tuple[bool, int]], window: float, overlap: float, block: int) -> None:
    rng = np.random.default_rng(1)
    samples = np.concatenate([rng.standard_normal(n) * (0.3 if on else 0.0003) for on, n in loud]).astype(np.float32)
    windows = list(cut_windows(blocks_of(samples, block), RATE, window, overlap))
    assert np.array_equal(rebuilt(windows), samples)
    assert all(len(w.samples) <= window * RATE for w in windows)
    assert [w.last for w in windows] == [False] * (len(windows) - 1) + [True]
    for w in windows:
        begin = round(w.start * RATE)
        assert np.array_equal(w.samples, samples[begin : begin + len(w.samples)])


def test_cuts_lie_in_pauses() -> None:
    speech = talk(3.0)
    pause = np.zeros(RATE // 2, dtype=np.float32)
    samples = np.concatenate([speech, pause] * 8)
    windows = list(cut_windows([samples], RATE, 10.0))
    assert all(w.overlap == 0 for w in windows)
    for w in windows[:-1]:
        end = round(w.start * RATE) + len(w.samples)
        assert np.abs(samples[end - 800 : end + 800]).max() == 0


def test_overlap_only_without_a_pause() -> None:
    samples = talk(60.0)  # its gaps of 50 ms are no pauses
    windows = list(cut_windows([samples], RATE, 10.0, overlap_seconds=2.0))
    assert {w.overlap for w in windows[1:]} == {2.0}
    assert windows[0].overlap == 0
    assert [round(w.start) for w in windows] == [8 * i for i in range(len(windows))]


def test_a_recording_that_fits_is_not_cut() -> None:
    samples = talk(12.0)
    assert len(list(cut_windows([samples], RATE, 10.0, whole_seconds=15.0))) == 1
    assert len(list(cut_windows([samples], RATE, 10.0))) == 2
    assert len(list(cut_windows([samples], RATE, 15.0))) == 1


def test_an_overlap_beyond_half_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap_seconds must lie between 0 and half"):
        list(cut_windows([talk(1.0)], RATE, 4.0, overlap_seconds=2.5))


def test_memory_is_bounded() -> None:
    """A long stream is asked for block by block, not read ahead."""
    asked = 0

    def stream() -> object:
        nonlocal asked
        for _ in range(1_000):
            asked += 1
            yield np.zeros(RATE, dtype=np.float32)

    windows = cut_windows(stream(), RATE, 10.0)  # type: ignore[arg-type]
    next(windows)
    assert asked <= 12
    next(windows)
    assert asked <= 22


def test_half_an_hour_needs_no_more_memory_than_minutes(tmp_path: Path) -> None:
    """Reading, resampling and cutting a long file: the peak is a few blocks, not the file."""
    import soundfile

    path = tmp_path / "long.wav"
    minute = np.concatenate([talk(15.0, seed=i)[::2] for i in range(4)])
    with soundfile.SoundFile(path, "w", 8_000, 1) as file:
        for _ in range(30):
            file.write(minute)
    tracemalloc.start()
    try:
        blocks, seconds, _ = read_blocks(path)
        count = sum(1 for _ in cut_windows(blocks, RATE, 25.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds == pytest.approx(1_800)
    assert count >= 1_800 / 25
    assert peak < 40e6  # it is 115 MB of samples


def test_levels() -> None:
    square = np.tile([1.0, -1.0], 320).astype(np.float32)
    assert frame_levels(square, RATE) == pytest.approx([0.0, 0.0])
    assert frame_levels(np.zeros(330, dtype=np.float32), RATE).tolist() == [FLOOR_DB, FLOOR_DB]
    assert len(frame_levels(np.zeros(0, dtype=np.float32), RATE)) == 0
    assert frame_levels(np.full(330, 0.1, dtype=np.float32), RATE) == pytest.approx([-20.0, -20.0])


def test_the_longest_pause_wins() -> None:
    levels = np.full(500, -20.0)
    levels[100:115] = -60.0
    levels[300:340] = -58.0
    levels[400:415] = -60.0
    assert find_pause(levels, 50, 500) == (320, pytest.approx(-54.0))
    assert find_pause(levels, 350, 500) == (407, pytest.approx(-54.0))
    assert find_pause(np.full(500, -20.0), 50, 500) is None
    levels[300:340] = -28.0  # hardly quieter than the speech around it
    assert find_pause(levels, 250, 350) is None


@pytest.mark.parametrize("language", ["en", "nl"])
@pytest.mark.parametrize("window", [25.0, 10.0])
def test_real_speech(language: str, window: float) -> None:
    """Long recordings of real speech, of which all cuts fall at least 15 dB below the speech."""
    folder = SHARED_SPEECH / language / "longform"
    if not folder.is_dir():
        pytest.skip("needs ../shared/speech")
    import soundfile

    for path in sorted(Path(folder).glob("*.ogg")):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        windows = list(cut_windows(blocks_of(samples, 30 * RATE), RATE, window))
        assert np.array_equal(rebuilt(windows), samples)
        assert all(len(w.samples) <= window * RATE for w in windows)
        for before, after in pairwise(windows):
            if after.overlap:
                continue
            levels = frame_levels(before.samples, RATE)
            assert levels[-3:].max() < np.percentile(levels, 95) - 12


def test_silero_leaves_torch_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """silero-vad sets the number of torch's threads to 1 when it is imported."""
    (tmp_path / "silero_vad.py").write_text("import torch\ntorch.set_num_threads(1)\nload_silero_vad = object\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        VoiceDetector("silero")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        sys.modules.pop("silero_vad", None)
