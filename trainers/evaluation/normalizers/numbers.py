"""Numbers in words: digits spelled out, and number words in any spacing brought to one spelling.

"2005", "twee duizend vijf" and "tweeduizend en vijf" all become "tweeduizend vijf". The words come from num2words; the
spelling of hundreds and thousands follows the language's own rules, which num2words does not.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_LONGEST_RUN = 14
_READ_AS_DIGITS_FROM = 10**7
_MOST_DIGITS = 12  # from a thousand milliards on nobody says the number
_MOST_ORDINAL_DIGITS = 6


@dataclass(frozen=True)
class NumberRules:
    """What differs between languages.

    below_100: value -> word. spell: value below a million -> words. ordinal: value -> word, `None` where unusual.
    link: the word between the parts ("en", "og"). large: scale -> its word after 1 and its word after other counts.
    variants: other spellings of numbers below 100, folded, such as "halvtredsindstyve".
    """

    below_100: Callable[[int], str]
    spell: Callable[[int], str]
    ordinal: Callable[[int], str | None]
    link: str
    comma: str
    hundred: tuple[str, ...]
    thousand: tuple[str, ...]
    large: Mapping[int, tuple[str, str]]
    variants: Mapping[str, int] = field(default_factory=dict)


class NumberWords:
    """Reads and writes numbers in one language."""

    def __init__(self, rules: NumberRules) -> None:
        self.rules = rules
        self._below_100 = {fold(rules.below_100(n)): n for n in range(100)} | dict(rules.variants)
        self._ordinals = {fold(word): n for n in range(2, 100) if (word := rules.ordinal(n))}
        parts = {word for word, n in self._below_100.items() if n <= 20 or n % 10 == 0}
        parts |= {*rules.hundred, *rules.thousand, rules.link, *(w for words in rules.large.values() for w in words)}
        self._parts = re.compile("(?:" + "|".join(sorted(parts, key=len, reverse=True)) + ")+")

    def digits_to_words(self, digits: str) -> str:
        """A string of digits in words; read digit by digit when it starts with 0 or is too long for a count."""
        code = len(digits) > _MOST_DIGITS or (int(digits) >= _READ_AS_DIGITS_FROM and int(digits) % 1000)
        if len(digits) > 1 and (digits[0] == "0" or code):
            return " ".join(self.rules.spell(int(digit)) for digit in digits)
        return self.spell(int(digits))

    def decimal_to_words(self, whole: str, fraction: str) -> str:
        """A decimal number in words, two decimals read as one number ("tre komma fjorten")."""
        as_number = len(fraction) <= 2 and fraction[0] != "0"
        spoken = [fraction] if as_number else list(fraction)
        return " ".join([self.digits_to_words(whole), self.rules.comma, *(self.spell(int(part)) for part in spoken)])

    def ordinal_to_words(self, digits: str) -> str:
        """An ordinal in words; the cardinal where the language has no usual ordinal."""
        usual = len(digits) <= _MOST_ORDINAL_DIGITS and digits[0] != "0"
        return (self.rules.ordinal(int(digits)) if usual else None) or self.digits_to_words(digits)

    def spell(self, value: int) -> str:
        """A count in words, in the one spelling that this module uses."""
        for scale in sorted(self.rules.large, reverse=True):
            if value >= scale:
                count, rest = divmod(value, scale)
                words = self.rules.large[scale]
                head = f"{self.spell(count)} {words[0] if count == 1 else words[1]}"
                return f"{head} {self.spell(rest)}" if rest else head
        return self.rules.spell(value)

    def is_number(self, word: str) -> bool:
        """Whether one word is a count above 1 or an ordinal, in words."""
        folded = fold(word)
        value = self.parse(folded) if self._parts.fullmatch(folded) else None
        return value not in (None, 1) or folded in self._ordinals

    def respell(self, words: list[str]) -> list[str]:
        """Bring every number that is written in words to the one spelling; leaves a lone "one" alone."""
        result: list[str] = []
        position = 0
        candidates = [bool(self._parts.fullmatch(fold(word))) for word in words]
        while position < len(words):
            taken = self._longest_number(words, candidates, position)
            if taken:
                end, spelled = taken
                result += spelled.split()
                position = end
            else:
                result.append(words[position])
                position += 1
        return result

    def _longest_number(self, words: list[str], candidates: list[bool], start: int) -> tuple[int, str] | None:
        if not (candidates[start] or fold(words[start]) in self._ordinals):
            return None
        end = start
        while end < len(words) and end < start + _LONGEST_RUN and candidates[end]:
            end += 1
        last_ordinal = min(end + 1, len(words))
        for stop in range(last_ordinal, start, -1):
            joined = "".join(fold(word) for word in words[start:stop])
            if joined in self._ordinals:
                return stop, self.rules.ordinal(self._ordinals[joined]) or joined
            if stop <= end and (value := self.parse(joined)) is not None and not (value == 1 and stop == start + 1):
                return stop, self.spell(value)
        return None

    def parse(self, joined: str) -> int | None:
        """The value of a number in words with the spaces and accents removed; `None` for anything else.

        A scale word such as "miljoen" needs a count before it: "een half miljoen" holds no number.
        """
        for scale, words in sorted(self.rules.large.items(), reverse=True):
            if splits := _splits_at(joined, words):
                return _first(self._combine(*split, scale, implied_one=False) for split in splits)
        if splits := _splits_at(joined, self.rules.thousand):
            return _first(self._combine(*split, 1000, implied_one=True) for split in splits)
        if splits := _splits_at(joined, self.rules.hundred):
            return _first(self._hundreds(*split) for split in splits)
        return self._below_100.get(joined)

    def _combine(self, left: str, right: str, scale: int, implied_one: bool) -> int | None:
        count = 1 if not left and implied_one else self.parse(left) if left else None
        rest = self._rest(right)
        if not count or rest is None or count >= 1000 or rest >= scale:
            return None
        return count * scale + rest

    def _hundreds(self, left: str, right: str) -> int | None:
        count = self._below_100.get(left) if left else 1
        rest = self._rest(right)
        if not count or rest is None or rest >= 100 or (count >= 10 and count % 10 == 0):
            return None
        return count * 100 + rest

    def _rest(self, right: str) -> int | None:
        if not right:
            return 0
        linked = right.removeprefix(self.rules.link)
        value = self.parse(right)
        if value is None and linked != right:
            value = self.parse(linked)
        return value or None


@functools.lru_cache(maxsize=100_000)
def fold(word: str) -> str:
    """Lower case without accents, so that "tweeëntwintig" and "tweeentwintig" are one."""
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if c not in "\u0301\u0308\u0300")


def _splits_at(joined: str, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The splits at the first scale word: one a spelling that stands there, as "tusinde" and "tusind" in "tusindenogtyve"."""
    found = {word: position for word in words if (position := joined.find(word)) >= 0}
    first = min(found.values(), default=-1)
    there = sorted((word for word, position in found.items() if position == first), key=len, reverse=True)
    return [(joined[:first], joined[first + len(word) :]) for word in there]


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)
