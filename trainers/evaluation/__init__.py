"""Scoring of prediction files of any speech recogniser: error rates, intervals, comparisons, error analysis."""

from trainers.evaluation.normalizers import (
    get_normalizer,
    normalizer_for_language,
    normalizer_names,
    register_normalizer,
)
from trainers.evaluation.predictions import read_predictions, write_predictions
from trainers.evaluation.scoring import score, score_rows

__all__ = [
    "get_normalizer",
    "normalizer_for_language",
    "normalizer_names",
    "read_predictions",
    "register_normalizer",
    "score",
    "score_rows",
    "write_predictions",
]
