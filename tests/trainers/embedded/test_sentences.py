"""The sentence generators: disjoint splits, repeatability, and grammar."""

import random
import re

import pytest

from benchmarks.embedded_bases.pretrain_encoder import CHARACTERS
from trainers.embedded import sentences_da, sentences_en, sentences_nl
from trainers.embedded.grammar import sentence
from trainers.embedded.sentences import LANGUAGES, SPLIT_SHARES, generate_sentences, split_of

MODULES = {"da": sentences_da, "nl": sentences_nl, "en": sentences_en}


def sample(language: str, count: int = 3000) -> list[str]:
    rng = random.Random(7)
    return [sentence(vars(MODULES[language]), rng) for _ in range(count)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_are_disjoint_whatever_the_seed(language: str) -> None:
    splits = {
        split: {text for seed in (0, 1) for text in generate_sentences(language, split, 300, seed)}
        for split in SPLIT_SHARES
    }
    assert sum(map(len, splits.values())) == len(set().union(*splits.values()))
    for split, texts in splits.items():
        assert {split_of(text) for text in texts} == {split}


def test_shares_are_kept() -> None:
    assert sum(SPLIT_SHARES.values()) == 1000
    found = [split_of(text) for text in sample("en")]
    for split, share in SPLIT_SHARES.items():
        assert found.count(split) / len(found) == pytest.approx(share / 1000, abs=0.03)


@pytest.mark.parametrize("language", LANGUAGES)
def test_same_seed_same_sentences_and_prefix(language: str) -> None:
    longer = generate_sentences(language, "train", 60, 3)
    assert generate_sentences(language, "train", 40, 3) == longer[:40]
    assert generate_sentences(language, "train", 60, 4) != longer
    assert len(set(longer)) == len(longer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_form_of_the_text(language: str) -> None:
    texts = sample(language)
    assert set("".join(texts)) <= set(CHARACTERS)
    assert all(text == " ".join(text.split()) == text.lower() for text in texts)
    assert max(map(len, texts)) < 120


@pytest.mark.parametrize("language", LANGUAGES)
def test_richness(language: str) -> None:
    texts = sample(language)
    words = {word for text in texts for word in text.split()}
    assert len(words) > 500
    assert len(set(texts)) > 0.99 * len(texts)


def test_english_articles() -> None:
    for text in sample("en"):
        assert not re.search(r"\ba [aeiou]", text), text
        assert not re.search(r"\ban (?!hour)[^aeiou]", text), text
        assert not re.search(r"\b(did|will|must|can|cannot) \w+ (bought|sold|found|writes|buys)\b", text), text


def test_danish_gender_and_definite_forms() -> None:
    article = {
        noun[0]: noun[1]
        for group in ("THINGS", "READINGS", "PEOPLE", "ANIMALS")
        for noun in getattr(sentences_da, group)
    }
    adjectives = sentences_da.COLOURS + sentences_da.QUALITIES + sentences_da.READING_QUALITIES
    common, neuter, weak = ({forms[index] for forms in adjectives} for index in range(3))
    seen = 0
    for text in sample("da", 6000):
        words = text.split()
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            if third not in article:
                continue
            if first in ("en", "et") and second in common | neuter:
                assert first == article[third], text
                assert second in (neuter if first == "et" else common), text
                seen += 1
            elif first in ("den", "det") and second in weak:
                assert (first == "det") == (article[third] == "et"), text
                seen += 1
    assert seen > 500


def test_danish_inversion() -> None:
    pasts = {
        verb[2] for group in ("THING_VERBS", "READING_VERBS", "PERSON_VERBS") for verb in getattr(sentences_da, group)
    }
    seen = 0
    for text in sample("da"):
        for time in sentences_da.PAST_TIMES:
            if text.startswith(f"{time} "):
                assert text.removeprefix(f"{time} ").split()[0] in pasts, text
                seen += 1
    assert seen > 50


def test_dutch_adjectives_agree() -> None:
    article = {
        noun[0]: noun[1]
        for group in ("THINGS", "READINGS", "PEOPLE", "ANIMALS")
        for noun in getattr(sentences_nl, group)
    }
    forms = dict(sentences_nl.COLOURS + sentences_nl.QUALITIES + sentences_nl.READING_QUALITIES)
    seen = 0
    for text in sample("nl", 6000):
        words = text.split()
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            if third not in article or second not in set(forms) | set(forms.values()):
                continue
            if first == "een":
                assert second in (set(forms) if article[third] == "het" else set(forms.values())), text
                seen += 1
            elif first in ("de", "het"):
                assert first == article[third] and second in set(forms.values()), text
                seen += 1
    assert seen > 500


def test_dutch_verb_last_in_subordinate_clauses() -> None:
    verbs = [
        verb for group in ("THING_VERBS", "READING_VERBS", "PERSON_VERBS") for verb in getattr(sentences_nl, group)
    ]
    finals = {form for verb in verbs for form in (verb[0], verb[1], verb[2])} | {"heeft"}
    texts = [text for text in sample("nl") if re.match(r".* (denk|weet|hopen|jammer|zeggen) dat ", text)]
    assert len(texts) > 50
    assert all(text.split()[-1] in finals for text in texts)
