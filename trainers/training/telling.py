"""What a run tells of itself while it trains and afterwards: progress, examples of each validation, and its curves."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.figures import draw_legend, new_figure, style, write_figure
from trainers.files import read_jsonl, write_jsonl
from trainers.results import PredictionRow

CURVES = "curves.png"
EXAMPLES = "predictions_validation.jsonl"
_SHOWN = 3


class Progress(TrainerCallback):
    """A bar with loss, WER and the minutes left on a terminal; without one, a line whenever something is logged."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.shown: dict[str, str] = {}
        self.started, self.first_step = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if not state.is_world_process_zero or not ({"loss", "eval_wer", "eval_loss"} & logs.keys()):
            return
        for name, key in (("loss", "loss"), ("val_loss", "eval_loss"), ("wer", "eval_wer")):
            if key in logs:
                self.shown[name] = f"{logs[key]:.3f}"
        done, left = state.global_step - self.first_step, state.max_steps - state.global_step
        minutes = (time.monotonic() - self.started) / 60 * left / done if done else None
        if self.bar is not None:
            self.bar.set_postfix(self.shown | ({} if minutes is None else {"min_left": f"{minutes:.0f}"}))
        else:
            values = "  ".join(f"{name} {value}" for name, value in self.shown.items())
            ahead = "" if minutes is None or not left else f"  {minutes:.1f} min left"
            print(f"step {state.global_step}/{state.max_steps}  {values}{ahead}", file=sys.stderr, flush=True)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Example(TypedDict):
    """A line of the file of examples."""

    step: int
    id: str
    reference: str
    prediction: str


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
        entries: list[Example] = [
            {"step": step, "id": row["id"], "reference": row["reference"], "prediction": row["prediction"]}
            for row in chosen
        ]
        write_jsonl(self.path, [*self._before(step), *entries])
        for entry in entries:
            tqdm.write(f"  reference   {entry['reference']}\n  prediction  {entry['prediction']}", file=sys.stderr)

    def _before(self, step: int) -> list[Example]:
        try:
            return [entry for entry in read_jsonl(self.path) if entry["step"] < step]
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
        ("loss", [("loss", "training", 0), ("eval_loss", "validation", 1)]),
        ("word error rate (%)", [("eval_wer", "validation", 1)]),
    ]
    drawn = [(title, lines) for title, lines in panels if any(_points(history, key) for key, *_ in lines)]
    if not drawn:
        return None
    figure, axes = new_figure(len(drawn), one_scale=False)
    for axis, (title, lines) in zip(axes, drawn, strict=True):
        for key, label, number in lines:
            points = _points(history, key)
            if points:
                scale = 100 if key == "eval_wer" else 1
                steps, values = zip(*points, strict=True)
                look = style(number) if len(points) <= 30 else {"color": style(number)["color"]}
                axis.plot(steps, [scale * value for value in values], label=label, markersize=4, **look)
        axis.set(xlabel="step", title=title)
        axis.set_ylim(bottom=0)
    draw_legend(figure, axes)
    return write_figure(figure, path)


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[key]) for entry in history if key in entry]
