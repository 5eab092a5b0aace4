"""Subtitles (SubRip and WebVTT) from words with times.

The limits are those of the usual style guides: two lines of 42 columns, 17 columns a second where the next cue leaves
time for it. A letter of a script that is written without spaces takes two columns, on the screen as here.

A new format is a function from cues to a file's text, and its entry in `FORMATS`: flags, help, files and the server's answers
follow from that.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeling_slam_asr.transcripts_slam_asr import Chunk

LINE_LETTERS = 42
LINES = 2
LONGEST_SECONDS = 6.0
PAUSE_SECONDS = 0.8  # words further apart belong to two cues
READING_SPEED = 17.0  # columns a second
SENTENCE_LETTERS = 30  # a sentence's end ends a cue that has so many letters
SHORTEST_SECONDS = 0.3
NO_SPEECH_MARK = "[no speech?]"  # before what was transcribed from noise
UNSURE_MARK = "[unsure]"  # before a transcript of low confidence
_SENTENCE_ENDS = ".!?…。！？｡"
_CLOSING = "Pe", "Pf", "Po"


@dataclass
class Cue:
    """What stands on the screen from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


@dataclass
class _Unit:
    """What no line break may part: a word, or a letter of a script without spaces."""

    text: str
    start: float
    end: float
    no_speech: bool = False


def cues(words: "Iterable[Chunk]", *, unsure: bool = False) -> list[Cue]:
    """
    Words in cues of at most two lines and six seconds, none over another, none shown too briefly to be seen.

    Args:
        words: chunks of the pipeline, `{"text": ..., "timestamp": (start, end)}` in order. `no_speech` in one marks the cue.
        unsure: mark the first cue: the whole transcript is doubtful.
    """
    done: list[Cue] = []
    held: list[_Unit] = []
    for unit in _units(words):
        if unsure and not done and not held:
            held = [_Unit(UNSURE_MARK, unit.start, unit.start, unit.no_speech)]
        if held and (
            len(_lines([*held, unit])) > LINES
            or unit.end - held[0].start > LONGEST_SECONDS
            or unit.start - held[-1].end > PAUSE_SECONDS
            or unit.no_speech != held[0].no_speech
            or (held[-1].text[-1:] in _SENTENCE_ENDS and sum(_columns(u.text) for u in held) >= SENTENCE_LETTERS)
        ):
            done.append(_cue(held))
            held = []
        if unit.no_speech and all(one.text == UNSURE_MARK for one in held):
            held += [_Unit(NO_SPEECH_MARK, unit.start, unit.start, True)]
        held.append(unit)
    if held:
        done.append(_cue(held))
    return _spread(done)


def to_srt(items: Sequence[Cue]) -> str:
    """SubRip: cues numbered from 1, times with a comma."""
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{cue.text.replace('-->', '->')}\n\n"
        for number, cue in enumerate(items, start=1)
    )


def to_vtt(items: Sequence[Cue]) -> str:
    """WebVTT: its three reserved characters are escaped."""
    body = "".join(f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escape(cue.text)}\n\n" for cue in items)
    return f"WEBVTT\n\n{body}"


@dataclass(frozen=True)
class SubtitleFormat:
    """A form of subtitles."""

    title: str
    media_type: str
    write: Callable[[Sequence[Cue]], str]


FORMATS = {
    "srt": SubtitleFormat("SubRip", "application/x-subrip", to_srt),
    "vtt": SubtitleFormat("WebVTT", "text/vtt", to_vtt),
}
"""Each format by its file ending, which is its flag and the server's `response_format` too."""


def clock(seconds: float, separator: str) -> str:
    """`3661.5` as `01:01:01,500`."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{separator}{milliseconds % 1000:03d}"


def _units(words: "Iterable[Chunk]") -> Iterator[_Unit]:
    """The words, none longer than a line, with times that never go back; a text of several shares its time out."""
    latest = 0.0
    for word in words:
        start, end = word["timestamp"]
        start = max(latest, start)
        latest = max(start, start if end is None else end)
        pieces = [part for piece in _pieces(str(word["text"])) for part in _chopped(piece)]
        total, done = sum(map(_columns, pieces)) or 1, 0
        for piece in pieces:
            begin = start + (latest - start) * done / total
            done += _columns(piece)
            yield _Unit(piece, begin, start + (latest - start) * done / total, bool(word.get("no_speech")))


def _pieces(text: str) -> list[str]:
    """Where a line may break; a mark and a closing sign stay with the letter before them."""
    from modeling_slam_asr.transcripts_slam_asr import split_words

    pieces: list[str] = []
    for piece in split_words("".join(map(_shown, text))):
        word = piece.strip()
        if not word:
            continue
        sign = unicodedata.category(word[0])
        if pieces and not piece[0].isspace() and (sign[0] == "M" or (sign in _CLOSING and len(word) == 1)):
            pieces[-1] += word
        else:
            pieces.append(word)
    return pieces


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace():
        return " "
    return {"Cc": "", "Cs": "\ufffd"}.get(category, character)


def _chopped(word: str) -> list[str]:
    """A word that is longer than a line, in pieces of a line."""
    parts = [""]
    for letter in word:
        if _columns(parts[-1] + letter) > LINE_LETTERS:
            parts.append("")
        parts[-1] += letter
    return parts


def _columns(text: str) -> int:
    """What a text takes on the screen: wide letters count twice, marks not at all."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _lines(units: Sequence[_Unit]) -> list[str]:
    from modeling_slam_asr.transcripts_slam_asr import join_texts

    lines: list[str] = []
    for unit in units:
        longer = join_texts([lines[-1], unit.text]) if lines else unit.text
        if lines and _columns(longer) <= LINE_LETTERS:
            lines[-1] = longer
        else:
            lines.append(unit.text)
    return lines


def _cue(units: Sequence[_Unit]) -> Cue:
    return Cue(units[0].start, units[-1].end, "\n".join(_lines(units)))


def _spread(done: list[Cue]) -> list[Cue]:
    """Cues of a length that can be read where there is room; a cue without any pushes the next one back."""
    for index, cue in enumerate(done):
        if index:
            cue.start = max(cue.start, done[index - 1].end)
        following = done[index + 1].start if index + 1 < len(done) else float("inf")
        longest = cue.start + LONGEST_SECONDS
        wanted = max(cue.end, cue.start + SHORTEST_SECONDS, cue.start + _columns(cue.text) / READING_SPEED)
        least = cue.start + SHORTEST_SECONDS if following - cue.start < SHORTEST_SECONDS else cue.start
        cue.end = max(min(wanted, following, longest), least)
    return done


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
