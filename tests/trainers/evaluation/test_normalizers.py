"""Each normaliser's table of examples, and the properties that all share."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.text import clean_characters, normalize_transcript
from trainers.errors import UserError
from trainers.evaluation.normalizers import (
    find_language,
    get_normalizer,
    language_code,
    normalizer_for_language,
    normalizer_names,
    register_normalizer,
)
from trainers.evaluation.normalizers.english import english_normalizer
from trainers.evaluation.normalizers.english_spelling import british_to_american, load_spelling
from trainers.evaluation.normalizers.registry import LANGUAGE_FILES
from trainers.evaluation.word_classes import compound_test, numeral_test

EXAMPLES = {
    "en": [
        ("It's twenty-one pounds fifty.", "it is £21 50"),
        ("Twenty one dogs won't colour the theatre", "21 dogs will not color the theater"),
        ("The 2nd and the second", "the 2nd and the 2nd"),
        ("I don’t know, it’s his", "i do not know it is his"),
        ("Mr. Brown paid $20 million, uh, in 1995", "mister brown paid $20000000 in 1995"),
        ("[noise] analysed (laughs) the catalogue", "analyzed the catalog"),
        ("To be continued...", "to be continued"),
        ("10 000 people, 10\u00a0000 people", "10000 people 10000 people"),
        ("US$ 5, $ 5 and 5 $", "$5 $5 and $5"),
        ("€ 2.5 million", "€2500000"),
        ("50 % and co\u00adffee", "50% and coffee"),
        ("It is -5, −5, minus five or five degrees", "it is minus 5 minus 5 minus 5 or 5 degrees"),
        ("-1, minus one, -$5, minus five dollars, -5% and minus five percent",
         "minus one minus one minus $5 minus $5 minus 5% and minus 5%"),
        ("He scored plus five or +5 and two plus two is 2 + 2", "he scored plus 5 or plus 5 and 2 plus 2 is 2 plus 2"),
        ("Tested positive two days ago, ten minus five", "tested positive 2 days ago 10 minus 5"),
        ("10-15, 1990 -2000, 5%-10%, COVID-19, wait –one day", "10 15 1990 2000 5% 10% covid 19 wait one day"),
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
        ("08.00 uur, 20.00-22.30 uur, 20:00u en 8 uur", "acht uur twintig uur tweeëntwintig uur dertig twintig uur en acht uur"),
        ("1.000.000", "een miljoen"),
        ("de 1e, 3de, 8ste, 20ste en 101ste keer", "de eerste derde achtste twintigste en honderdeerste keer"),
        ("een en twintigste", "eenentwintigste"),
        ("een 19-jarige van 60plus", "een negentienjarige van zestigplus"),
        ("06-12345678", "nul zes een twee drie vier vijf zes zeven acht"),
        ("100% bij -5 graden, 5 km", "honderd procent bij min vijf graden vijf kilometer"),
        ("10-12 mensen om 10:30", "tien twaalf mensen om tien uur dertig"),
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
        ("10\u00a0000, 10\u202f000, 10\u2009000, 10 000 en 10'000", "tienduizend tienduizend tienduizend tienduizend en tienduizend"),
        ("1,000,000 of 2 500 000,5", "een miljoen of twee miljoen vijfhonderdduizend komma vijf"),
        ("€ 2,5 miljoen, €2,5 mln. en 2,5 mld €", "twee komma vijf miljoen euro twee komma vijf miljoen euro en twee komma vijf miljard euro"),
        ("-€ 5, € -5, -5 € en −€5", "min vijf euro min vijf euro min vijf euro en min vijf euro"),
        ("US$ 5, $5, EUR 5 en 5 EUR", "vijf dollar vijf dollar vijf euro en vijf euro"),
        ("€ 5,-, € 5,00, € 10 000 en € 5-10", "vijf euro vijf euro tienduizend euro en vijf euro tien"),
        ("5G, 4K, maat 40 L en maat 40 l", "vijf g vier k maat veertig l en maat veertig l"),
        ("in 2010 m'n vader, 5 m-tje", "in tweeduizend tien mijn vader vijf mtje"),
        ("in 2010 u en 10 u", "in tweeduizend tien u en tien uur"),
        ("5 m, 5 KM, 3 m², 1 sec. en 2 sec.", "vijf meter vijf kilometer drie vierkante meter een seconde en twee seconden"),
        ("wacht...nee, wacht…ja", "wacht nee wacht ja"),
        ("\ufeffkoffie\u00adkop ko\u200bffie ka\0t ĳs ﬁets", "koffiekop koffie kat ijs fiets"),
        ("5 ℃, 20 %, 3 ‰ en § 5", "vijf graden celsius twintig procent drie promille en paragraaf vijf"),
        ("٣ en ５", "drie en vijf"),
        ("-5 °C, −5 km en –5 m", "min vijf graden celsius min vijf kilometer en min vijf meter"),
        ("€ 19,99, 19,99 euro en 19,99 dollar", "negentien euro negenennegentig negentien euro negenennegentig en negentien dollar negenennegentig"),
        ("100,00 euro, -1.250,50 euro en 2,5 miljoen euro",
         "honderd euro min twaalfhonderdvijftig euro vijftig en twee komma vijf miljoen euro"),
        ("de euro 20 jaar later, in euro. 20 man, 5 euro's en 20 euro-biljet",
         "de euro twintig jaar later in euro twintig man vijf euro's en twintig eurobiljet"),
        ("11.35 uur, 11:35, 11u35 en elf uur vijfendertig",
         "elf uur vijfendertig elf uur vijfendertig elf uur vijfendertig en elf uur vijfendertig"),
        ("om 20:00, 20.00 uur en 20u", "om twintig uur twintig uur en twintig uur"),
        ("van 9.30 tot 10.00 uur, van 9:30 tot 10:00", "van negen uur dertig tot tien uur van negen uur dertig tot tien uur"),
        ("2.50 erbij, 10:30 min, 10:30:15 en 2,5 uur", "twee vijftig erbij tien dertig minuten tien dertig vijftien en twee komma vijf uur"),
        ("20° C, 20 ° C, 90 °F en 90° F", "twintig graden celsius twintig graden celsius negentig graden fahrenheit en negentig graden fahrenheit"),
        ("80 km/uur, 80 km/u en 10 m/s", "tachtig kilometer per uur tachtig kilometer per uur en tien meter per seconde"),
        ("5%-10% en 5°-10°", "vijf procent tien procent en vijf graden tien graden"),
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
        ("to tusind enogtyve, to tusinde enogtyve, 2021", "to tusind og enogtyve to tusind og enogtyve to tusind og enogtyve"),
        ("et tusind, tusinde, 1000", "tusind tusind tusind"),
        ("nitten hundrede femoghalvfems", "nitten hundrede og femoghalvfems"),
        ("tre millioner to hundrede tusind", "tre millioner to hundrede tusind"),
        ("3,14 og 1.000.000", "tre komma fjorten og en million"),
        ("den 3. maj og den 21. december", "den tredje maj og den enogtyvende december"),
        ("den 30. juni, den en og tyvende", "den tredivte juni den enogtyvende"),
        ("kl. 10.30", "klokken ti tredive"),
        ("kl. 08.00, kl. 8, Kl 20:00 og klokken 8.05", "klokken otte klokken otte klokken tyve og klokken otte nul fem"),
        ("d. 3. juli og den 3. juli", "den tredje juli og den tredje juli"),
        ("8.00 og kl. 10.000", "otte nul nul og klokken ti tusind"),
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
        ("1\u00a0000\u00a0000 eller 10 000 mennesker", "en million eller ti tusind mennesker"),
        ("20kr., kr. 20, kr.20, 20,- kr. og DKK 20", "tyve kroner tyve kroner tyve kroner tyve kroner og tyve kroner"),
        ("1 kr., 5 mio. kr., 1 mio. kr. og kr. 2,5 mio.", "en krone fem millioner kroner en million kroner og to komma fem millioner kroner"),
        ("-20 kr., -kr. 20 og kr. 20,50", "minus tyve kroner minus tyve kroner og tyve komma halvtreds kroner"),
        ("Han er 25. Hun er 30.", "han er femogtyve hun er tredive"),
        ("kl. 9. Så gik vi, kl. 9. så gik de", "klokken ni så gik vi klokken ni så gik de"),
        ("den 25.december, den 1.-3. maj", "den femogtyvende december den første tredje maj"),
        ("2. verdenskrig, Christian 4. var konge", "anden verdenskrig christian fjerde var konge"),
        ("I 2010 min far, 5 min. og 1 min.", "i to tusind og ti min far fem minutter og et minut"),
        ("5G, 5 l mælk og størrelse 40 L", "fem g fem liter mælk og størrelse fyrre l"),
        ("-5°C og 5.klasse", "minus fem grader celsius og femte klasse"),
        ("vent...nej ka\u00adffe ﬁre", "vent nej kaffe fire"),
        ("20'erne, 30'erne, 40'er og 60'er-stil", "tyverne trediverne fyrrer og tresserstil"),
        ("1960'erne, tredverne, 70'erne og 50'ernes", "nitten hundrede og tresserne trediverne halvfjerdserne og halvtredsernes"),
        ("en 5'er, en 8'er, en 25'er, Femern og adresser", "en femmer en otter en femogtyver femern og adresser"),
        ("1 år, et år, 1 års, 1 min., 1 kg og £1", "et år et år et års et minut et kilo og et pund"),
        ("1 bil, en hus, 21 år, 1,5 år og 0,1 sekund", "en bil en hus enogtyve år en komma fem år og nul komma en sekund"),
        ("kl. 1, klokken 1.30 og klokken et", "klokken et klokken et tredive og klokken et"),
        ("20° C, 20 ° C, 90 °F, 90° F og 20° f.eks.",
         "tyve grader celsius tyve grader celsius halvfems grader fahrenheit halvfems grader fahrenheit og tyve grader for eksempel"),
        ("90 km/h, 90 km/t og 10 m/s", "halvfems kilometer i timen halvfems kilometer i timen og ti meter i sekundet"),
        ("5%-10% og -1 point", "fem procent ti procent og minus et point"),
    ],
    "basic": [
        ("Hello, WORLD! Ça va?", "hello world ça va"),
        ("it's [noise] e-mail", "it s e mail"),
    ],
    "paper": [
        ("Hello, World! It's zo’n e-mail.", "hello world it's zo'n email"),
        ("Wait—what… yes/no (21)", "wait what yes no 21"),
        ("Wait...what,now \ufeffko\u00adﬁ", "wait what now kofi"),
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
        "10:30",
        "uur",
        "euro",
        "20'erne",
        "° C",
        "1 år",
        "4e",
        "5ste",
        "'90",
        "-5",
        "-$5",
        "+5",
        "plus",
        "€",
        "$20",
        "%",
        "d.w.z.",
        "f.eks.",
        "A4",
        "e-mail",
        "10\u00a0000",
        "1 000",
        "US$",
        "kr.",
        "mio.",
        "miljoen",
        "-€",
        "25. december",
        "25. Hun",
        "5 min",
        "g",
        "L",
        "m'n",
        "...",
        "\u00ad",
        "\u200b",
        "ĳ",
        "\0",
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


@pytest.mark.parametrize("name", ["nl", "da"])
@settings(max_examples=100)
@given(before=TEXT, number=st.integers(2, 10**9), after=TEXT)
def test_no_number_is_lost(name: str, before: str, number: int, after: str) -> None:
    """Between two words; numbers side by side are looked at below."""
    words = get_normalizer(name)(f"{before} zz {number} zz {after}")
    spoken = find_language(name).numbers().digits_to_words(str(number))
    assert f" zz {spoken} zz " in f" {words} "
    assert not any(c.isdecimal() for c in words)


@pytest.mark.parametrize(
    ("text", "nl", "da", "en"),
    [
        ("6 123", "zesduizend honderddrieëntwintig", "seks tusind hundrede og treogtyve", "6123"),
        ("6\u202f123", "zesduizend honderddrieëntwintig", "seks tusind hundrede og treogtyve", "6123"),
        ("6 12", "zes twaalf", "seks tolv", "6 12"),
        ("6 123 45", "zeshonderddrieëntwintig vijfenveertig", "seks hundrede og treogtyve femogfyrre", "6 123 45"),
        ("2024 2025", "tweeduizend vierentwintig tweeduizend vijfentwintig",
         "to tusind og fireogtyve to tusind og femogtyve", "2024 2025"),
        ("6, 100", "zeshonderd", "seks hundrede", "6100"),
        ("1000, 200", "twaalfhonderd", "tolv hundrede", "1000 200"),
        ("drie, vier, 5 en 6", "drie vier vijf en zes", "drie vier fem en seks", "drie vier 5 en 6"),
    ],
)  # fmt: skip
def test_numbers_side_by_side(text: str, nl: str, da: str, en: str) -> None:
    """docs/evaluation.md states the rule: three digits behind a space are thousands; words that are one number are one."""
    assert [get_normalizer(name)(text) for name in ("nl", "da", "en")] == [nl, da, en]


@pytest.mark.parametrize("name", ["nl", "da", "paper"])
def test_no_letter_or_digit_of_any_script_is_dropped(name: str) -> None:
    kinds = ("Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No")
    characters = [
        chr(code)
        for code in [*range(0x3100), *range(0x3100, sys.maxunicode, 97)]
        if unicodedata.category(chr(code)) in kinds and clean_characters(chr(code)).strip()
    ]
    kept = f" {get_normalizer(name)(' zz '.join(characters))} ".split(" zz ")
    assert [c for c, word in zip(characters, kept, strict=True) if not word.strip()] == []


@given(text=TEXT)
def test_training_and_scoring_clean_alike(text: str) -> None:
    trained = normalize_transcript(text)
    assert normalize_transcript(trained) == trained
    assert clean_characters(clean_characters(text)) == clean_characters(text)
    assert not any(c in trained for c in "\0\u00ad\u200b\ufeffĳ")


def test_diacritics_stay() -> None:
    assert get_normalizer("nl")("café coördinatie reünie") == "café coördinatie reünie"
    assert get_normalizer("da")("rødgrød æble å") == "rødgrød æble å"


def test_every_name_is_in_the_tables() -> None:
    assert set(EXAMPLES) <= set(normalizer_names())


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("nl", "nl"),
        ("NL-be", "nl"),
        ("dutch", "nl"),
        ("da_DK", "da"),
        ("en", "en"),
        ("fy", "basic"),
        (None, "basic"),
        ("nld", "nl"),
        ("dan", "da"),
        ("eng", "en"),
        ("Danish", "da"),
        ("Nederlands", "nl"),
        ("dansk", "da"),
        (" ", "basic"),
        ("German", "basic"),
    ],
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


def test_a_language_without_a_normalizer_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert normalizer_for_language("tlh") == "basic"
    assert "no normalizer for the language 'tlh'" in caplog.text and "da, nl, en" in caplog.text
    caplog.clear()
    assert [normalizer_for_language(None), normalizer_for_language("nld")] == ["basic", "nl"]
    assert not caplog.text


def test_codes_and_names_of_languages() -> None:
    assert [language_code(x) for x in ("da_DK", "DAN", "Danish", "German", "tlh", "", None)] == [
        "da", "da", "da", "de", "tlh", None, None
    ]  # fmt: skip
    assert get_normalizer("Dutch") is get_normalizer("nld") is get_normalizer("nl")


def test_a_language_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokipona.py").write_text(
        "from trainers.evaluation.normalizers import Language\n"
        "LANGUAGE = Language(codes=('tp', 'tok'), description='Toki Pona', names=('toki pona',),\n"
        "                    normalizer=lambda: str.lower, compounds=True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LANGUAGE_FILES, "tp", "tokipona")
    assert [normalizer_for_language(x) for x in ("tp", "tok", "tokipona", "Toki Pona", "tp-XX")] == ["tp"] * 5
    assert get_normalizer("tok")("JAN \u00adPONA") == "jan pona"
    assert "tp" in normalizer_names()
    assert compound_test("tok", ["jan", "pona"])("janpona")
    assert numeral_test("tp")("5") and not numeral_test("tp")("tu")


def test_a_file_decides_on_compounds_of_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compound_test("sv", ["barn", "bok"])("barnbok"), "Swedish has no file"
    (tmp_path / "own_swedish.py").write_text(
        "from trainers.evaluation.normalizers import Language\n"
        "LANGUAGE = Language(codes=('sv',), description='Swedish', normalizer=lambda: str.lower)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LANGUAGE_FILES, "sv", "own_swedish")
    assert not compound_test("sv", ["barn", "bok"])("barnbok")


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
