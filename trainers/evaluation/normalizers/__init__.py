"""Text normalisers: `get_normalizer(name)`, `normalizer_for_language(code)`, `register_normalizer(...)`."""

from trainers.evaluation.normalizers.registry import (
    Normalizer,
    TextFunction,
    get_normalizer,
    normalizer_for_language,
    normalizer_names,
    register_normalizer,
)

__all__ = [
    "Normalizer",
    "TextFunction",
    "get_normalizer",
    "normalizer_for_language",
    "normalizer_names",
    "register_normalizer",
]


def _basic() -> TextFunction:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalize = BasicTextNormalizer()
    return lambda text: normalize(text).strip()


def _english() -> TextFunction:
    from trainers.evaluation.normalizers.english import english_normalizer

    return english_normalizer()


def _danish() -> TextFunction:
    from trainers.evaluation.normalizers.danish import danish

    return danish


def _dutch() -> TextFunction:
    from trainers.evaluation.normalizers.dutch import dutch

    return dutch


def _paper() -> TextFunction:
    from trainers.evaluation.normalizers.basic import paper

    return paper


def _none() -> TextFunction:
    from trainers.evaluation.normalizers.basic import none

    return none


register_normalizer(
    "basic", _basic, description="Whisper's multilingual normalizer: lower case, symbols and punctuation to spaces"
)
register_normalizer(
    "en",
    _english,
    description="Whisper's English normalizer with the project's British-American spelling list",
    languages=("en", "english"),
)
register_normalizer(
    "da",
    _danish,
    description="Danish: numbers to words, aa = å, abbreviations spelled out, hyphens joined",
    languages=("da", "danish"),
)
register_normalizer(
    "nl",
    _dutch,
    description="Dutch: numbers to words, clitics and abbreviations spelled out, hyphens joined",
    languages=("nl", "dutch"),
)
register_normalizer("paper", _paper, description="the paper's: lower case, punctuation removed, apostrophes kept")
register_normalizer("none", _none, description="none: only white space is evened out")
