"""Each normaliser's table of examples, and the properties that all share."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import UserError
from trainers.evaluation.normalizers import (
    get_normalizer,
    normalizer_for_language,
    normalizer_names,
    register_normalizer,
)
from trainers.evaluation.normalizers.english import english_normalizer
from trainers.evaluation.normalizers.english_spelling import british_to_american, load_spelling

EXAMPLES = {
    "en": [
        ("It's twenty-one pounds fifty.", "it is £21 50"),
        ("Twenty one dogs won't colour the theatre", "21 dogs will not color the theater"),
        ("The 2nd and the second", "the 2nd and the 2nd"),
        ("Mr. Brown paid $20 million, uh, in 1995", "mister brown paid $20000000 in 1995"),
        ("[noise] analysed (laughs) the catalogue", "analyzed the catalog"),
        ("To be continued...", "to be continued"),
    ],
    "nl": [
        ("In 1995 kostte het € 2.500,50.", "in negentienhonderdvijfennegentig kostte het tweeduizend vijfhonderd euro vijftig"),
        ("twee en twintig, tweeentwintig, tweeëntwintig, 22", "tweeëntwintig tweeëntwintig tweeëntwintig tweeëntwintig"),
        ("tweeduizend en vijf", "tweeduizend vijf"),
        ("twee duizend vijf", "tweeduizend vijf"),
        ("2005", "tweeduizend vijf"),
        ("honderd en een, 101, honderdéén", "honderdeen honderdeen honderdeen"),
        ("negentienhonderd vijf en negentig", "negentienhonderdvijfennegentig"),
        ("een half miljoen", "een half miljoen"),
        ("een miljoen tweehonderdduizend vijf", "een miljoen tweehonderdduizend vijf"),
        ("3,5 miljoen of 3,14", "drie komma vijf miljoen of drie komma veertien"),
        ("1.000.000", "een miljoen"),
        ("de 1e, 3de, 8ste, 20ste en 101ste keer", "de eerste derde achtste twintigste en honderdeerste keer"),
        ("een en twintigste", "eenentwintigste"),
        ("een 19-jarige van 60plus", "een negentienjarige van zestigplus"),
        ("06-12345678", "nul zes een twee drie vier vijf zes zeven acht"),
        ("100% bij -5 graden, 5 km", "honderd procent bij min vijf graden vijf kilometer"),
        ("10-12 mensen om 10:30", "tien twaalf mensen om tien dertig"),
        ("Eén voor één, vóór het café", "een voor een voor het café"),
        ("coördinatie, reünie", "coördinatie reünie"),
        ("'s Ochtends en s avonds, ’s-Gravenhage", "'s ochtends en 's avonds 's gravenhage"),
        ("zo'n huis, zo 'n auto", "zo'n huis zo'n auto"),
        ("'t Is z'n fiets en 'n bel", "het is zijn fiets en een bel"),
        ("foto's en collega’s", "foto's en collega's"),
        ("Hij zei: 'hallo'", "hij zei hallo"),
        ("auto-ongeluk, e-mail, in- en uitvoer", "autoongeluk email in en uitvoer"),
        ("d.w.z. o.a. dhr. Jansen, bijv. t/m 3", "dat wil zeggen onder andere de heer jansen bijvoorbeeld tot en met drie"),
        ("de N.S. en het A4-papier", "de ns en het a vier papier"),
        ("acht mensen namen het in acht", "acht mensen namen het in acht"),
    ],
    "da": [
        ("I 1995 kostede det 2.500,50 kr.", "i nitten hundrede og femoghalvfems kostede det to tusind fem hundrede komma halvtreds kroner"),
        ("en og tyve, enogtyve, 21", "enogtyve enogtyve enogtyve"),
        ("60, tres, tresindstyve, treds", "tres tres tres tres"),
        ("65 mænd og 67. gang", "femogtres mænd og syvogtresindstyvende gang"),
        ("fem og halvtredsindstyve", "femoghalvtreds"),
        ("tredve, fyrretyve", "tredive fyrre"),
        ("to hundrede femoghalvfems, 295", "to hundrede og femoghalvfems to hundrede og femoghalvfems"),
        ("totusinde og fem", "to tusind og fem"),
        ("et tusind, tusinde, 1000", "tusind tusind tusind"),
        ("nitten hundrede femoghalvfems", "nitten hundrede og femoghalvfems"),
        ("tre millioner to hundrede tusind", "tre millioner to hundrede tusind"),
        ("3,14 og 1.000.000", "tre komma fjorten og en million"),
        ("den 3. maj og den 21. december", "den tredje maj og den enogtyvende december"),
        ("den 30. juni, den en og tyvende", "den tredivte juni den enogtyvende"),
        ("kl. 10.30", "klokken ti tredive"),
        ("en mand, én mand, et hus, ét hus", "en mand en mand et hus et hus"),
        ("Aarhus, Århus, paa Ærø", "århus århus på ærø"),
        ("A\u030arhus", "århus"),
        ("tv-avis, e-mail, ind- og udland", "tvavis email ind og udland"),
        ("cd'en, ta' det, Lars' hund", "cden ta det lars hund"),
        ("90'erne og en 19-årig", "halvfemserne og en nittenårig"),
        ("f.eks. bl.a. hr. Hansen osv.", "for eksempel blandt andet herr hansen og så videre"),
        ("5 %, 5 pct., -5 grader, 5 km", "fem procent fem procent minus fem grader fem kilometer"),
        ("12345678", "en to tre fire fem seks syv otte"),
        ("én café på Møllevej", "en café på møllevej"),
    ],
    "basic": [
        ("Hello, WORLD! Ça va?", "hello world ça va"),
        ("it's [noise] e-mail", "it s e mail"),
    ],
    "paper": [
        ("Hello, World! It's zo’n e-mail.", "hello world it's zo'n email"),
        ("Wait—what… yes/no (21)", "wait what yes no 21"),
    ],
    "none": [("  Hello,   World! ", "Hello, World!")],
}  # fmt: skip
NAMES = sorted(EXAMPLES)

# Text that reaches the rules: digits, signs, apostrophes, hyphens and number words, next to arbitrary characters.
FRAGMENTS = st.sampled_from(
    [
        "een",
        "één",
        "twee",
        "en",
        "twintig",
        "honderd",
        "duizend",
        "miljoen",
        "'s",
        "zo'n",
        "z'n",
        "og",
        "hundrede",
        "tusind",
        "tyve",
        "halvtreds",
        "million",
        "minus",
        "two",
        "point",
        "hundred",
        "double",
        "minus",
        "1",
        "10",
        "100",
        "1.000",
        "2,50",
        "3.",
        "4e",
        "5ste",
        "'90",
        "-5",
        "€",
        "$20",
        "%",
        "d.w.z.",
        "f.eks.",
        "A4",
        "e-mail",
        "½",
        "aa",
        "Å",
        "ü",
    ]
)
TEXT = st.lists(st.one_of(FRAGMENTS, st.text(max_size=6)), max_size=8).map(" ".join)


@pytest.mark.parametrize(("name", "text", "expected"), [(n, t, e) for n in NAMES for t, e in EXAMPLES[n]])
def test_example(name: str, text: str, expected: str) -> None:
    assert get_normalizer(name)(text) == expected


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300)
@given(text=TEXT)
def test_idempotent(name: str, text: str) -> None:
    normalize = get_normalizer(name)
    once = normalize(text)
    assert normalize(once) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize("name", ["nl", "da", "paper"])
@given(text=TEXT)
def test_unicode_form_and_case_do_not_matter(name: str, text: str) -> None:
    normalize = get_normalizer(name)
    assert normalize(unicodedata.normalize("NFD", text)) == normalize(unicodedata.normalize("NFC", text))


def test_diacritics_stay() -> None:
    assert get_normalizer("nl")("café coördinatie reünie") == "café coördinatie reünie"
    assert get_normalizer("da")("rødgrød æble å") == "rødgrød æble å"


def test_every_name_is_in_the_tables() -> None:
    assert set(EXAMPLES) <= set(normalizer_names())


@pytest.mark.parametrize(
    ("language", "name"),
    [("nl", "nl"), ("NL-be", "nl"), ("dutch", "nl"), ("da_DK", "da"), ("en", "en"), ("fy", "basic"), (None, "basic")],
)
def test_language_chooses(language: str | None, name: str) -> None:
    assert normalizer_for_language(language) == name


def test_unknown_name_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"'papre'.*Did you mean 'paper'"):
        get_normalizer("papre")


def test_register_a_normalizer() -> None:
    register_normalizer("test-swedish", lambda: str.casefold, description="a test", languages=("x-test",))
    assert normalizer_for_language("x-test") == "test-swedish"
    assert get_normalizer("test-swedish")("HEJ") == "hej"


def test_spelling_list(tmp_path: Path) -> None:
    table = british_to_american()
    assert (table["colour"], table["organised"], table["travelling"], table["centre"]) == (
        "color", "organized", "traveling", "center",
    )  # fmt: skip
    assert not set(table.values()) & set(table)
    path = tmp_path / "normalizer.json"
    path.write_text(json.dumps({"foo": "bar"}))
    assert english_normalizer(load_spelling(path))("A foo, a colour") == "a bar a colour"
    with pytest.raises(UserError, match="cannot be read"):
        load_spelling(tmp_path / "missing.json")
    path.write_text("[1]")
    with pytest.raises(UserError, match="must be one JSON object"):
        load_spelling(path)
