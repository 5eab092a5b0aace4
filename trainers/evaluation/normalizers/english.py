"""Whisper's English normaliser, from transformers, with a spelling list that needs no download and signs that stay words."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainers.data.text import APOSTROPHES
from trainers.evaluation.normalizers.english_spelling import british_to_american
from trainers.evaluation.normalizers.language import Language, TextFunction
from trainers.evaluation.normalizers.spoken_form import SPACED_THOUSANDS, collapse_thousands

if TYPE_CHECKING:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

# Whisper reads an amount only where the sign stands right before it: "US$ 5", "$ 5" and "5 $" become "$5".
_SIGN_BEFORE = re.compile(r"(?:\b(?:US|AU|CA|NZ|A|C)(?=\$))?([$€£])\s*(?=\d)")
_SIGN_BEHIND = re.compile(r"(?<![\d.,$€£])(\d[\d,]*(?:\.\d+)?)\s?([$€£])(?!\d)")
# A range is no sign ("10-15", "1990 -2000"), and a dash before a word neither.
_MINUS = re.compile(r"(?<![^\s'\"“])(?<!\d\s)[-−–](?=[$€£]?\.?\d)")
_PLUS = re.compile(r"(?<![^\s'\"“])\+\s?(?=[$€£]?\.?\d)")
_SPACED_PERCENT = re.compile(r"(?<=\d)\s+%")


def english_normalizer(spelling: Mapping[str, str] | None = None) -> TextFunction:
    """Whisper's English normaliser, one pass. `spelling` is its British-to-American list, the project's own by default.

    Pass `load_spelling("normalizer.json")` with the file of a Whisper repository for figures that equal those made with
    Whisper's tokenizer to the last word.
    """
    whisper = _whisper(british_to_american() if spelling is None else spelling)
    return lambda text: whisper(text).strip()


def _whisper(spelling: Mapping[str, str]) -> "EnglishTextNormalizer":
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer(dict(spelling))


def english() -> TextFunction:
    """Whisper's English normaliser on text whose numbers and apostrophes are written as it reads them: no digit is lost.

    "-5" and "minus five" are "minus 5". Whisper's writes "-5" for the words and takes the hyphen of "-5" for punctuation,
    so that a second pass would lose what the first one wrote.
    """
    whisper = _whisper(british_to_american())
    whisper.standardize_numbers.words.difference_update(whisper.standardize_numbers.preceding_prefixers)

    def normalize(text: str) -> str:
        text = text.translate(APOSTROPHES)  # Whisper's reads the straight one alone: "don’t" would be two words
        text = _SIGN_BEFORE.sub(r"\1", collapse_thousands(text, SPACED_THOUSANDS))
        text = _SPACED_PERCENT.sub("%", _SIGN_BEHIND.sub(r"\2\1", text))
        return whisper(_PLUS.sub("plus ", _MINUS.sub("minus ", text))).strip()

    return normalize


LANGUAGE = Language(
    codes=("en", "eng"),
    description="Whisper's English normalizer with the project's British-American spelling list",
    normalizer=english,
)
