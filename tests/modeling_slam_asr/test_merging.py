"""Joining transcripts of overlapping windows: nothing lost, nothing twice."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr.merging_slam_asr import Word, join_texts, join_words, merge_overlap, split_words


def timed(words: list[str], durations: list[float]) -> list[Word]:
    """Words one after the other."""
    placed, clock = [], 0.0
    for word, duration in zip(words, durations, strict=True):
        placed.append(Word(f" {word}", clock, clock + duration))
        clock += duration
    return placed


def windows_of(words: list[Word], cuts: list[float], overlap: float) -> list[tuple[float, float, list[Word]]]:
    """Each window's start, end and the words whose middle lies in it."""
    end = words[-1].end
    starts = [0.0] + [cut - overlap for cut in cuts]
    ends = [*cuts, end]
    return [
        (a, b, [w for w in words if a <= w.middle < b or (b == end and w.middle <= b)])
        for a, b in zip(starts, ends, strict=True)
    ]


def merged(windows: list[tuple[float, float, list[Word]]], slack: float) -> list[str]:
    held: list[Word] = []
    before_end = 0.0
    for start, end, words in windows:
        if held:
            left, right = merge_overlap(held, words, start, before_end, slack)
            held = left + right
        else:
            held = list(words)
        before_end = end
    return [word.text.strip() for word in held]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_comes_back_when_times_are_known(data: st.DataObject) -> None:
    """Few different words and many repetitions, any durations, any cuts: the worst case for an alignment by text alone."""
    words = data.draw(st.lists(st.sampled_from(["ja", "nee", "de", "de hond"]), min_size=1, max_size=60))
    words = " ".join(words).split()
    durations = data.draw(st.lists(st.floats(0.05, 1.5), min_size=len(words), max_size=len(words)))
    text = timed(words, durations)
    overlap = data.draw(st.floats(0.5, 5.0))
    cuts: list[float] = []
    clock = overlap
    while clock < text[-1].end - 0.1 and len(cuts) < 6:
        clock += data.draw(st.floats(overlap, 20.0))
        if clock < text[-1].end:
            cuts.append(clock)
    assert merged(windows_of(text, cuts, overlap), slack=0.0) == words


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(8, 120))
def test_a_text_comes_back_when_times_are_rough(seed: int, count: int) -> None:
    """Times wrong by up to 0.8 s in each window, as estimates are; words repeat, but not within an overlap."""
    rng = random.Random(seed)
    words = [f"w{i % 40}" for i in range(count)]
    text = timed(words, [rng.uniform(0.1, 0.8) for _ in words])
    overlap = 4.0
    cuts = [cut for cut in (10.0 + 7 * i for i in range(20)) if cut < text[-1].end - 0.5]
    windows = []
    for start, end, held in windows_of(text, cuts, overlap):
        shift = rng.uniform(-0.8, 0.8)
        windows.append((start, end, [Word(w.text, w.start + shift, w.end + shift) for w in held]))
    assert merged(windows, slack=2.0) == words


def test_words_cut_through_at_the_edges_are_left_out() -> None:
    words = timed(["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "again"], [0.5] * 10)
    left = [*words[:6], Word(" th", 3.0, 3.2)]
    right = [Word(" own", 1.3, 1.5), *words[3:]]
    kept = merge_overlap(left, right, 1.3, 3.2, slack=0.3)
    assert join_words([*kept[0], *kept[1]]) == "the quick brown fox jumps over the lazy dog again"


def test_capitals_and_punctuation_do_not_hinder_an_alignment() -> None:
    words = timed(["En", "toen", "ging", "hij", "naar", "huis", "want", "het", "was"], [0.5] * 9)
    left = [*words[:5], Word(" Huis.", 2.5, 3.0)]
    right = [Word(" Naar", 2.0, 2.5), *words[5:]]
    kept = merge_overlap(left, right, 2.0, 3.0, slack=0.2)
    text = join_words([*kept[0], *kept[1]]).lower().replace(".", "")
    assert text == "en toen ging hij naar huis want het was"


def test_disagreement_is_settled_by_time() -> None:
    left, right = timed(["a", "b", "c", "d"], [1.0] * 4), timed(["w", "x", "y", "z"], [1.0] * 4)
    for word in right:
        word.start, word.end = word.start + 2, word.end + 2
    kept = merge_overlap(left, right, 2.0, 4.0)
    assert [w.text.strip() for part in kept for w in part] == ["a", "b", "c", "x", "y", "z"]


def test_an_empty_side_loses_nothing() -> None:
    words = timed(["a", "b"], [1.0, 1.0])
    assert merge_overlap(words, [], 5.0, 6.0) == (words, [])
    assert merge_overlap([], words, 0.0, 0.0) == ([], words)


@given(st.text(max_size=60))
def test_splitting_keeps_every_letter(text: str) -> None:
    assert "".join(split_words(text)) == text[: len(text.rstrip())] or "".join(split_words(text)) == text.rstrip()


def test_scripts_without_spaces_are_split_by_character() -> None:
    assert split_words("今日は good 日") == ["今", "日", "は", " good", " 日"]
    assert join_texts(["今日は", "良い"]) == "今日は良い"
    assert join_texts(["", "a", "", "b"]) == "a b"


@pytest.mark.parametrize(("a", "b"), [("Huis.", "huis"), ("Café", "cafe\u0301"), ("don't", "dont")])
def test_keys(a: str, b: str) -> None:
    assert Word(a).key == Word(b).key
    assert Word("-").key == "-"
