"""The projector that every run of the real-speech study starts from: one a language, in the end trained at all depths alike.

    python -m benchmarks.real_speech.warm_start [--language nl] [--steps 1000 600]

Start it where the study is started. A projector that starts from nothing needs hundreds of steps before the small language model
listens to it at all; that part is done once here. It begins with the full encoder alone, since a mixture of depths was not
found in 1,200 steps, and goes on with batches that mix all the study's depths, so that no depth has an advantage by it. The encoder
states are the study's own, from the same cache.
"""

import argparse
import dataclasses

import torch

from trainers.recipe import apply_overrides, from_dict
from trainers.study.data import StudyData
from trainers.study.elastic import ElasticRows
from trainers.study.plan import plan_runs
from trainers.study.recipe import load_study
from trainers.train import run_training

FIRST = ("init_from=null", "learning_rate=3e-4", "schedule=constant_with_warmup")


def train(language: str, steps: tuple[int, int]) -> None:
    """Train the projector of a language into `warm-start/LANGUAGE`; what is finished is left alone."""
    study = load_study("real_speech_study")
    runs = plan_runs(study)
    elastic = next(run for run in runs if (run.point["language"], run.point["healing"]) == (language, "elastic"))
    data = StudyData(study, runs)
    depths = [data.elastic_depth(elastic, depth) for depth in elastic.depths]
    cache = data.features(elastic.recipe, "train", depths)
    begun, folder = f"warm-start/{language}-full-depth", f"warm-start/{language}"
    for output_dir, rows, count, changes in (
        (begun, cache.dataset(depths[0]), steps[0], FIRST),
        (folder, ElasticRows([cache.dataset(depth) for depth in depths]), steps[1], (f"init_from={begun}",)),
    ):
        changed = from_dict(apply_overrides(elastic.recipe.to_dict(), ["save_steps=200", "seed=0", *changes]))
        recipe = dataclasses.replace(
            changed, name=output_dir, output_dir=output_dir, lora=None, test=[], max_steps=count
        )
        run_training(recipe, resume=True, datasets={"train": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", nargs="+", default=["nl", "en", "da"])
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(1000, 600), help="with the full encoder, with all depths"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for language in arguments.language:
        train(language, tuple(arguments.steps))


if __name__ == "__main__":
    main()
