"""The benchmark of word times on real speech knows where each recording begins and ends."""

import numpy as np
import pytest

from benchmarks.real_word_times import errors, join, rows, timed_words, trimmed
from trainers.sound import RATE


def recording(before: float, tone: float, after: float) -> np.ndarray:
    """Faint noise around a tone, in seconds."""
    quiet = np.random.default_rng(0).normal(0, 1e-4, round((before + tone + after) * RATE)).astype(np.float32)
    first, past = round(before * RATE), round((before + tone) * RATE)
    quiet[first:past] += 0.3 * np.sin(np.arange(past - first) / 8, dtype=np.float32)
    return quiet


def test_the_sound_of_a_recording_is_cut_out() -> None:
    assert len(trimmed(recording(0.4, 1.0, 0.6), 35.0)) == pytest.approx(RATE, abs=2 * RATE // 100)


def test_joined_recordings_have_known_edges_and_errors_are_told_from_them() -> None:
    clip = join(
        [(recording(0.3, 1.0, 0.3), ["een", "twee"]), (recording(0.1, 0.5, 0.4), ["drie"])],
        35.0,
        np.random.default_rng(1),
    )
    assert set(clip.edges) == {(0, "begin"), (1, "end"), (2, "begin"), (2, "end")}
    for (word, which), second in clip.edges.items():
        inside = (
            clip.sound[round(second * RATE) :][:800] if which == "begin" else clip.sound[: round(second * RATE)][-800:]
        )
        outside = (
            clip.sound[: round(second * RATE)][-800:] if which == "begin" else clip.sound[round(second * RATE) :][:800]
        )
        assert np.abs(inside).max() > 0.2 > 0.02 > np.abs(outside).max(), word
    begin, end = clip.edges[2, "begin"], clip.edges[2, "end"]
    found = errors(clip, [("een", 9.0, 9.5), ("vier", 0.0, 1.0), ("drie", begin + 0.25, end - 0.5)])
    assert found == pytest.approx({(0, "begin"): 9.0 - clip.edges[0, "begin"], (2, "begin"): 0.25, (2, "end"): -0.5})
    table = rows({"ours": [found], "theirs": [{(2, "begin"): 0.5}]})
    assert [(row["system"], row["words"], row["begin"]["compared"]) for row in table] == [
        ("ours", "own", 2), ("ours", "both", 1), ("theirs", "own", 1), ("theirs", "both", 1),
    ]  # fmt: skip
    assert table[1]["begin"]["median"] == 0.25 and "end" not in table[3]


def test_words_without_a_time_are_left_out() -> None:
    chunks = [
        {"text": " Een", "timestamp": (0.0, 0.5)},
        {"text": " -", "timestamp": (0.5, 0.6)},
        {"text": "twee", "timestamp": (1.0, None)},
    ]
    assert timed_words(chunks, lambda text: text.strip(" -").lower()) == [("een", 0.0, 0.5)]
