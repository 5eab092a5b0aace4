"""Numbers: digits and words of one value become the same words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.evaluation.normalizers import get_normalizer
from trainers.evaluation.normalizers.danish import danish_numbers
from trainers.evaluation.normalizers.dutch import dutch_numbers
from trainers.evaluation.normalizers.numbers import NumberWords, fold

LANGUAGES = {"nl": dutch_numbers, "da": danish_numbers}
VALUES = st.one_of(st.integers(2, 12_000), st.integers(2, 10**7 - 1))


@pytest.fixture(params=sorted(LANGUAGES))
def language(request: pytest.FixtureRequest) -> str:
    return request.param


def numbers(language: str) -> NumberWords:
    return LANGUAGES[language]()


def test_all_values_below_ten_thousand_read_back(language: str) -> None:
    grammar = numbers(language)
    for value in range(1, 10_000):
        assert grammar.parse(fold(grammar.spell(value)).replace(" ", "")) == value


@given(value=VALUES)
def test_digits_equal_words_and_words_are_stable(value: int) -> None:
    for name in LANGUAGES:
        normalize = get_normalizer(name)
        words = numbers(name).spell(value)
        assert normalize(str(value)) == normalize(words) == words
        assert normalize(words.replace(" ", "")) == words or value >= 10**6


@given(value=st.integers(2, 99))
def test_ordinals(value: int) -> None:
    assert get_normalizer("nl")(f"de {value}e keer").split()[1] == dutch_numbers().rules.ordinal(value)
    assert get_normalizer("da")(f"den {value}. gang").split()[1] == danish_numbers().rules.ordinal(value)


def test_sequences_are_not_merged() -> None:
    assert get_normalizer("nl")("drie twee een") == "drie twee een"
    assert get_normalizer("da")("tre to en") == "tre to en"
    assert get_normalizer("nl")("negentien vijfennegentig") == "negentien vijfennegentig"
