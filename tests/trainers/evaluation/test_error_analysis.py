"""The error analysis on small cases whose answer is plain."""

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.evaluation.alignment import align_words
from trainers.evaluation.bins import bin_labels
from trainers.evaluation.bootstrap import BootstrapSettings
from trainers.evaluation.error_analysis import analyze, confusions, error_regions, spacing_errors
from trainers.evaluation.insertions import insertion_kinds, is_runaway, output_table, repeated_positions
from trainers.evaluation.normalizers.language import Language
from trainers.evaluation.normalizers.registry import LANGUAGE_FILES
from trainers.evaluation.scoring import normalize_and_align
from trainers.evaluation.word_classes import compound_test, name_words, numeral_test


@pytest.mark.parametrize(
    ("words", "repeated"),
    [
        ("a b c", ""),
        ("nee nee a", ""),
        ("nee nee nee a", "nee nee"),
        ("a b a b c", "a b"),
        ("x a b c a b c a b c y", "a b c a b c"),
        ("a b a b a", "a b a"),
        ("a a a b b b", "a a b b"),
    ],
)
def test_repeated_positions(words: str, repeated: str) -> None:
    split = words.split()
    assert " ".join(w for w, r in zip(split, repeated_positions(split), strict=True) if r) == repeated


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("a b c", "a b c a b c a b c", {"loops": 6}),
        ("a b c", "a b c thanks for watching", {"continuations": 3}),
        ("a b c", "a b c d", {"others": 1}),
        ("a b c", "x y a b c", {"others": 2}),
        ("", "thanks for watching", {"on_empty_reference": 3}),
        ("ja ja ja", "ja ja ja", {}),
        ("a b", "a b b b b b", {"loops": 4}),
        ("a b", "a", {}),
    ],
)
def test_insertion_kinds(reference: str, prediction: str, expected: dict[str, int]) -> None:
    (alignment,) = align_words([reference], [prediction])
    kinds = insertion_kinds(alignment)
    assert {kind: count for kind, count in kinds.items() if count} == expected
    assert sum(kinds.values()) == alignment.insertions


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=16))
def test_every_inserted_word_has_one_kind(reference: list[str], prediction: list[str]) -> None:
    (alignment,) = align_words([" ".join(reference)], [" ".join(prediction)])
    assert sum(insertion_kinds(alignment).values()) == alignment.insertions


def test_empty_runaway_and_truncated_outputs() -> None:
    alignments = align_words(["a b", "a b", "a b", ""], ["", "a b c d e f g h", "a b", ""])
    assert [is_runaway(a) for a in alignments] == [False, True, False, False]
    table = output_table(alignments, truncated=[None, True, False, None])
    assert table["empty"] == {"utterances": 1, "errors": 2, "share_of_errors": 0.25}
    assert table["runaway"] == {"utterances": 1, "errors": 6, "share_of_errors": 0.75}
    assert table["truncated"]["utterances"] == 1


def test_confusions() -> None:
    found = confusions(align_words(["a b c", "b", "a"], ["a x c d", "x", ""]))
    assert found["substitutions"] == [{"reference": "b", "prediction": "x", "count": 2}]
    assert found["deletions"] == [{"reference": "a", "prediction": None, "count": 1}]
    assert found["insertions"] == [{"reference": None, "prediction": "d", "count": 1}]


def test_spacing_errors() -> None:
    alignments = align_words(["de brandweerwagen reed weg"], ["de brandweer wagen reed snel"])
    assert [region[2] for region in error_regions(alignments[0])] == [2, 1]
    found = spacing_errors(alignments)
    assert (found["regions"], found["errors"], found["share_of_errors"]) == (1, 2, pytest.approx(2 / 3))


@pytest.mark.parametrize("compounds", [True, False])
def test_a_file_of_a_language_says_whether_it_has_compounds(compounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    swedish = Language(("sv", "swe"), "Swedish", lambda: str.lower, compounds=compounds)
    monkeypatch.setitem(sys.modules, "swedish", types.SimpleNamespace(LANGUAGE=swedish))
    monkeypatch.setitem(LANGUAGE_FILES, "sv", "swedish")
    assert compound_test("sv-SE", {"vatten", "melon"})("vattenmelon") is compounds


def test_compounds_of_a_language_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LANGUAGE_FILES, "sv", raising=False)
    assert compound_test("sv-SE", {"vatten", "melon"})("vattenmelon")
    assert not compound_test("fi", {"vesi", "meloni"})("vesimeloni")  # not among those that are known to have them


