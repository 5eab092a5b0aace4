"""From the transcripts of a recording's windows to the pipeline's answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .windows_slam_asr import FRAME_SECONDS
from .words_slam_asr import Word, estimate_words, join_texts, join_words, merge_overlap

__all__ = ["TIMESTAMPS", "Piece", "assemble", "confidence", "settled_text"]

TIMESTAMPS = (True, "word", "estimate")


@dataclass
class Piece:
    """
    A window and its transcript.

    start, end: of the sound that was transcribed, in seconds.
    active: which of its 20 ms are not quiet.
    overlap: start and end in seconds of what the window before holds too, or None.
    words: with times, when they were asked for.
    tokens: text and log-probability of each token, when asked for.
    """

    start: float
    end: float
    active: np.ndarray
    overlap: tuple[float, float] | None = None
    no_speech: bool = False
    text: str = ""
    words: list[Word] | None = None
    tokens: list[tuple[str, float]] | None = None
    truncated: bool = False
    loop: bool = False

    def timed_words(self) -> list[Word]:
        """The words with their times, or with estimates."""
        return estimate_words(self.text, self.active, self.start, self.end) if self.words is None else self.words

    def sound_range(self) -> tuple[float, float]:
        """When its sound begins and ends."""
        frames = np.flatnonzero(self.active)
        begin, end = int(frames[0]) * FRAME_SECONDS, int(frames[-1] + 1) * FRAME_SECONDS
        return self.start + begin, min(self.start + end, self.end)


@dataclass
class _Segment:
    """A piece once its overlaps are merged."""

    piece: Piece
    text: str
    start: float
    end: float
    words: list[Word] = field(default_factory=list)


def assemble(
    pieces: Sequence[Piece], return_timestamps: bool | str | None, return_confidence: bool | str
) -> dict[str, Any]:
    """
    The answer for one recording.

    Args:
        return_timestamps: `True` for a chunk a window, `"word"` or `"estimate"` for a chunk a word.
        return_confidence: `True` for confidences, `"tokens"` for each token's log-probability too.
    Returns:
        `text` and, as asked for, `chunks`, `confidence`, `tokens`; and `no_speech`, `truncated` and `loop` where true.
    """
    segments = _merge(pieces, with_words=return_timestamps in ("word", "estimate"))
    answer: dict[str, Any] = {"text": join_texts([segment.text for segment in segments])}
    if return_timestamps is True:
        answer["chunks"] = [_chunk(segment, return_confidence) for segment in segments if segment.text]
    elif return_timestamps:
        answer["chunks"] = [
            {"text": word.text.strip(), "timestamp": (round(word.start, 2), round(word.end, 2))}
            | ({"no_speech": True} if segment.piece.no_speech else {})
            for segment in segments
            for word in segment.words
        ]
        answer["approximate_timestamps"] = True
    tokens = [token for piece in pieces for token in piece.tokens or []]
    if return_confidence:
        answer["confidence"] = confidence([log_prob for _, log_prob in tokens])
    if return_confidence == "tokens":
        answer["tokens"] = [{"text": text, "log_prob": log_prob} for text, log_prob in tokens]
    if all(piece.no_speech for piece in pieces):
        answer["no_speech"] = True
    answer.update({flag: True for flag in ("truncated", "loop") if any(getattr(piece, flag) for piece in pieces)})
    return answer


def settled_text(pieces: Sequence[Piece]) -> str:
    """The text of a recording's first windows that no further window can change: all but the last, once merged."""
    return join_texts([segment.text for segment in _merge(pieces, with_words=False)[:-1]])


def confidence(log_probs: Sequence[float]) -> float | None:
    """`exp` of the mean: the geometric mean of the tokens' probabilities; None without tokens."""
    return math.exp(math.fsum(log_probs) / len(log_probs)) if log_probs else None


def _merge(pieces: Sequence[Piece], with_words: bool) -> list[_Segment]:
    segments: list[_Segment] = []
    for piece in pieces:
        start, end = piece.sound_range()
        segment = _Segment(piece, piece.text, start, end)
        if with_words:
            segment.words = piece.timed_words()
        before = segments[-1] if segments else None
        if piece.overlap is not None and before is not None and before.text and segment.text:
            _join(before, segment, *piece.overlap)
        segments.append(segment)
    return segments


def _join(left: _Segment, right: _Segment, start: float, end: float) -> None:
    """Take out of two segments what both hold."""
    left.words = left.words or left.piece.timed_words()
    right.words = right.words or right.piece.timed_words()
    slack = 1.0 + (0.25 * (end - start) if left.piece.words is None else 0.0)
    left.words, right.words = merge_overlap(left.words, right.words, start, end, slack)
    left.text, right.text = join_words(left.words), join_words(right.words)
    if left.words and right.words:
        seam = min(max((left.words[-1].end + right.words[0].start) / 2, start), end)
    else:
        seam = (start + end) / 2
    left.words = [Word(word.text, min(word.start, seam), min(word.end, seam)) for word in left.words]
    right.words = [Word(word.text, max(word.start, seam), max(word.end, seam)) for word in right.words]
    left.end, right.start = min(left.end, seam), max(right.start, seam)


def _chunk(segment: _Segment, return_confidence: bool | str) -> dict[str, Any]:
    chunk: dict[str, Any] = {"text": segment.text, "timestamp": (round(segment.start, 2), round(segment.end, 2))}
    if return_confidence:
        chunk["confidence"] = confidence([log_prob for _, log_prob in segment.piece.tokens or []])
    chunk.update({flag: True for flag in ("no_speech", "truncated", "loop") if getattr(segment.piece, flag)})
    return chunk
