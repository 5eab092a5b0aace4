"""Whisper's English normaliser, from transformers, with a spelling list that needs no download."""

from collections.abc import Mapping

from trainers.evaluation.normalizers.registry import TextFunction


def english_normalizer(spelling: Mapping[str, str] | None = None) -> TextFunction:
    """Whisper's English normaliser with `spelling` as its British-to-American list."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalize = EnglishTextNormalizer(dict(spelling or {}))
    return lambda text: normalize(text).strip()