def test_word_classes() -> None:
    is_dutch, is_danish, is_english = numeral_test("nl"), numeral_test("da-DK"), numeral_test("en")
    assert all(map(is_dutch, ["eenentwintig", "honderdvijf", "derde", "12"]))
    assert not any(map(is_dutch, ["een", "huis", "en", "achter"]))
    assert all(map(is_danish, ["femoghalvtreds", "hundrede", "tredje"])) and not is_danish("og") and not is_danish("en")
    assert is_english("seven") and is_english("7th") and not is_english("one") and not is_english("and")
    assert numeral_test("xx")("3") and not numeral_test(None)("drie")
    vocabulary = {"brandweer", "wagen", "water", "arbejde", "plads"}
    assert compound_test("nl", vocabulary)("brandweerwagen")
    assert compound_test("da", vocabulary)("arbejdsplads") is False  # "arbejd" + s: the part itself is not in the list
    assert compound_test("da", vocabulary | {"arbejd"})("arbejdsplads")
    assert not compound_test("nl", vocabulary)("wagen") and not compound_test("en", vocabulary)("brandweerwagen")


def test_names_by_their_capitals() -> None:
    texts = [
        "Gisteren was Anna in Den Haag.",
        "De trein stopt. Daar zat Anna, zei I'm Jan",
        "den haag? nee, het bos van den",
    ]
    assert name_words(texts, str.lower) == {"anna", "haag", "jan"} - {"haag"}
    assert name_words(["alles klein"], str.lower) is None


def test_bin_labels() -> None:
    assert bin_labels([0, 1, 4, 99], (1, 2, 5))[0] == ["0", "1", "2-4", "5 or more"]
    assert bin_labels([0.5, 2, 30], (2, 5), "s") == (
        ["under 2 s", "2-5 s", "5 or more s"],
        ["under 2 s", "2-5 s", "5 or more s"],
    )
    assert bin_labels([3], (4, 7))[0] == ["0-3"]


def test_tables_add_up() -> None:
    references = ["De brandweerwagen reed naar Amsterdam in 1995", "hallo daar", "", "een twee drie vier vijf", "ja"]
    predictions = ["de brandweer wagen reed naar Rotterdam in 1996", "", "hoi", "een twee drie vier vijf", "nee"]
    scored = normalize_and_align(references, predictions, languages=["nl"] * 5)
    analysis = analyze(
        scored,
        raw_references=references,
        languages=["nl"] * 5,
        durations=[3.0, 1.0, 0.0, None, 0.5],
        truncated=[None] * 5,
        word_counts={"de": 1000, "brandweer": 3, "wagen": 2},
        settings=BootstrapSettings(100),
    )
    words = int(scored.reference_words.sum())
    wrong = int(scored.words[:, 1:3].sum())
    for name in ("by_frequency", "by_length", "by_position", "by_class"):
        bins = analysis["words"][name]
        assert (sum(b["words"] for b in bins), sum(b["errors"] for b in bins)) == (words, wrong), name
    by_class = {b["bin"]: b["words"] for b in analysis["words"]["by_class"]}
    assert by_class == {"numerals": 5, "names": 1, "compounds": 1, "other words": words - 7}
    assert {b["bin"]: b["words"] for b in analysis["words"]["by_frequency"]}["100 or more"] == 1
    assert sum(b["errors"] for b in analysis["utterances"]["by_words"]) == int(scored.errors.sum())
    assert sum(b["items"] for b in analysis["utterances"]["by_duration"]) == 3
    assert {b["bin"] for b in analysis["utterances"]["by_speech_rate"]} == {"2-3 words/s"}
    assert analysis["words"]["frequency_source"] == "training texts"


def test_no_utterance_with_words() -> None:
    scored = normalize_and_align([""], [""], normalizer="none")
    analysis = analyze(scored, raw_references=[""], settings=BootstrapSettings(10))
    assert analysis["words"]["by_length"] == []
    assert analysis["outputs"]["empty"]["share_of_errors"] == 0
