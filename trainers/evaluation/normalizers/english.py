"""Whisper's English normaliser, from transformers, with a spelling list that needs no download."""

from collections.abc import Mapping

from trainers.evaluation.normalizers.english_spelling import british_to_american
from trainers.evaluation.normalizers.registry import TextFunction


def english_normalizer(spelling: Mapping[str, str] | None = None) -> TextFunction:
    """Whisper's English normaliser, one pass. `spelling` is its British-to-American list, the project's own by default.

    Pass `load_spelling("normalizer.json")` with the file of a Whisper repository for figures that equal those made with
    Whisper's tokenizer to the last word.
    """
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalize = EnglishTextNormalizer(dict(british_to_american() if spelling is None else spelling))
    return lambda text: normalize(text).strip()
