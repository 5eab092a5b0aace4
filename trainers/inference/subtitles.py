"""Subtitles (SubRip and WebVTT) from words with times."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LINE_LETTERS = 42
LINES = 2
LONGEST_SECONDS = 6.0
PAUSE_SECONDS = 0.8  # words further apart belong to two cues
SENTENCE_LETTERS = 30  # a sentence's end ends a cue that has so many letters
SHORTEST_SECONDS = 0.3


@dataclass
class Cue:
    """What stands on the screen from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def cues(words: Iterable[dict[str, Any]]) -> list[Cue]:
    """
    Words in cues of at most two lines and six seconds.

    Args:
        words: chunks of the pipeline, `{"text": ..., "timestamp": (start, end)}` in order.
    """
    done: list[Cue] = []
    held: list[str] = []
    start = end = 0.0
    for word in words:
        begin, finish = word["timestamp"]
        if held and (
            not _fits([*held, word["text"]])
            or finish - start > LONGEST_SECONDS
            or begin - end > PAUSE_SECONDS
            or (held[-1][-1:] in ".!?…" and sum(map(len, held)) >= SENTENCE_LETTERS)
        ):
            done.append(Cue(start, end, _lines(held)))
            held = []
        if not held:
            start = begin
        held.append(word["text"])
        end = finish
    if held:
        done.append(Cue(start, end, _lines(held)))
    for index, cue in enumerate(done):
        # A cue of no length is not shown at all; but none may overlap the next.
        latest = max(done[index + 1].start, cue.start) if index + 1 < len(done) else float("inf")
        cue.end = min(max(cue.end, cue.start + SHORTEST_SECONDS), latest)
    return done


def to_srt(items: Sequence[Cue]) -> str:
    """SubRip: numbered cues, times with a comma."""
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(items, start=1)
    )


def to_vtt(items: Sequence[Cue]) -> str:
    """WebVTT: its three reserved characters are escaped."""
    body = "".join(f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escape(cue.text)}\n\n" for cue in items)
    return f"WEBVTT\n\n{body}"


def clock(seconds: float, separator: str) -> str:
    """`3661.5` as `01:01:01,500`."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{separator}{milliseconds % 1000:03d}"


def _fits(words: Sequence[str]) -> bool:
    return len(textwrap.wrap(" ".join(words), LINE_LETTERS)) <= LINES


def _lines(words: Sequence[str]) -> str:
    return "\n".join(textwrap.wrap(" ".join(words), LINE_LETTERS))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
