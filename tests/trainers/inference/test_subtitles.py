"""Subtitles: what stands on the screen, how long, and in which form."""

import re
import unicodedata
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.inference.subtitles import (
    LINE_LETTERS,
    LINES,
    LONGEST_SECONDS,
    NO_SPEECH_MARK,
    READING_SPEED,
    UNSURE_MARK,
    Cue,
    clock,
    cues,
    to_srt,
    to_vtt,
)


def word(text: str, start: float, end: float) -> dict[str, Any]:
    return {"text": text, "timestamp": (start, end)}


def test_cues_are_short_and_end_with_sentences() -> None:
    words = [word(f"woord{i}", 0.4 * i, 0.4 * i + 0.3) for i in range(60)]
    words[30]["text"] = "einde."
    made = cues(words)
    assert " ".join(cue.text.replace("\n", " ") for cue in made).split() == [w["text"] for w in words]
    for cue in made:
        assert cue.end - cue.start <= 6.0
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= 42
    assert any(cue.text.endswith("einde.") for cue in made)
    assert all(a.end <= b.start for a, b in pairwise(made))


def test_cues_break_at_pauses_and_never_overlap() -> None:
    made = cues([word("a", 0.0, 0.5), word("b", 2.0, 2.0), word("c", 2.1, 2.4)])
    assert made == [Cue(0.0, 0.5, "a"), Cue(2.0, 2.4, "b c")]
    assert cues([word("a", 1.0, 1.0)]) == [Cue(1.0, 1.3, "a")]
    assert cues([]) == []
    assert [cue.text for cue in cues([word("x" * 100, 0.0, 1.0)])] == ["x" * 42 + "\n" + "x" * 42, "x" * 16]


def test_subtitle_formats() -> None:
    items = [Cue(0.0, 1.5, "a < b & c"), Cue(3661.0, 3662.0004, "d")]
    assert to_srt(items) == ("1\n00:00:00,000 --> 00:00:01,500\na < b & c\n\n2\n01:01:01,000 --> 01:01:02,000\nd\n\n")
    assert to_vtt(items).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b &amp; c\n\n")
    assert clock(59.9996, ",") == "00:01:00,000"


def columns(text: str) -> int:
    kinds = {c: unicodedata.category(c) for c in text}
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text if kinds[c] not in ("Mn", "Me", "Cf"))
    return wide + sum(kinds[c] not in ("Mn", "Me", "Cf") for c in text)


SPOKEN = st.one_of(
    st.sampled_from(
        [
            "ja",
            "huis",
            "einde.",
            "o" * 60,
            "今天",
            "天气。",
            "さよなら",
            "สวัสดี",
            "안녕",
            "a\u0301",
            "a\nb",
            "-->",
            "<i>",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), min_size=1, max_size=12),
)
STEP = st.floats(0, 3, allow_nan=False)


@st.composite
def timed(draw: Any) -> list[dict[str, Any]]:
    """Words with times that go on, as speech does; some last no time, some overlap."""
    now, chunks = 0.0, []
    for text in draw(st.lists(SPOKEN, max_size=30)):
        start = now + draw(STEP) - draw(st.sampled_from([0.0, 0.0, 0.2]))
        now = max(now, start) + draw(STEP)
        chunks.append(word(text, max(start, 0.0), now))
    return chunks


@settings(max_examples=150, deadline=None)
@given(chunks=timed())
def test_what_holds_of_all_cues(chunks: list[dict[str, Any]]) -> None:
    made = cues(chunks)
    said = "".join(c for chunk in chunks for c in chunk["text"] if unicodedata.category(c) != "Cc")
    assert "".join("".join(cue.text.split()) for cue in made) == "".join(said.split())
    for cue in made:
        lines = cue.text.split("\n")
        assert len(lines) <= LINES
        assert all(0 <= columns(line) <= LINE_LETTERS and line == line.strip() for line in lines)
        assert 0 < cue.end - cue.start <= LONGEST_SECONDS + 1e-6
    for cue, following in pairwise(made):
        assert cue.end <= following.start
        enough = cue.start + min(columns(cue.text.replace("\n", "")) / READING_SPEED, LONGEST_SECONDS)
        assert cue.end >= min(enough, following.start) - 1e-6  # readable, or as long as there is room
    srt = to_srt(made)
    assert re.findall(r"(?:\A|\n\n)(\d+)\n\d\d+:", srt) == [str(n) for n in range(1, len(made) + 1)]
    assert srt.count("-->") == len(made)
    times = [stamp for line in srt.splitlines() if " --> " in line for stamp in line.split(" --> ")]
    assert times == sorted(times)
    vtt = to_vtt(made)
    assert vtt.startswith("WEBVTT\n\n")
    assert vtt.count("-->") == len(made)
    srt.encode("utf-8")


def test_scripts_without_spaces() -> None:
    text = "今天天气很好。我们去公园吧！"
    made = cues([word(c, 0.3 * i, 0.3 * i + 0.3) for i, c in enumerate(text)])
    assert [cue.text for cue in made] == [text]
    made = cues([word("今天天气很好，" * 12, 0.0, 25.0)])
    assert len(made) > 2 and "".join(cue.text for cue in made).replace("\n", "") == "今天天气很好，" * 12
    assert all(not line.startswith("，") for cue in made for line in cue.text.split("\n"))
    assert [cue.text for cue in cues([word("สวัสดี", 0, 1), word("ครับ", 1, 2)])] == ["สวัสดีครับ"]
    assert [cue.text for cue in cues([word("안녕", 0, 1), word("친구", 1, 2)])] == ["안녕 친구"]


def test_noise_is_marked() -> None:
    made = cues([{**word("zoem", 0.0, 1.0), "no_speech": True}, word("ja", 1.0, 2.0)])
    assert [cue.text for cue in made] == [f"{NO_SPEECH_MARK} zoem", "ja"]
    made = cues([word("ja", 0.0, 1.0), word("nee", 5.0, 6.0)], unsure=True)
    assert [cue.text for cue in made] == [f"{UNSURE_MARK} ja", "nee"]
    noise = [{**word("zoem", 0.0, 1.0), "no_speech": True}]
    assert [cue.text for cue in cues(noise, unsure=True)] == [f"{UNSURE_MARK} {NO_SPEECH_MARK} zoem"]
