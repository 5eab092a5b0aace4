"""Which words are numerals, names or compounds: simple tests, each with its limits."""

import re
from collections.abc import Callable, Collection, Sequence

from num2words import num2words

from trainers.evaluation.normalizers import find_language, language_code

# Of those without a file of their own: where there is one, it decides, and what stands here says nothing.
_COMPOUNDING_LANGUAGES = frozenset({"af", "de", "is", "nb", "nn", "no", "sv"})
_LINKS = ("", "s", "e", "en", "er")
_SHORTEST_PART = 3
_SHORTEST_COMPOUND = 7
_SENTENCE_END = frozenset(".!?:\"“”'‘’(")


def numeral_test(language: str | None) -> Callable[[str], bool]:
    """A test for number words of `language`, and for anything with a digit.

    The word for 1 is left out because it is an article or a pronoun too ("een", "en", "one"). Languages that num2words
    does not know have only the digits.
    """
    found = find_language(language)
    if found is not None and found.numbers is not None:
        grammar = found.numbers()
        return lambda word: grammar.is_number(word) or any(c.isdigit() for c in word)
    words = _number_words(language_code(language) or "")
    return lambda word: word in words or any(c.isdigit() for c in word)


def name_words(raw_references: Sequence[str], normalizer: Callable[[str], str]) -> set[str] | None:
    """Normalised words that look like names: capitalised inside a sentence and never in lower case.

    `None` when the references carry no case at all. German nouns and English "I" would pass for names: "I" is left out.
    """
    capitalised: set[str] = set()
    lower: set[str] = set()
    any_upper = False
    for text in raw_references:
        previous_end = True
        for token in text.split():
            core = token.strip(".,;:!?\"“”‘’'()[]…-")
            if core[:1].isupper():
                any_upper = True
                if not previous_end and core != "I" and not core.startswith(("I'", "I’")):
                    capitalised.add(core)
            elif core:
                lower.add(core)
            previous_end = token[-1] in _SENTENCE_END
    if not any_upper:
        return None
    names = {core for core in capitalised if core.lower() not in lower}
    return {word for core in names for word in normalizer(core).split() if len(word) > 1}


def compound_test(language: str | None, vocabulary: Collection[str]) -> Callable[[str], bool]:
    """A test for compounds written as one word: two known words with an optional link. Always false in other languages.

    vocabulary: words that may be parts, such as those of the training texts; a small one finds fewer compounds.
    """
    found = find_language(language)
    if not (found.compounds if found is not None else language_code(language) in _COMPOUNDING_LANGUAGES):
        return lambda word: False
    parts = {word for word in vocabulary if len(word) >= _SHORTEST_PART}

    def is_compound(word: str) -> bool:
        if len(word) < _SHORTEST_COMPOUND:
            return False
        return any(
            word[cut:] in parts and any(word[:cut].removesuffix(link) in parts for link in _LINKS if link != word[:cut])
            for cut in range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1)
        )

    return is_compound


def _number_words(code: str) -> set[str]:
    if not code:
        return set()
    values = [*range(2, 101), 200, 300, 1000, 2000, 10**6, 2 * 10**6]
    try:
        spelled = [num2words(value, lang=code) for value in values]
        small = num2words(1, lang=code)
    except NotImplementedError:
        return set()
    words = {word for text in spelled for word in re.split(r"[\s,-]+", text.lower()) if len(word) > 1}
    return words - {"and", "und", "et", "y", "e", "a", small.lower()}
