"""Paired comparison of two runs' transcripts, for intervals that know both systems heard the same utterances."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from trainers.evaluation import read_predictions
from trainers.evaluation.bootstrap import BootstrapSettings, make_blocks
from trainers.evaluation.predictions import row_origins, texts
from trainers.evaluation.scoring import normalize_and_align, row_languages
from trainers.evaluation.significance import paired_bootstrap
from trainers.files import read_object
from trainers.results import ResultRow
from trainers.study.claims import PairedInterval

RESAMPLES = 1000


def paired_intervals(folder: Path) -> PairedInterval:
    """A function for `read_claims` that compares the `predictions.jsonl` files of a study's rows.

    Args:
        folder: the study's, that the rows' `run` is relative to.
    """

    @lru_cache(maxsize=64)
    def scored(run: str, language: str) -> tuple[list[str], Any, Any]:
        rows = read_predictions(folder / run / "predictions.jsonl")
        if any(row.get("language") == language for row in rows):
            rows = [row for row in rows if row.get("language") == language]
        named = None if language == "all" else language
        used = list(read_object(folder / run / "metrics.json").get("normalizers", {}))  # as the run's own rate
        normalizer = used[0] if len(used) == 1 else None
        found = normalize_and_align(*texts(rows), normalizer=normalizer, languages=row_languages(rows, named))
        return [str(row["id"]) for row in rows], found, row_origins(rows)

    def interval(baseline: ResultRow, other: ResultRow) -> tuple[float, float] | None:
        runs = [row.get("run") for row in (baseline, other)]
        if any(run is None or not (folder / str(run) / "predictions.jsonl").is_file() for run in runs):
            return None
        first_ids, first, origins = scored(str(runs[0]), baseline["language"])
        second_ids, second, _ = scored(str(runs[1]), baseline["language"])
        if first_ids != second_ids:
            return None
        blocks = make_blocks(len(first_ids), origins)
        result = paired_bootstrap(
            first.errors, second.errors, first.reference_words, blocks, BootstrapSettings(RESAMPLES, 0.95, 42)
        )
        found = result.get("relative_difference_ci")
        return (float(found[0]), float(found[1])) if found is not None else None

    return interval
