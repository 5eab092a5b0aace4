"""Normalisers without knowledge of a language."""

import re
import unicodedata
from collections.abc import Callable

from trainers.data.text import APOSTROPHES, part_words

_BETWEEN_WORDS = re.compile(r"[\u2010-\u2015\u2026/\\|]+")


def squeeze(text: str) -> str:
    """One space between words, none at the ends."""
    return " ".join(text.split())


def whisper_basic() -> Callable[[str], str]:
    """Whisper's multilingual normaliser, one pass. It takes marks for symbols: in scripts with vowel signs it parts words."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalize = BasicTextNormalizer()
    return lambda text: normalize(text).strip()


def paper(text: str) -> str:
    """The paper's: lower case, punctuation and symbols removed, apostrophes kept, numbers untouched.

    Hyphens go like the rest of the punctuation ("e-mail" -> "email"); dashes, slashes, ellipses and
    punctuation without a space part words.
    """
    text = unicodedata.normalize("NFC", text.translate(APOSTROPHES)).lower()
    text = _BETWEEN_WORDS.sub(" ", part_words(text))
    text = "".join(c for c in text if c == "'" or unicodedata.category(c)[0] not in "PSC" or c.isspace())
    return squeeze(unicodedata.normalize("NFC", text))
