"""Transcripts as the model is trained to write them."""

import re
import unicodedata

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'"})


def normalize_transcript(
    text: str, *, lowercase: bool = True, remove_punctuation: bool = True, keep_characters: str = "'"
) -> str:
    """The training form of a transcript; the defaults are the paper's: lower case, no punctuation, apostrophes kept.

    Unicode is composed (NFC) and runs of white space become one space. Dashes and slashes between words become a
    space, other punctuation and symbols vanish. A decimal or thousands mark between digits goes the same way.
    """
    text = unicodedata.normalize("NFC", text)
    if lowercase:
        text = text.lower()
    if remove_punctuation:
        text = "".join(_without_punctuation(character, keep_characters) for character in text.translate(_APOSTROPHES))
    return re.sub(r"\s+", " ", text).strip()


def _without_punctuation(character: str, keep: str) -> str:
    category = unicodedata.category(character)
    if character in keep or category[0] not in "PS":
        return character
    return " " if category == "Pd" or character in "/\\|_" else ""
