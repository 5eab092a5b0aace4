"""Full depth, two blocks pruned, and two pruned + LoRA, trained and scored on real Dutch speech.

    python -m benchmarks.real_speech.run --speech SPEECH_DIR/nl --audio-model WHISPER_DIR --text-model LM_DIR \
        --output-dir RUN_DIR [key=value ...]

`SPEECH_DIR/nl` holds the AudioFolders `nathalie`, `fillets_ng` and `commonvoice61`. The encoder runs once over the training
set; both depths train from its states. Every score is of the saved model, read from its folder, on sound files. What is
finished in `RUN_DIR` is used again, so a run that was stopped goes on with the same command. After each system
`RUN_DIR/results.json` and `RUN_DIR/table.md` are written.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from trainers.data.prepare import prepare
from trainers.errors import UserError
from trainers.feature_cache import build_cache
from trainers.files import write_json, write_text
from trainers.inference.evaluate import evaluate, load_pipeline
from trainers.recipe import Recipe, load_recipe
from trainers.train import run_training
from trainers.training.models import build_model, build_processor

RECIPE = Path(__file__).parent / "real_nl.yaml"
SYSTEMS = (("depth 6", 0, False), ("depth 4", 2, False), ("depth 4 + LoRA", 2, True))
FIGURES = ("wer", "wer_ci", "cer", "substitutions", "deletions", "insertions", "hits", "reference_words")


def make_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe with the models and the data sets' folders filled in."""
    for folder in (arguments.speech, arguments.audio_model, arguments.text_model):
        if not folder.is_dir():
            raise UserError(f"The folder {str(folder)!r} does not exist.")
    models = [f"audio_model={arguments.audio_model.resolve()}", f"text_model={arguments.text_model.resolve()}"]
    recipe = load_recipe(arguments.recipe, [*models, *arguments.overrides])
    for spec in (*recipe.train, *recipe.test):
        spec.dataset = str((arguments.speech / spec.dataset).resolve())
    return recipe


def encode_once(recipe: Recipe, train_set: Dataset, folder: Path) -> dict[int, Any]:
    """The training set's encoder states by number of pruned blocks, from one pass of the encoder."""
    encoder = build_model(dataclasses.replace(recipe, prune_encoder_layers=0, lora=None)).audio_encoder
    depths = {pruned: len(encoder.layers) - pruned for _, pruned, _ in SYSTEMS}
    cache = build_cache(folder, train_set, encoder, build_processor(recipe), depths.values(), workers=1)
    return {pruned: cache.dataset(depth) for pruned, depth in depths.items()}


def run_system(
    name: str, pruned: int, lora: bool, recipe: Recipe, train_set: Any, tests: dict[str, Dataset], folder: Path
) -> list[dict[str, Any]]:
    """Train one system and score its saved model; one row a test set."""
    own = dataclasses.replace(
        recipe,
        name=name,
        output_dir=str(folder),
        prune_encoder_layers=pruned,
        lora=recipe.lora if lora else None,
        test=[],
    )
    training = run_training(own, resume=True, datasets={"train": train_set})
    rows = []
    pipe = None
    for source, dataset in tests.items():
        scored = folder / "evaluation" / source / "metrics.json"
        if not scored.is_file():
            pipe = pipe or load_pipeline(folder, device="cpu")
            evaluate(folder, dataset, scored.parent, pipe=pipe, batch_size=recipe.eval_batch_size, seed=recipe.seed)
        metrics = json.loads(scored.read_text(encoding="utf-8"))
        rows.append(
            {
                "name": name,
                "source": source,
                "audio_model": Path(recipe.audio_model).name,
                "text_model": Path(recipe.text_model).name,
                "language": "nl",
                "prune_encoder_layers": pruned,
                "encoder_layers": len(json.loads((folder / "config.json").read_text())["kept_encoder_layers"]),
                "lora": lora,
                "seed": recipe.seed,
                **{figure: metrics[figure] for figure in FIGURES},
                "utterances": metrics["utterances"],
                "normalizer": metrics["normalizer"],
                **{
                    key: training[key]
                    for key in ("total_params", "trainable_params", "encoder_params", "train_seconds")
                },
                "train_steps": training["steps"],
                "eval_rtfx": metrics["eval_rtfx"],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| system | test set | WER (95 % interval) | S | D | I | words | CER |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        interval = "–".join(f"{100 * bound:.1f}" for bound in row["wer_ci"]) if row["wer_ci"] else "none"
        lines.append(
            f"| {row['name']} | {row['source']} | {100 * row['wer']:.1f} % ({interval}) | {row['substitutions']} | "
            f"{row['deletions']} | {row['insertions']} | {row['reference_words']} | {100 * row['cer']:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, required=True, help="folder of the Dutch AudioFolders")
    parser.add_argument("--audio-model", type=Path, required=True, help="folder of the Whisper encoder")
    parser.add_argument("--text-model", type=Path, required=True, help="folder that pretrain_lm.py wrote")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--encode-only", action="store_true", help="stop when the encoder states are stored")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = make_recipe(arguments)
    folder: Path = arguments.output_dir
    train_set, report = prepare(recipe.train, "train", seed=recipe.seed, output_dir=folder)
    print(report.describe(), flush=True)
    features = encode_once(recipe, train_set, folder / "features")
    if arguments.encode_only:
        return
    tests = {Path(spec.dataset).name: prepare([spec], "test", output_dir=None)[0] for spec in recipe.test}
    rows: list[dict[str, Any]] = []
    for name, pruned, lora in SYSTEMS:
        system = folder / name.replace(" + ", "_").replace(" ", "_").lower()
        rows += run_system(name, pruned, lora, recipe, features[pruned], tests, system)
        write_json(folder / "results.json", rows)
        write_text(folder / "table.md", table(rows))
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
