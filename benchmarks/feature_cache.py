"""What the feature cache costs and saves, side by side in one process.

    python -m benchmarks.feature_cache passes [--audio-model embedded/encoder] [--utterances 64] [--output FILE.json]
    python -m benchmarks.feature_cache study [--steps 20] [--output FILE.json]

`passes`: building a cache with D depths (reading sound, spectrograms, one encoder pass, hashing, writing) against one plain
pass of the full encoder over the same batches. `study`: steps of the miniature's six depths x {projector, LoRA} trained from
the cache and through the encoder, in turn; with the cache's own making, what the whole study takes either way.

Other programs disturb wall-clock times, so processor time is given too; each figure is the median of interleaved rounds.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.result import figures_parser, publish
from modeling_slam_asr.processing_slam_asr import pad_features
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.encoder_depth.loading import load_encoder
from trainers.feature_cache import build_cache
from trainers.feature_cache.build import batches_by_length
from trainers.recipe import Recipe, load_recipe
from trainers.train import TrainingRun
from trainers.training.models import build_model, build_processor

BATCH_SECONDS = 60.0


def measure(action: Callable[[], Any]) -> dict[str, float]:
    """Wall-clock and processor seconds of an action."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def training_rows(recipe: Recipe, count: int | None) -> Dataset:
    """The first `count` training utterances, or all."""
    rows, _ = prepare(recipe.train, "train", quiet=True)
    return rows if count is None else rows.select(range(min(count, len(rows))))


def full_pass(encoder: Any, processor: Any, rows: Dataset) -> None:
    """Sound to the output of the full encoder, in batches of similar length; nothing is kept."""
    with torch.no_grad():
        for batch in batches_by_length(range(len(rows)), rows["seconds"], BATCH_SECONDS):
            features, mask = pad_features([processor.extract_features(read_audio(rows[index])) for index in batch])
            encoder(features, mask)


def passes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time of D depths against one full pass."""
    recipe = dataclasses.replace(load_recipe("miniature"), audio_model=arguments.audio_model)
    rows = training_rows(recipe, arguments.utterances or 64)
    encoder = load_encoder(arguments.audio_model, device="cpu").encoder
    processor = build_processor(dataclasses.replace(recipe, audio_model=arguments.processor or arguments.audio_model))
    layers = len(encoder.layers)
    sets = {
        f"{count} depths": range(layers - count + 1, layers + 1) for count in sorted({1, (layers + 1) // 2, layers})
    }
    times: dict[str, list[dict[str, float]]] = {name: [] for name in ("full pass", *sets)}
    full_pass(encoder, processor, rows.select(range(4)))
    for _ in range(arguments.rounds):
        times["full pass"].append(measure(lambda: full_pass(encoder, processor, rows)))
        for name, depths in sets.items():
            with tempfile.TemporaryDirectory() as folder:
                options: dict[str, Any] = {"batch_seconds": BATCH_SECONDS, "workers": 1, "quiet": True}
                build = lambda: build_cache(folder, rows, encoder, processor, depths, **options)  # noqa: B023, E731
                times[name].append(measure(build))
    result: dict[str, Any] = {
        "audio_model": arguments.audio_model, "encoder_layers": layers, "utterances": len(rows),
        "seconds_of_sound": round(sum(rows["seconds"]), 1), "rounds": arguments.rounds,
    }  # fmt: skip
    for name, found in times.items():
        for clock in ("wall", "cpu"):
            result[f"{name}, {clock} s"] = round(statistics.median(each[clock] for each in found), 3)
    for name in sets:
        for clock in ("wall", "cpu"):  # each round's own ratio, since the machine's load drifts
            ratios = [new[clock] / old[clock] for new, old in zip(times[name], times["full pass"], strict=True)]
            result[f"{name} / full pass, {clock}"] = round(statistics.median(ratios), 3)
    return result


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time of the miniature study with and without the cache, from the steps of its runs."""
    recipe = load_recipe("miniature", ["device=cpu"])
    every = training_rows(recipe, None)
    rows = every if arguments.utterances is None else every.select(range(min(arguments.utterances, len(every))))
    share = sum(rows["seconds"]) / sum(every["seconds"])
    encoder, processor = load_encoder(recipe.audio_model, device="cpu").encoder, build_processor(recipe)
    layers, pruned = len(encoder.layers), range(6)
    totals = {"cache": {"wall": 0.0, "cpu": 0.0}, "sound": {"wall": 0.0, "cpu": 0.0}}
    with tempfile.TemporaryDirectory() as folder:
        caches: list[Any] = []
        building = measure(
            lambda: caches.append(
                build_cache(
                    Path(folder) / "features", rows, encoder, processor, [layers - n for n in pruned], quiet=True
                )
            )
        )
        for count in pruned:
            for lora in (False, True):
                for source in totals:
                    own = dataclasses.replace(
                        recipe, prune_encoder_layers=count, lora=recipe.lora if lora else None, validation=[], test=[],
                        output_dir=f"{folder}/{source}-{count}-{lora}", max_steps=arguments.steps, save_steps=10**6,
                    )  # fmt: skip
                    train = caches[0].dataset(layers - count) if source == "cache" else rows
                    trainer = TrainingRun(own, {"train": train}, build_model(own), processor).make_trainer()
                    spent = measure(trainer.train)
                    for clock, seconds in spent.items():
                        totals[source][clock] += seconds / arguments.steps
    planned = recipe.max_steps or arguments.steps
    result: dict[str, Any] = {
        "utterances": len(every), "hours_of_sound": round(sum(every["seconds"]) / 3600, 3), "runs": 12,
        "share_of_the_sound_that_was_cached": round(share, 4),
        "steps_measured_of_each_run": arguments.steps, "steps_of_a_run": planned,
        "the study's seconds are": "the steps measured, times the steps of a run, and the making of the cache, by its share",
    }  # fmt: skip
    for clock in ("wall", "cpu"):
        building[clock] /= share
        with_cache = building[clock] + planned * totals["cache"][clock]
        without = planned * totals["sound"][clock]
        result |= {
            f"making the cache of 6 depths, {clock} s": round(building[clock], 1),
            f"a step from the cache, mean of 12 runs, {clock} s": round(totals["cache"][clock] / 12, 4),
            f"a step through the encoder, mean of 12 runs, {clock} s": round(totals["sound"][clock] / 12, 4),
            f"study with the cache, {clock} s": round(with_cache, 1),
            f"study without, {clock} s": round(without, 1),
            f"with / without, {clock}": round(with_cache / without, 3),
        }
    return result


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("what", choices=("passes", "study"))
    parser.add_argument("--audio-model", default="embedded/encoder", help="a Whisper model (default: embedded/encoder)")
    parser.add_argument("--processor", help="a model with the feature extractor, if --audio-model has none")
    parser.add_argument("--utterances", type=int, help="of the training data (default: all for study, 64 for passes)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each of the study's twelve runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = (passes if arguments.what == "passes" else study)(arguments)
    result |= {"threads": arguments.threads}
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
