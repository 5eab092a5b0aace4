"""Danish text normalisation for scoring: spoken words, one spelling each.

Numbers, ordinals and usual abbreviations are spelled out, "aa" counts as "å", hyphens and apostrophes inside words are
joined, other diacritics stay.
"""

import functools
import re

from num2words import num2words

from trainers.evaluation.normalizers.language import Language
from trainers.evaluation.normalizers.numbers import NumberRules, NumberWords
from trainers.evaluation.normalizers.spoken_form import SpokenForm

_PHRASES = {
    "adr.": "adresse", "bl.a.": "blandt andet", "ca.": "cirka", "dr.": "doktor", "d.v.s.": "det vil sige",
    "dvs.": "det vil sige", "ekskl.": "eksklusive", "etc.": "et cetera", "evt.": "eventuelt", "f.eks.": "for eksempel",
    "fx": "for eksempel", "hhv.": "henholdsvis", "hr.": "herr", "inkl.": "inklusive", "jf.": "jævnfør",
    "kl.": "klokken", "kr.": "kroner", "m.fl.": "med flere", "m.h.t.": "med hensyn til", "mht.": "med hensyn til",
    "mia.": "milliarder", "mio.": "millioner", "m.m.": "med mere", "m.v.": "med videre", "mv.": "med videre",
    "nr.": "nummer", "osv.": "og så videre", "pct.": "procent", "pga.": "på grund af", "p.g.a.": "på grund af",
    "prof.": "professor", "tlf.": "telefon", "vedr.": "vedrørende", "bla.": "blandt andet",
    "ca": "cirka", "dr": "doktor", "dvs": "det vil sige", "evt": "eventuelt", "f eks": "for eksempel", "hr": "herr",
    "kl": "klokken", "kr": "kroner", "mht": "med hensyn til", "mia": "milliarder", "mio": "millioner", "nr": "nummer",
    "osv": "og så videre", "pct": "procent", "pga": "på grund af", "½": "en halv",
}  # fmt: skip
_UNITS = {
    "km/t": "kilometer i timen", "km/h": "kilometer i timen", "m/s": "meter i sekundet", "km": "kilometer", "m": "meter",
    "dm": "decimeter", "cm": "centimeter", "mm": "millimeter", "km²": "kvadratkilometer", "km2": "kvadratkilometer", "m²": "kvadratmeter", "m2": "kvadratmeter",
    "m³": "kubikmeter", "m3": "kubikmeter", "kg": "kilo", "g": "gram", "mg": "milligram", "l": "liter",
    "dl": "deciliter", "cl": "centiliter", "ml": "milliliter", "°c": "grader celsius",
    "°f": "grader fahrenheit", "kwh": "kilowatttimer",
    "min": "minut|minutter", "sek": "sekund|sekunder",
}  # fmt: skip
_SIGNS = {"%": "procent", "‰": "promille", "&": "og", "°": "grader", "§": "paragraf", "+": "plus", "×": "gange"}
_CURRENCIES = {
    "€": "euro", "eur": "euro", "$": "dollar", "us$": "dollar", "usd": "dollar", "£": "pund", "gbp": "pund", "¥": "yen",
    "kr": "krone|kroner", "dkk": "krone|kroner",
}  # fmt: skip
# "størrelse 40 l": a number and a letter after these are a name.
_LABELS = frozenset({
    "størrelse", "str", "type", "klasse", "model", "version", "nummer", "nr", "paragraf", "stk", "afsnit",
    "linje", "bus", "spor", "gate", "sal", "lokale",
})  # fmt: skip
_WORDS = {
    "én": "en", "ét": "et", "kilogram": "kilo", "hundred": "hundrede", "tusinde": "tusind",
}  # fmt: skip
# "1 år" is "et år". A word that stands for the number itself stays as it was said.
_NEUTER = (
    "år", "års", "årti", "århundrede", "halvår", "kvartal", "kvarter", "døgn", "minut", "sekund", "gram", "kilo", "kilogram",
    "milligram", "ton", "pund", "point", "procentpoint", "mål", "sæt", "barn", "hus", "menneske", "medlem", "land", "sted",
    "stykke", "glas", "job", "dyr", "ord", "spørgsmål", "forsøg", "tilfælde", "dødsfald", "mandat", "værelse",
)  # fmt: skip
_NEUTER_ONE = re.compile(
    rf"(?<![\w.,])1(?=\s+(?:{'|'.join(_NEUTER)})(?!\w))|(?:(?<=klokken )|(?<=klokken  ))1(?!\d|[.,]\d)"
)
_TENS = {
    20: "tyvende", 30: "tredivte", 40: "fyrretyvende", 50: "halvtredsindstyvende", 60: "tresindstyvende",
    70: "halvfjerdsindstyvende", 80: "firsindstyvende", 90: "halvfemsindstyvende",
}  # fmt: skip


