"""The steps that the normalisers of single languages share: from written to spoken words."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainers.data.text import APOSTROPHES
from trainers.evaluation.normalizers.basic import squeeze
from trainers.evaluation.normalizers.numbers import NumberWords

_LETTER = r"[^\W\d_]"
_SPACES = " \u00a0\u202f\u205f" + "".join(map(chr, range(0x2000, 0x200B)))
_DECIMAL = re.compile(r"(?<![\d.,])(\d+)(?:,(\d+)|\.(\d))(?![\d]|[.,]\d)")
_AMOUNT = r"\d+(?:[.,]\d+)*"
_CENTS = re.compile(r"(.*?)(?:[.,](\d\d))?")
_RANGE = re.compile(r"(?<=[\d%°])[-–](?=\d)")
_DEGREES = re.compile(r"\s?°\s?(?=[CF]\b)")
_MINUS = re.compile(r"(?<![\w.,)])[-−–](?=\d)")
_DIGITS_AND_ENDING = re.compile(rf"(?<!\w)(\d+)['-]?({_LETTER}{{2,}})")
_HYPHEN = re.compile(rf"(?<={_LETTER})[-\u2010\u2011](?={_LETTER})")
_INITIALISM = re.compile(rf"(?<!\w)(?:{_LETTER}\.){{2,}}")
_LAST_WORD = re.compile(r"(\w+)\W*\Z")


def thousands_pattern(marks: str, comma: bool) -> re.Pattern[str]:
    """Digits in groups of three with one of `marks` between them; no telephone numbers.

    comma: 1,000,000 too. A single group after a comma is a decimal.
    """
    groups = rf"([{re.escape(marks)}])\d{{3}}(?:\1\d{{3}})*" + (r"|(?:,\d{3}){2,}" if comma else "")
    return re.compile(
        rf"(?<![\d.,])(?<!\d[{_SPACES}])[1-9]\d{{0,2}}(?:{groups})(?!\d|[.,']\d{{3}}|\.\d\d?\.|[{_SPACES}]\d)"
    )


SPACED_THOUSANDS = thousands_pattern(_SPACES, comma=False)
_THOUSANDS = thousands_pattern(_SPACES + ".'", comma=True)


def collapse_thousands(text: str, pattern: re.Pattern[str] = _THOUSANDS) -> str:
    """Grouped digits as one number: "10 000" -> "10000"."""
    return pattern.sub(lambda m: re.sub(r"\D", "", m.group()), text)


@dataclass(frozen=True)
class SpokenForm:
    """Tables of one language. Where a table's word differs after 1, both stand in it: "krone|kroner".

    phrases: written form -> spoken form, matched as whole words, such as abbreviations with their full stops.
    units: spelled out after a number only. Those of one letter, and `unit_words`, which are words of their own too, count
    as units in lower case only, and never after `label_words` ("maat 40 l"); `unit_words` never after a year either.
    signs: symbols to words. currencies: signs and abbreviations before or after an amount; of `decimal_currencies` the
    hundredths are read as decimals, and `currency_words` are currencies behind an amount only. words: single words replaced at the end.
    ordinal: a pattern whose group 1 is the digits of an ordinal; it sees the text before it is lower-cased.
    spoken_digits: digits that are no counts -> how they are said, such as "1" before a neuter noun.
    clock: a pattern of clock times, with groups `hour` and `minutes`: "08.00" is read as "8", with `hour_word` behind it.
    """

    numbers: NumberWords
    phrases: Mapping[str, str]
    units: Mapping[str, str]
    signs: Mapping[str, str]
    currencies: Mapping[str, str]
    words: Mapping[str, str]
    ordinal: re.Pattern[str]
    clock: re.Pattern[str]
    minus: str
    keep_apostrophes: bool
    unit_words: frozenset[str] = frozenset()
    label_words: frozenset[str] = frozenset()
    decimal_currencies: frozenset[str] = frozenset()
    currency_words: frozenset[str] = frozenset()
    hour_word: str = ""
    spoken_digits: Mapping[re.Pattern[str], str] = field(default_factory=dict)
    _phrases: re.Pattern[str] = field(init=False)
    _glued: re.Pattern[str] = field(init=False)
    _units: re.Pattern[str] = field(init=False)
    _currency: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        rules = self.numbers.rules
        large = {word for words in rules.large.values() for word in words}
        scales = [*large, *rules.thousand, *(key for key, spoken in self.phrases.items() if spoken in large)]
        strict = [unit for unit in self.units if self._is_strict(unit)]
        loose = _alternatives(unit for unit in self.units if not self._is_strict(unit))
        glued = _alternatives(key for key in self.phrases if key[0].isalpha())
        names = [sign for sign in self.currencies if sign[0].isalpha() and sign[-1] != "$"]
        codes = _alternatives(name for name in names if name not in self.currency_words)
        symbols = _alternatives(sign for sign in self.currencies if not sign[0].isalpha() or sign[-1] == "$")
        scale = rf"(?:\s*(?P<scale>{_alternatives(scales)})(?!\w))?"
        other_scale = scale.replace("P<scale>", "P<other_scale>")
        before = rf"(?:(?<!\w)(?P<code>{codes})\.?|(?P<symbol>{symbols}))\s?(?P<minus>[-−–]?)(?P<amount>{_AMOUNT})"
        after = rf"\s?(?:(?P<after>{_alternatives(names)})(?![\w']|-\w)\.?|(?P<behind>{symbols}))"
        whole = "(?:,[-−–]+)?"  # "20,-"
        patterns = {
            "_phrases": rf"(?<![\w.'])(?:{_alternatives(self.phrases)})(?!\w)",
            "_glued": rf"(?<=\d)(?=(?i:{glued})(?!\w))",
            "_units": rf"(?<![\w.,])(\d+(?:[.,:]\d+)*|[¼½¾])\s?((?i:{loose})|{_alternatives(strict)})(?![\w'-]|\.\w)\.?",
            "_currency": rf"(?:(?<![\w)])(?P<sign>[-−–]))?"
            rf"(?:(?P<other>{_AMOUNT}){whole}{other_scale}{after}|{before}{whole}{scale})",
        }
        for name, pattern in patterns.items():
            object.__setattr__(self, name, re.compile(pattern))

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text).translate(APOSTROPHES)
        text = re.sub(r"[^\D0-9]", lambda m: str(unicodedata.digit(m.group())), text)
        text = _DEGREES.sub(" °", text)
        text = _RANGE.sub(" ", self._glued.sub(" ", collapse_thousands(text)))
        text = self.clock.sub(self._spell_clock, text)
        text = self.ordinal.sub(lambda m: f" {self.numbers.ordinal_to_words(m.group(1))} ", text)
        text = self._units.sub(self._spell_unit, text)
        text = unicodedata.normalize("NFC", text.lower())
        text = self._currency.sub(self._spell_currency, text)
        text = self._phrases.sub(lambda m: f" {self.phrases[m.group()]} ", text)
        text = _INITIALISM.sub(lambda m: m.group().replace(".", "") + " ", text)
        for sign, spoken in self.signs.items():
            text = text.replace(sign, f" {spoken} ")
        text = self._spell_digits(text)
        text = _HYPHEN.sub("", text)
        text = "".join(c if _is_word_character(c) else " " for c in text)
        words = [self.words.get(word, word) for word in self._strip_apostrophes(text.split())]
        return squeeze(" ".join(self.numbers.respell(" ".join(words).split())))

    def _is_strict(self, unit: str) -> bool:
        return len(unit) == 1 or unit in self.unit_words

    def _spell_unit(self, match: re.Match[str]) -> str:
        amount, unit = match.groups()
        if self._is_strict(unit):
            before = _LAST_WORD.search(match.string[: match.start()])
            year = unit in self.unit_words and re.fullmatch(r"[12]\d{3}", amount)
            if year or (before and before.group(1).lower() in self.label_words):
                return match.group()
        return f"{amount} {_form(self.units[unit.lower()], amount)} "

    def _spell_clock(self, match: re.Match[str]) -> str:
        """Hour and minutes of a clock time apart; full hours without minutes."""
        minutes = "" if match["minutes"] == "00" else match["minutes"]
        return " ".join(part for part in (str(int(match["hour"])), self.hour_word, minutes) if part)

    def _spell_currency(self, match: re.Match[str]) -> str:
        """ "€ 2,50" and "2,50 €" as "2 euro 50", "-€ 2,5 miljoen" as "min 2,5 miljoen euro"."""
        found = match.groupdict()
        sign = found["code"] or found["symbol"] or found["after"] or found["behind"]
        amount, scale = found["amount"] or found["other"], found["scale"] or found["other_scale"] or ""
        whole, cents = _CENTS.fullmatch(amount).groups()  # type: ignore[union-attr]
        minus = self.minus if found["sign"] or found["minus"] else ""
        if scale or (sign in self.decimal_currencies and cents != "00"):
            whole, cents = amount, None
        cents = "" if cents in (None, "00") else cents
        one = whole if not scale and not cents else ""
        return f" {minus} {whole} {scale} {_form(self.currencies[sign], one)} {cents} "

    def _spell_digits(self, text: str) -> str:
        numbers = self.numbers
        text = _MINUS.sub(f" {self.minus} ", text)
        for pattern, spoken in self.spoken_digits.items():
            text = pattern.sub(f" {spoken} ", text)
        text = _DECIMAL.sub(lambda m: f" {numbers.decimal_to_words(m.group(1), m.group(2) or m.group(3))} ", text)
        text = _DIGITS_AND_ENDING.sub(lambda m: f" {numbers.digits_to_words(m.group(1))}{m.group(2)}", text)
        return re.sub(r"\d+", lambda m: f" {numbers.digits_to_words(m.group())} ", text)

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


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or "(?!)"


def _form(spoken: str, amount: str) -> str:
    """The word after this amount."""
    one, _, many = spoken.partition("|")
    return many if many and amount != "1" else one


def _is_word_character(character: str) -> bool:
    """Letters, their marks and digits of any script, and what this Python does not know yet; not enclosing marks."""
    category = unicodedata.category(character)
    return character == "'" or (category[0] in "LMN" and category != "Me") or category in ("Co", "Cn")
