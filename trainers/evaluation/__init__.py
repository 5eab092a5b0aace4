"""Scoring of prediction files of any speech recogniser: error rates, intervals, comparisons, error analysis."""

from pathlib import Path

from trainers.evaluation.comparison import compare
from trainers.evaluation.normalizers import get_normalizer, normalizer_for_language, register_normalizer
from trainers.evaluation.predictions import read_predictions
from trainers.evaluation.reports import evaluate_rows
from trainers.evaluation.scoring import score, score_rows
from trainers.evaluation.speed import SpeedMeter
from trainers.results import SpeedReport

METRIC_PATH = str(Path(__file__).parent / "metric")
"""The folder for `evaluate.load`."""

__all__ = [
    "METRIC_PATH",
    "SpeedMeter",
    "SpeedReport",
    "compare",
    "evaluate_rows",
    "get_normalizer",
    "normalizer_for_language",
    "read_predictions",
    "register_normalizer",
    "score",
    "score_rows",
]