_LOWER = "[a-zæøåéäöü]"
# The full stop of an ordinal stands before a word in lower case ("den 25. december", "3.b", "1.-3. maj"); before a
# capital it ends a sentence. A number that follows a label is no ordinal ("kl. 9. så").
_ORDINAL_MARK = re.compile(
    rf"(?<![\w.,])(?<!kl\. )(?<!klokken )(?<!side )(?<!s\. )(\d+)\.(?=\s*{_LOWER}|\s?[-–]\s?\d+\.\s*{_LOWER})"
)
_DATE = re.compile(r"(?i)(?<![\w.])d\.\s?(?=\d)")
# Numbers as nouns: "tyve" + "erne" is "tyverne", "tres" + "er" is "tresser"; Femern is an island.
_NOUNS = {
    re.compile("(fir|ott|ellev|tyv|trediv|fyrr|hundred)eer"): r"\1er",
    re.compile(r"\b(\w+og)?tredver"): r"\1trediver",
    re.compile(r"\b(\w+og)?treser"): r"\1tresser",
    re.compile(r"\b(\w+og)?femer(?!n(?!e))"): r"\1femmer",
}
_CLOCK = re.compile(
    r"(?i)(?:(?<=kl )|(?<=kl\.)|(?<=kl\. )|(?<=klokken ))(?P<hour>[01]?\d|2[0-4])[.:](?P<minutes>[0-5]\d)(?!\d|[.,:]\d)"
)


def _cardinal(value: int) -> str:
    """Below a million: "hundrede og enogtyve", "to tusind og fem", "nitten hundrede og femoghalvfems"."""
    hundreds_first = 1100 <= value < 2000
    thousands = 0 if hundreds_first else value // 1000
    hundreds, rest = divmod(value - 1000 * thousands, 100)
    words = []
    if thousands:
        words += [*([_cardinal(thousands)] if thousands > 1 else []), "tusind"]
    if hundreds:
        words += [*([_word(hundreds)] if hundreds > 1 else []), "hundrede"]
    if rest or not words:
        words += [*(["og"] if words else []), _word(rest)]
    return " ".join(words)


def _word(value: int) -> str:
    """Below 100. num2words writes "treds" for 60."""
    return "en" if value == 1 else re.sub("(?<!halv)treds", "tres", num2words(value, lang="da"))


def _variants() -> dict[str, int]:
    """The long and older spellings, and "et" for 1."""
    tens = [(30, "tredve"), (40, "fyrretyve"), (60, "treds")]
    tens += [(ten, _word(ten) + "indstyve") for ten in (50, 60, 70, 80, 90)]
    table = {"et": 1}
    for ten, word in tens:
        table |= {(f"{_word(ones)}og" if ones else "") + word: ten + ones for ones in range(10)}
    return table


def _ordinal(value: int) -> str | None:
    """The ordinals 1 to 99; above them Danish says the cardinal."""
    tens, ones = divmod(value, 10)
    if not 0 < value < 100:
        return None
    if value < 20:
        return num2words(value, lang="da", to="ordinal")
    return (f"{_word(ones)}og" if ones else "") + _TENS[10 * tens]


@functools.cache
def danish_numbers() -> NumberWords:
    """Danish number words."""
    rules = NumberRules(
        below_100=_word,
        link="og",
        hundred=("hundrede", "hundred"),
        thousand=("tusinde", "tusind"),
        large={10**6: ("million", "millioner"), 10**9: ("milliard", "milliarder")},
        spell=_cardinal,
        ordinal=_ordinal,
        comma="komma",
        variants=_variants(),
    )
    return NumberWords(rules)


@functools.cache
def _spoken_form() -> SpokenForm:
    return SpokenForm(
        numbers=danish_numbers(),
        phrases=_PHRASES,
        units=_UNITS,
        unit_words=frozenset({"min"}),
        label_words=_LABELS,
        signs=_SIGNS,
        currencies=_CURRENCIES,
        decimal_currencies=frozenset({"kr", "dkk"}),
        spoken_digits={_NEUTER_ONE: "et"},
        words=_WORDS,
        ordinal=_ORDINAL_MARK,
        clock=_CLOCK,
        minus="minus",
        keep_apostrophes=False,
    )


def danish(text: str) -> str:
    """One pass of the Danish normaliser; `get_normalizer("da")` repeats it until nothing changes."""
    text = _spoken_form()(_DATE.sub("den ", text)).replace("aa", "å")
    for pattern, noun in _NOUNS.items():
        text = pattern.sub(noun, text)
    return text


LANGUAGE = Language(
    codes=("da", "dan"),
    names=("dansk",),
    description="Danish: numbers to words, aa = å, abbreviations spelled out, hyphens joined",
    normalizer=lambda: danish,
    numbers=danish_numbers,
    compounds=True,
)
