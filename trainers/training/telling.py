"""What a run tells of itself while it trains and afterwards: examples of each validation, and its curves."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from trainers.files import write_bytes, write_jsonl
from trainers.results import PredictionRow

CURVES = "curves.png"
EXAMPLES = "predictions_validation.jsonl"
_SHOWN = 3


class ValidationExamples:
    """
    Prints a few references with what the model made of them, the same ones at each validation, and keeps them in a file.

    Args:
        path: a JSON Lines file: `step`, `id`, `reference`, `prediction`. After a resume, later steps are written anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, step: int, rows: Sequence[PredictionRow]) -> None:
        count = min(_SHOWN, len(rows))
        chosen = [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]
        entries = [
            {"step": step, "id": row["id"], "reference": row["reference"], "prediction": row["prediction"]}
            for row in chosen
        ]
        write_jsonl(self.path, [*self._before(step), *entries])
        for entry in entries:
            tqdm.write(f"  reference   {entry['reference']}\n  prediction  {entry['prediction']}", file=sys.stderr)

    def _before(self, step: int) -> list[dict[str, Any]]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            return [entry for entry in map(json.loads, lines) if entry["step"] < step]
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: examples are no result
            return []


def plot_curves(history: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """
    Draw the training loss, and validation loss and WER where there was validation, against the steps.

    Args:
        history: the `log_history` of the trainer's state.
    Returns:
        The picture's path; None when nothing was logged.
    """
    panels = [
        ("loss", [("loss", "training", "o"), ("eval_loss", "validation", "s")]),
        ("word error rate", [("eval_wer", "validation", "s")]),
    ]
    drawn = [(title, lines) for title, lines in panels if any(_points(history, key) for key, *_ in lines)]
    if not drawn:
        return None
    figure = Figure(figsize=(4.8 * len(drawn), 3.6), layout="constrained")
    for axis, (title, lines) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for key, label, marker in lines:
            points = _points(history, key)
            if points:
                few = marker if len(points) <= 30 else None
                axis.plot(*zip(*points, strict=True), label=label, marker=few, markersize=4)
        axis.set(xlabel="step", title=title)
        axis.set_ylim(bottom=0)
        if len(lines) > 1:
            axis.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return write_bytes(path, picture.getvalue())


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[key]) for entry in history if key in entry]
