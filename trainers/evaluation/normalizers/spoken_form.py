"""The steps that the normalisers of single languages share: from written to spoken words."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.evaluation.normalizers.basic import APOSTROPHES, squeeze
from trainers.evaluation.normalizers.numbers import NumberWords

_LETTER = r"[^\W\d_]"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?![\d]|\.\d)")
_DECIMAL = re.compile(r"(?<![\d.,])(\d+)(?:,(\d+)|\.(\d))(?![\d]|[.,]\d)")
_AMOUNT = r"\d+(?:[.,]\d+)*"
_CENTS = re.compile(r"(.*?)(?:[.,](\d\d))?")
_RANGE = re.compile(r"(?<=\d)[-–](?=\d)")
_MINUS = re.compile(r"(?<![\w.,)])[-−](?=\d)")
_DIGITS_AND_ENDING = re.compile(rf"(?<!\w)(\d+)['-]?({_LETTER}{{2,}})")
_DIGITS = re.compile(r"\d+")
_HYPHEN = re.compile(rf"(?<={_LETTER})[-\u2010\u2011\u00ad](?={_LETTER})")
_INITIALISM = re.compile(rf"(?<!\w)(?:{_LETTER}\.){{2,}}")


@dataclass(frozen=True)
class SpokenForm:
    """Tables of one language.

    phrases: written form -> spoken form, matched as whole words, such as abbreviations with their full stops.
    units: spelled out after a digit only. signs: symbols to words. words: single words replaced at the end.
    ordinal: a pattern whose group 1 is the digits of an ordinal.
    """

    numbers: NumberWords
    phrases: Mapping[str, str]
    units: Mapping[str, str]
    signs: Mapping[str, str]
    currencies: Mapping[str, str]
    words: Mapping[str, str]
    ordinal: re.Pattern[str]
    minus: str
    keep_apostrophes: bool
    _phrases: re.Pattern[str] = field(init=False)
    _units: re.Pattern[str] = field(init=False)
    _currency: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_phrases", re.compile(rf"(?<![\w.'])(?:{_alternatives(self.phrases)})(?!\w)"))
        object.__setattr__(self, "_units", re.compile(rf"(?<=\d)\s?({_alternatives(self.units)})(?!\w)\.?"))
        signs = _alternatives(self.currencies)
        object.__setattr__(self, "_currency", re.compile(rf"({signs})\s?({_AMOUNT})|({_AMOUNT})\s?({signs})"))

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text).translate(APOSTROPHES).lower()
        text = unicodedata.normalize("NFC", text)
        text = self._phrases.sub(lambda m: f" {self.phrases[m.group()]} ", text)
        text = _INITIALISM.sub(lambda m: m.group().replace(".", "") + " ", text)
        text = self._currency.sub(self._spell_currency, text)
        text = self._units.sub(lambda m: f" {self.units[m.group(1)]} ", text)
        for sign, spoken in self.signs.items():
            text = text.replace(sign, f" {spoken} ")
        text = self._spell_digits(text)
        text = _HYPHEN.sub("", text)
        text = "".join(c if _is_word_character(c) else " " for c in text)
        words = [self.words.get(word, word) for word in self._strip_apostrophes(text.split())]
        return squeeze(" ".join(self.numbers.respell(" ".join(words).split())))

    def _spell_currency(self, match: re.Match[str]) -> str:
        """ "€ 2,50" and "2,50 €" as "2 euro 50"."""
        before, amount, other_amount, after = match.groups()
        whole, cents = _CENTS.fullmatch(amount or other_amount).groups()  # type: ignore[union-attr]
        return f" {whole} {self.currencies[before or after]} {cents or ''} "

    def _spell_digits(self, text: str) -> str:
        numbers = self.numbers
        text = _MINUS.sub(f" {self.minus} ", text)
        text = _THOUSANDS.sub(lambda m: m.group().replace(".", ""), text)
        text = self.ordinal.sub(lambda m: f" {numbers.ordinal_to_words(m.group(1))} ", text)
        text = _DECIMAL.sub(lambda m: f" {numbers.decimal_to_words(m.group(1), m.group(2) or m.group(3))} ", text)
        text = _RANGE.sub(" ", text)
        text = _DIGITS_AND_ENDING.sub(lambda m: f" {numbers.digits_to_words(m.group(1))}{m.group(2)}", text)
        return _DIGITS.sub(lambda m: f" {numbers.digits_to_words(m.group())} ", text)

    def _strip_apostrophes(self, words: list[str]) -> list[str]:
        """Quotation marks go; a word that the tables know with its apostrophe keeps it."""
        kept = []
        for word in words:
            if "'" in word and word not in self.words:
                word = word.strip("'")
                word = word if self.keep_apostrophes else word.replace("'", "")
            if word:
                kept.append(word)
        return kept


def _alternatives(table: Mapping[str, str]) -> str:
    return "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))


def _is_word_character(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"
