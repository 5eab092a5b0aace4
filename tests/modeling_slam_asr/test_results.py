"""The pipeline's answer from the windows' transcripts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.recordings_slam_asr import Piece, assemble
from modeling_slam_asr.transcripts_slam_asr import Word, confidence, word_confidences

ALL = np.ones(500, dtype=bool)


def piece(start: float, end: float, text: str, **options: object) -> Piece:
    return Piece(
        start=start, end=end, window=(start, end), active=ALL[: round((end - start) / 0.02)], text=text, **options
    )  # type: ignore[arg-type]


def test_one_window() -> None:
    assert assemble([piece(0.0, 2.0, "en to")], None, False) == {"text": "en to"}
    answer = assemble([piece(0.0, 2.0, "en to", truncated=True, loop=True)], True, False)
    marks = {"truncated": True, "loop": True}
    assert answer == {"text": "en to", "chunks": [{"text": "en to", "timestamp": (0.0, 2.0), **marks}], **marks}


def test_windows_without_text_leave_no_gap() -> None:
    pieces = [piece(0, 2, "en"), piece(2, 4, "", no_speech=True), piece(4, 6, "to")]
    answer = assemble(pieces, True, False)
    assert answer["text"] == "en to"
    assert "no_speech" not in answer
    assert [chunk["timestamp"] for chunk in answer["chunks"]] == [(0.0, 2.0), (4.0, 6.0)]
    assert assemble([pieces[1]], None, False)["no_speech"] is True


def test_confidence_is_over_all_tokens() -> None:
    pieces = [piece(0, 2, "en", tokens=[("en", -1.0)]), piece(2, 4, "to", tokens=[("to", -2.0), ("", -3.0)])]
    answer = assemble(pieces, True, "tokens")
    assert answer["confidence"] == pytest.approx(np.exp(-2.0)) == confidence([-1.0, -2.0, -3.0])
    assert answer["chunks"][1]["confidence"] == pytest.approx(np.exp(-2.5))
    assert answer["tokens"][2] == {"text": "", "log_prob": -3.0}


def test_a_word_is_as_sure_as_its_least_sure_token() -> None:
    pieces, log_probs = [" he", "j", " du", ""], np.log([0.9, 0.5, 0.8, 0.1])
    assert word_confidences(pieces, log_probs.tolist()) == pytest.approx([0.5, 0.8])
    heard = np.array([[0, 1, np.log(0.7)], [1, 2, np.log(0.6)], [3, 4, np.log(0.2)]])
    assert word_confidences(pieces, log_probs.tolist(), heard) == pytest.approx([0.5, 0.2])
    assert word_confidences([" ja nej"], [np.log(0.5)]) == [None, 0.5]  # the token is the last word's
    assert word_confidences([], []) == []


def test_words_keep_their_confidence_where_overlaps_are_merged() -> None:
    words = [
        Word(f" {text}", 1.0 * at, at + 1.0)
        for at, text in enumerate(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"])
    ]
    later = [Word(f" {text}", 6.0 + at, 7.0 + at) for at, text in enumerate(["g", "h", "i", "j", "k"])]
    first = piece(0.0, 10.0, "a b c d e f g h i j", words=words, confidences=[0.1] * 10)
    second = piece(6.0, 16.0, "g h i j k", words=later, overlap=(6.0, 10.0), confidences=[0.2] * 5)
    chunks = assemble([first, second], "word", True)["chunks"]
    assert [chunk["text"] for chunk in chunks] == list("abcdefghijk")
    assert [chunk["confidence"] for chunk in chunks] == [0.1] * 8 + [0.2] * 3
    assert "confidence" not in assemble([first, second], "word", False)["chunks"][0]


def test_overlap_is_said_once() -> None:
    first = piece(0.0, 10.0, "a b c d e f g h i j")
    second = piece(6.0, 16.0, "G, H, I, J, K, L, M, N, O, P.", overlap=(6.0, 10.0))
    answer = assemble([first, second], True, False)
    assert answer["text"].lower().replace(",", "") == "a b c d e f g h i j k l m n o p."
    (_, end), (start, _) = (chunk["timestamp"] for chunk in answer["chunks"])
    assert end == start
    assert 6.0 <= end <= 10.0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_times_never_go_back(data: st.DataObject) -> None:
    """Whatever times attention gives to the words of overlapping windows."""
    pieces = []
    for index in range(data.draw(st.integers(1, 4))):
        start = 6.0 * index
        words = data.draw(st.lists(st.sampled_from(["ja", "nee", "de"]), max_size=6))
        marks = sorted(
            data.draw(st.lists(st.floats(start, start + 10), min_size=2 * len(words), max_size=2 * len(words)))
        )
        timed = [Word(f" {word}", marks[2 * i], marks[2 * i + 1]) for i, word in enumerate(words)]
        overlap = (start, start + 4.0) if index else None
        pieces.append(piece(start, start + 10.0, " ".join(words), words=timed, overlap=overlap))
    answer = assemble(pieces, "word", False)
    times = [time for chunk in answer["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times)
    assert answer["text"].split() == [chunk["text"] for chunk in answer["chunks"]]


def test_a_token_that_the_head_does_not_know_has_the_llms_confidence() -> None:
    aligned = np.array([[0, 1, math.log(0.5)], [1, 2, np.nan]])
    log_probs = [math.log(0.9), math.log(0.8), math.log(0.7)]
    assert word_confidences([" hus", " og", ""], log_probs, aligned) == pytest.approx([0.5, 0.8])
