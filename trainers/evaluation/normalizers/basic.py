"""Normalisers without knowledge of a language."""

import re
import unicodedata

APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'", "＇": "'", "ʹ": "'", "′": "'"})
_BETWEEN_WORDS = re.compile(r"[\u2010-\u2015\u2026/\\|]+")


def squeeze(text: str) -> str:
    """One space between words, none at the ends."""
    return " ".join(text.split())


def paper(text: str) -> str:
    """The paper's: lower case, punctuation and symbols removed, apostrophes kept, numbers untouched.

    Hyphens go like the rest of the punctuation ("e-mail" -> "email"); dashes, slashes and ellipses part words.
    """
    text = unicodedata.normalize("NFC", text.translate(APOSTROPHES)).lower()
    text = _BETWEEN_WORDS.sub(" ", text)
    text = "".join(c for c in text if c == "'" or unicodedata.category(c)[0] not in "PSC" or c.isspace())
    return squeeze(unicodedata.normalize("NFC", text))


def none(text: str) -> str:
    """No change but white space."""
    return squeeze(text)
