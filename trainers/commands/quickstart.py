"""`slam-asr quickstart`: the whole story on the embedded miniature."""

import argparse
from pathlib import Path

HELP = """\
Train three SLAM-ASR systems on speech synthesised on this machine (full depth; two encoder layers pruned; two pruned with
LoRA), compare them, save the best, and prove it in a fresh process. No download; minutes on two CPU cores."""

EPILOG = """\
examples:
  slam-asr quickstart
  slam-asr quickstart --resume                      go on after an interruption
  slam-asr quickstart --output-dir other --seed 7   another run
  slam-asr quickstart max_steps=100                 a shorter one, less exact (any key of recipes/miniature.yaml)

Writes report.md, results.json, wer.svg, sample.wav and model/."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the recipe 'miniature'")
    parser.add_argument("--output-dir", type=Path, default=Path("quickstart"), help="default: quickstart")
    parser.add_argument("--seed", type=int, default=42, help="of data order, projector and LoRA (default: 42)")
    parser.add_argument("--resume", action="store_true", help="use what an earlier run left in the output folder")


def run(args: argparse.Namespace) -> int:
    from trainers.study.quickstart import run_quickstart

    run_quickstart(args.output_dir, seed=args.seed, resume=args.resume, overrides=tuple(args.overrides))
    return 0
