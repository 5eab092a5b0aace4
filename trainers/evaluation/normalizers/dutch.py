"""Dutch text normalisation for scoring: spoken words, one spelling each.

Numbers, ordinals and usual abbreviations are spelled out, clitics ('t, 'n, z'n) become full words, hyphens inside words
are joined, stress accents ("één", "vóór") go and other diacritics stay.
"""

import functools
import re

from num2words import num2words

from trainers.data.text import APOSTROPHES
from trainers.evaluation.normalizers.language import Language
from trainers.evaluation.normalizers.numbers import NumberRules, NumberWords
from trainers.evaluation.normalizers.spoken_form import SpokenForm

_PHRASES = {
    "a.u.b.": "alstublieft", "bijv.": "bijvoorbeeld", "bv.": "bijvoorbeeld", "blz.": "bladzijde", "ca.": "circa",
    "dhr.": "de heer", "d.m.v.": "door middel van", "drs.": "doctorandus", "d.w.z.": "dat wil zeggen",
    "e.d.": "en dergelijke", "enz.": "enzovoort", "etc.": "et cetera", "excl.": "exclusief", "incl.": "inclusief",
    "i.p.v.": "in plaats van", "i.v.m.": "in verband met", "jl.": "jongstleden", "m.a.w.": "met andere woorden",
    "m.b.t.": "met betrekking tot", "mevr.": "mevrouw", "mw.": "mevrouw", "mln.": "miljoen", "mld.": "miljard",
    "n.a.v.": "naar aanleiding van", "nr.": "nummer", "o.a.": "onder andere", "o.l.v.": "onder leiding van",
    "prof.": "professor", "s.v.p.": "alstublieft", "t.a.v.": "ten aanzien van", "t.o.v.": "ten opzichte van",
    "t/m": "tot en met", "z.s.m.": "zo snel mogelijk", "zo 'n": "zo'n",
    "bijv": "bijvoorbeeld", "dhr": "de heer", "dwz": "dat wil zeggen", "enz": "enzovoort", "mevr": "mevrouw",
    "mln": "miljoen", "mld": "miljard", "nr": "nummer", "½": "een half",
}  # fmt: skip
_UNITS = {
    "km/u": "kilometer per uur", "km/uur": "kilometer per uur", "km/h": "kilometer per uur", "m/s": "meter per seconde",
    "km": "kilometer", "m": "meter", "dm": "decimeter",
    "cm": "centimeter", "mm": "millimeter", "km²": "vierkante kilometer", "km2": "vierkante kilometer",
    "m²": "vierkante meter", "m2": "vierkante meter", "m³": "kubieke meter", "m3": "kubieke meter", "kg": "kilo",
    "g": "gram", "mg": "milligram", "l": "liter", "dl": "deciliter", "cl": "centiliter", "ml": "milliliter",
    "°c": "graden celsius", "°f": "graden fahrenheit", "kwh": "kilowattuur", "u": "uur", "min": "minuut|minuten", "sec": "seconde|seconden",
}  # fmt: skip
_SIGNS = {"%": "procent", "‰": "promille", "&": "en", "°": "graden", "§": "paragraaf", "+": "plus", "×": "keer"}
_CURRENCIES = {
    "€": "euro", "eur": "euro", "euro": "euro", "dollar": "dollar", "$": "dollar", "us$": "dollar", "usd": "dollar", "£": "pond", "gbp": "pond",
    "¥": "yen",
}  # fmt: skip
# "maat 40 l": a number and a letter after these are a name.
_LABELS = frozenset({
    "maat", "artikel", "art", "lid", "type", "klas", "klasse", "groep", "model", "versie", "nummer", "nr",
    "huisnummer", "lijn", "bus", "spoor", "perron", "kamer",
})  # fmt: skip
_WORDS = {
    "'t": "het", "'n": "een", "'k": "ik", "'m": "hem", "m'n": "mijn", "z'n": "zijn", "'s": "'s", "één": "een",
    "éen": "een", "eén": "een", "dé": "de", "hét": "het", "vóór": "voor", "wél": "wel", "níet": "niet", "nóg": "nog", "dát": "dat",
    "dít": "dit", "zó": "zo", "kilogram": "kilo", "svp": "alstublieft", "aub": "alstublieft",
}  # fmt: skip
_GENITIVE = re.compile(r"(?<![\w'])'s-", re.IGNORECASE)
_DAY_PARTS = re.compile(r"(?<![\w'])s(?=[ -](?:morgens|ochtends|middags|avonds|nachts|zomers|winters|anderendaags)\b)")
# "10:30", "10u30" and, before "uur" or the later time of a span that ends in it, "10.30"; the "uur" goes along.
_HOUR = r"\s?(?:uur|u)(?![\w'-])"
_CLOCK = re.compile(
    r"(?i)(?<![\w.,:])(?P<hour>[01]?\d|2[0-4])(?:(?P<stop>\.)|[:uh])(?P<minutes>[0-5]\d)"
    rf"(?:{_HOUR}|(?(stop)(?=(?: (?:tot|en|of))? \d\d?[.:]\d\d{_HOUR})|(?!\w|:|[.,]\d|\s?(?:min|sec))))"
)
_ORDINALS = {1: "eerste", 3: "derde", 8: "achtste"}


