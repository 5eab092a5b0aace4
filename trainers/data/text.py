"""Transcripts as the model is trained to write them, and the cleaning of characters that training and scoring share."""

import functools
import re
import unicodedata

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ´`＇ʹ′", "'"))
# Unicode's Default_Ignorable_Code_Point: soft hyphens, zero-width characters, directions, fillers, variation selectors.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ZERO_WIDTH_SPACE, _JOINERS = "\u200b", "\u200c\u200d"
_SPACED_SCRIPTS = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")  # a zero-width space parts words there
_WORD_BREAK = re.compile(r"\.{2,}|\u2026|(?<=[^\W\d_])[,;:!?]+(?=[^\W\d_])")


def clean_characters(text: str) -> str:
    """Text without what nobody sees: one spelling for words that look the same. Letters and digits all stay.

    Invisible characters (soft hyphen, zero-width characters, byte order mark, NUL and other controls) go; the joiners
    stay where a script is written with them (Persian, Hindi). Latin ligatures and compatibility letters become plain
    ones (ĳ, ﬁ, full width, mathematical alphabets). The result is composed (NFC).
    """
    if text.isascii() and text.isprintable():
        return text
    text = unicodedata.normalize("NFC", _IGNORABLE.sub(_invisible, text))
    return unicodedata.normalize("NFC", "".join(map(_plain, text)))


def part_words(text: str) -> str:
    """A space where an ellipsis, or punctuation without a space, stands between two words."""
    return _WORD_BREAK.sub(" ", text)


def normalize_transcript(
    text: str, *, lowercase: bool = True, remove_punctuation: bool = True, keep_characters: str = "'"
) -> str:
    """The training form of a transcript; the defaults are the paper's: lower case, no punctuation, apostrophes kept.

    Characters are cleaned (`clean_characters`) and runs of white space become one space. Dashes, slashes and ellipses
    between words become a space, other punctuation and symbols vanish. A decimal or thousands mark between digits goes
    the same way.
    """
    text = clean_characters(text)
    if lowercase:
        text = unicodedata.normalize("NFC", text.lower())
    if remove_punctuation:
        text = text.translate(APOSTROPHES)
        text = _WORD_BREAK.sub(lambda m: m.group() if set(m.group()) <= set(keep_characters) else " ", text)
        text = "".join(_without_punctuation(character, keep_characters) for character in text)
    return re.sub(r"\s+", " ", text).strip()


def _without_punctuation(character: str, keep: str) -> str:
    category = unicodedata.category(character)
    if character in keep or category[0] not in "PS":
        return character
    return " " if category == "Pd" or character in "/\\|_" else ""


def _invisible(match: re.Match[str]) -> str:
    character, text = match.group(), match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if character in _JOINERS and before > "\u05ff" and after > "\u05ff" and _is_letter(before) and _is_letter(after):
        return character
    if character == _ZERO_WIDTH_SPACE and unicodedata.name(before or " ", "").startswith(_SPACED_SCRIPTS):
        return " "
    return ""


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


@functools.lru_cache(maxsize=10_000)
def _plain(character: str) -> str:
    """A compatibility letter as plain ones; no control; a broken character as the sign for one."""
    category = unicodedata.category(character)
    if category == "Cc":
        return " " if character.isspace() else ""
    if category == "Cs":
        return "\ufffd"
    kind = unicodedata.decomposition(character).partition(" ")[0]
    letter = category[0] == "L" and (
        kind in ("<wide>", "<narrow>", "<font>")
        or (kind == "<compat>" and unicodedata.name(character).startswith("LATIN"))
    )
    if letter or (category == "Nd" and kind) or (category == "So" and kind == "<square>") or character in "℃℉":
        return unicodedata.normalize("NFKC", character)
    return character
