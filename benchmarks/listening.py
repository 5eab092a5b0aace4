"""How many steps it takes until a projector is heard: the training loss of runs beside what the LLM expects without sound.

    python -m benchmarks.listening "CTC warm start=RUN/model" "random weights=RUN/model" [--plot FILE.svg] [--output FILE.json]

Each RUN/model is a folder that `slam-asr train` or `study` wrote, with the name that the plot gives it. The *prior's* loss is that of the
LLM of the first one without its adapters: on its training transcripts after the prompt, with no audio at all. A run listens from the
step on at which the loss, as the mean of the last five logged values, is under half of it.
"""

import json
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.result import figures_parser, publish
from modeling_slam_asr import SlamAsrProcessor
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec
from trainers.figures import draw_legend, new_figure, style, write_figure

WINDOW = 5  # logged values of which the mean is taken


def curve(folder: Path) -> tuple[list[int], list[float]]:
    """Steps and training losses of a run, as logged."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    logged = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    return [step for step, _ in logged], [loss for _, loss in logged]


def smooth(losses: list[float]) -> np.ndarray:
    """The mean of each value and of the `WINDOW - 1` before it."""
    return np.array([np.mean(losses[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(losses))])


def listens_from(steps: list[int], losses: list[float], level: float) -> int | None:
    """The first step at which the smoothed loss is below `level`."""
    below = np.flatnonzero((smooth(losses) < level) & (np.arange(len(losses)) >= WINDOW - 1))
    return steps[int(below[0])] if len(below) else None


def prior_loss(folder: Path, utterances: int) -> float:
    """Nats a token of the training transcripts under the run's base LLM, after the prompt and without audio."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    specs = recipe["train"] if isinstance(recipe["train"], list) else [recipe["train"]]
    rows = prepare([DataSpec(**spec) for spec in specs], "train", quiet=True, max_bad_fraction=0.05)[0]
    rows = rows.shuffle(seed=0).select(range(min(utterances, len(rows))))
    processor = SlamAsrProcessor.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(recipe["text_model"], dtype=torch.float32).eval()
    assert AutoTokenizer.from_pretrained(recipe["text_model"]).vocab_size == processor.tokenizer.vocab_size
    summed, count = 0.0, 0
    for transcript in tqdm(rows["transcript"], desc="prior"):
        prompt = [token for token in processor.prompt_ids(100) if token != processor.audio_token_id]
        target = processor.transcript_ids(transcript)
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].float()
        summed += torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
        count += len(target)
    return summed / count


def plot(runs: dict[str, tuple[list[int], list[float]]], prior: float, path: Path) -> None:
    """The curves, and the prior's line."""
    figure, (axis,) = new_figure(width=5.5, height=3.4)
    for number, ((name, (steps, losses)), dashes) in enumerate(zip(runs.items(), cycle(("-", "--", "-.", ":")))):
        axis.plot(steps, smooth(losses), dashes, color=style(number)["color"], label=name)
    axis.axhline(prior, color="0.4", linewidth=1, label="the LLM without sound")
    axis.set(xlabel="step", ylabel="training loss (nats a token)")
    axis.set_ylim(bottom=0)
    draw_legend(figure, [axis])
    write_figure(figure, path)


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--utterances", type=int, default=200, help="of the prior's loss (default: 200)")
    parser.add_argument("--plot", type=Path, help="draw the curves here (svg or png)")
    arguments = parser.parse_args()
    folders = {name: Path(folder) for name, _, folder in (run.partition("=") for run in arguments.runs)}
    runs = {name: curve(folder) for name, folder in folders.items()}
    prior = prior_loss(next(iter(folders.values())), arguments.utterances)
    result: dict[str, Any] = {
        "prior_loss": round(prior, 3),
        "runs": {
            name: {"listens_from_step": listens_from(*found, prior / 2), "steps": found[0][-1], "last_loss": round(float(smooth(found[1])[-1]), 3)}
            for name, found in runs.items()
        },
    }  # fmt: skip
    if arguments.plot is not None:
        plot(runs, prior, arguments.plot)
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
