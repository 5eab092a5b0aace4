"""The three systems of the quickstart: trained from one encoder pass, each scored from its saved model."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from trainers.data.prepare import DataReport, prepare
from trainers.feature_cache import build_cache
from trainers.inference.evaluate import evaluate
from trainers.recipe import Recipe
from trainers.train import run_training
from trainers.training.models import build_model, build_processor

PRUNED_LAYERS = 2


@dataclass(frozen=True)
class System:
    """One of the systems that are compared."""

    name: str
    folder: str
    prune_encoder_layers: int
    lora: bool


SYSTEMS = (
    System("full depth", "full", 0, False),
    System(f"{PRUNED_LAYERS} layers pruned", "pruned", PRUNED_LAYERS, False),
    System(f"{PRUNED_LAYERS} pruned + LoRA", "pruned_lora", PRUNED_LAYERS, True),
)


def load_data(recipe: Recipe, folder: Path) -> tuple[dict[str, Dataset], dict[str, DataReport]]:
    """The recipe's data sets by role, read and checked, and the reports of what they hold."""
    prepared = {
        role: prepare(getattr(recipe, role), role, seed=recipe.seed, output_dir=folder)
        for role in ("train", "validation", "test")
    }
    return {role: rows for role, (rows, _) in prepared.items()}, {role: said for role, (_, said) in prepared.items()}


def encode_once(recipe: Recipe, data: dict[str, Dataset], folder: Path) -> dict[str, dict[int, Any]]:
    """Data sets of encoder states for training and validation by number of pruned layers, from one pass of the encoder."""
    model = build_model(dataclasses.replace(recipe, prune_encoder_layers=0, lora=None))
    encoder, processor = model.audio_encoder.eval(), build_processor(recipe)
    layers = len(encoder.layers)
    pruned = sorted({system.prune_encoder_layers for system in SYSTEMS})
    caches = {
        role: build_cache(folder, data[role], encoder, processor, [layers - n for n in pruned], dtype="float32")
        for role in ("train", "validation")
    }
    return {role: {n: cache.dataset(layers - n) for n in pruned} for role, cache in caches.items()}


def run_system(
    system: System, recipe: Recipe, test: Dataset, features: dict[str, dict[int, Any]], folder: Path
) -> list[dict[str, Any]]:
    """
    Train one system and score it from its saved model on audio; what is finished in `folder` is used again.

    Returns:
        Rows of `results.json`: all languages together, then each.
    """
    own = dataclasses.replace(
        recipe,
        name=system.name,
        output_dir=str(folder / system.folder),
        prune_encoder_layers=system.prune_encoder_layers,
        lora=recipe.lora if system.lora else None,
        test=[],
    )
    datasets = {role: by_depth[system.prune_encoder_layers] for role, by_depth in features.items()}
    training = run_training(own, resume=True, datasets=datasets)
    run = Path(own.output_dir)
    scored = run / "evaluation" / "metrics.json"
    if not scored.is_file():
        evaluate(run, test, scored.parent, batch_size=recipe.eval_batch_size, seed=recipe.seed)
    metrics = json.loads(scored.read_text(encoding="utf-8"))
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    common = {
        "name": system.name,
        "audio_model": recipe.audio_model,
        "text_model": recipe.text_model,
        "prune_encoder_layers": system.prune_encoder_layers,
        "encoder_layers": len(config["kept_encoder_layers"]),
        "lora": system.lora,
        "seed": recipe.seed,
        **{name: training[name] for name in ("total_params", "trainable_params", "encoder_params", "train_seconds")},
        "eval_rtfx": metrics["eval_rtfx"],
        "run": f"{folder.name}/{system.folder}/evaluation",
    }
    figures = ("wer", "wer_ci", "cer", "substitutions", "deletions", "insertions", "hits", "reference_words")
    tables = {"all": metrics, **metrics["by_language"]}
    return [
        {**common, "language": language, **{name: table[name] for name in figures}}
        for language, table in tables.items()
    ]
