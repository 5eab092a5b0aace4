"""`slam-asr train`: one run from a recipe."""

import argparse
import json
from pathlib import Path

HELP = """Train a projector, with LoRA if wanted, as a recipe says.

RECIPE is a YAML file or the name of one that comes with the project (miniature, own_data); with --run, a study's
(paper_study, miniature_study).
Any key can be overridden: `slam-asr train miniature max_steps=100 train.language=da lora.r=16`.
Several devices: `accelerate launch -m trainers.train RECIPE ...` takes the same arguments.
A run that was stopped goes on with --resume; with `--resume max_steps=1` it ends there, with its best model so far.

exit codes: 0 done, 2 a mistake in the recipe or the data, 143 stopped by SIGTERM (130 by Ctrl-C) with a checkpoint saved
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a recipe of the project")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="replace a key of the recipe; dotted for nested ones"
    )
    parser.add_argument("--run", metavar="NAME", help="RECIPE is a study: train this one of its runs")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the data, measure a few steps, and print hours of speech, steps, minutes, parameters and memory",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in output_dir")
    parser.add_argument("--output-dir", help="the same as output_dir=...")
    parser.add_argument("--language", help="the same as language=...: of all data sets")
    parser.add_argument("--normalizer", help="the same as normalizer=...")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="the same as device=...")
    parser.add_argument("--seed", type=int, help="the same as seed=...")


def run(args: argparse.Namespace) -> int:
    """Load the recipe, then plan or train."""
    from trainers.recipe import load_recipe

    overrides = list(args.overrides)
    for key in ("output_dir", "language", "normalizer", "device", "seed"):
        if getattr(args, key) is not None:
            overrides.append(f"{key}={json.dumps(getattr(args, key))}")
    if args.run is not None:
        from trainers.study.plan import named_run
        from trainers.study.recipe import load_study

        recipe = named_run(load_study(args.recipe), args.run, overrides)
    else:
        recipe = load_recipe(args.recipe, overrides)
    if args.dry_run:
        from trainers.training.dry_run import describe, plan_run

        print(describe(plan_run(recipe)))
        return 0

    from accelerate import PartialState

    from trainers.evaluation.format import percent
    from trainers.train import run_training
    from trainers.training.checkpoints import list_checkpoints

    try:
        metrics = run_training(recipe, resume=args.resume)
    except SystemExit:
        if PartialState().is_main_process and list_checkpoints(Path(recipe.output_dir)):
            print("The same command with --resume goes on.", flush=True)
        raise
    state = PartialState()
    if state.is_main_process:
        wer = metrics.get("wer")
        scored = f"  {metrics['split']} WER {percent(wer)}" if wer is not None else ""
        print(f"{metrics['steps']} steps{scored}  model and results: {recipe.output_dir}")
        if recipe.push_to_hub is not None:
            from trainers.cli import run_command

            private = ["--private"] if recipe.push_to_hub_private else []
            return run_command("push", [recipe.output_dir, recipe.push_to_hub, *private])
    return 0