def _cardinal(value: int) -> str:
    """Below a million, by the official spelling: a space after "duizend", everything else in one word."""
    if 1100 <= value < 2000:
        hundreds, rest = divmod(value, 100)
        return _word(hundreds) + "honderd" + (_word(rest) if rest else "")
    thousands, rest = divmod(value, 1000)
    head = "" if not thousands else (_below_1000(thousands) if thousands > 1 else "") + "duizend"
    return " ".join(part for part in (head, _below_1000(rest) if rest or not head else "") if part)


def _below_1000(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    head = "" if not hundreds else (_word(hundreds) if hundreds > 1 else "") + "honderd"
    return head + (_word(rest) if rest or not head else "")


def _word(value: int) -> str:
    return "een" if value == 1 else num2words(value, lang="nl")


def _ordinal(value: int) -> str | None:
    cardinal = _cardinal(value)
    last = value % 100
    if last in _ORDINALS:
        return cardinal.removesuffix(_word(last)) + _ORDINALS[last]
    return cardinal + ("de" if 0 < last < 20 else "ste") if value else None


@functools.cache
def dutch_numbers() -> NumberWords:
    """Dutch number words."""
    rules = NumberRules(
        below_100=_word,
        link="en",
        hundred=("honderd",),
        thousand=("duizend",),
        large={10**6: ("miljoen", "miljoen"), 10**9: ("miljard", "miljard")},
        spell=_cardinal,
        ordinal=_ordinal,
        comma="komma",
    )
    return NumberWords(rules)


@functools.cache
def _spoken_form() -> SpokenForm:
    return SpokenForm(
        numbers=dutch_numbers(),
        phrases=_PHRASES,
        units=_UNITS,
        unit_words=frozenset({"min", "u"}),
        label_words=_LABELS,
        signs=_SIGNS,
        currencies=_CURRENCIES,
        currency_words=frozenset({"euro", "dollar"}),
        words=_WORDS,
        ordinal=re.compile(r"(?<![\w.,])(\d+)(?:e|de|ste)(?!\w)", re.IGNORECASE),
        clock=_CLOCK,
        hour_word="uur",
        minus="min",
        keep_apostrophes=True,
    )


def dutch(text: str) -> str:
    """One pass of the Dutch normaliser; `get_normalizer("nl")` repeats it until nothing changes."""
    return _spoken_form()(_DAY_PARTS.sub("'s", _GENITIVE.sub("'s ", text.translate(APOSTROPHES))))


LANGUAGE = Language(
    codes=("nl", "nld", "dut", "vls"),
    names=("nederlands", "flemish", "vlaams"),
    description="Dutch: numbers to words, clitics and abbreviations spelled out, hyphens joined",
    normalizer=lambda: dutch,
    numbers=dutch_numbers,
    compounds=True,
)
