"""Text normalisers: `get_normalizer(name)`, `normalizer_for_language(code)`, `register_normalizer(...)`."""

from trainers.evaluation.normalizers.basic import paper, squeeze, whisper_basic
from trainers.evaluation.normalizers.language import Language, TextFunction
from trainers.evaluation.normalizers.registry import (
    Normalizer,
    find_language,
    get_normalizer,
    language_code,
    normalizer_for_language,
    normalizer_names,
    register_normalizer,
)

__all__ = [
    "Language",
    "Normalizer",
    "TextFunction",
    "find_language",
    "get_normalizer",
    "language_code",
    "normalizer_for_language",
    "normalizer_names",
    "register_normalizer",
]

register_normalizer(
    "basic",
    whisper_basic,
    description="Whisper's multilingual normalizer: lower case, symbols and punctuation to spaces",
)
register_normalizer(
    "paper", lambda: paper, description="the paper's: lower case, punctuation removed, apostrophes kept"
)
register_normalizer("none", lambda: squeeze, description="none: only white space is evened out")
