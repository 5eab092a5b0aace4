"""The training form of transcripts."""

import pytest

from trainers.data.text import normalize_transcript


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("Don’t  stop…", "don't stop"),
        ("Een kat – of twee?", "een kat of twee"),
        ("twenty-one/two", "twenty one two"),
        ("Rødgrød\tmed\nfløde.", "rødgrød med fløde"),
        ("Cafe\u0301", "café"),
        ("„Zo’n dag” zei hij; 's avonds", "zo'n dag zei hij 's avonds"),
        ("...", ""),
        ("wacht...nee, wacht…ja,nee 3,5", "wacht nee wacht ja nee 35"),
        ("\ufeffka\u00adffe ko\u200bffie a\0b ĳs ﬁre ＡＢ１", "kaffe koffie ab ijs fire ab1"),
        ("می\u200cخواهم กำ", "می\u200cخواهم กำ"),
    ],
)
def test_the_papers_form(raw: str, expected: str) -> None:
    assert normalize_transcript(raw) == expected


def test_options() -> None:
    assert normalize_transcript("Hi, You!", lowercase=False) == "Hi You"
    assert normalize_transcript("Hi,  You!", remove_punctuation=False) == "hi, you!"
    assert normalize_transcript("Hi, You!", keep_characters="',!") == "hi, you!"
