"""`slam-asr depth`: a profile of the encoder's blocks, to choose what to prune."""

import argparse
from pathlib import Path

from trainers.commands.arguments import add_data_arguments, data_spec
from trainers.encoder_depth.selection import METHODS

_LIST = "\n".join(f"  {name:<{max(map(len, METHODS))}}  {method.prunes}" for name, method in METHODS.items())

HELP = f"""\
Measure what each block of an encoder does to some speech, and recommend which to prune by several methods:

{_LIST}

MODEL is a SLAM-ASR model (folder or Hub name), or a Whisper model, for which the loss is left out."""

EPILOG = """\
examples:
  slam-asr depth quickstart/model --dataset embedded --split validation
  slam-asr depth openai/whisper-small --dataset data/some.jsonl --prune 2 4 --output-dir runs/depth-small

Writes depth.json and depth.svg. A recommended list is a value of `prune_encoder_layers` in a recipe."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "model", metavar="MODEL", help="a SLAM-ASR or Whisper model: folder, Hub name or embedded/encoder"
    )
    add_data_arguments(parser, split="validation", limit=64)
    parser.add_argument(
        "--prune", type=int, nargs="+", metavar="N", help="numbers of blocks to print lists for (default: 1 2 3)"
    )
    parser.add_argument(
        "--no-loss", action="store_true", help="leave out the loss without each block, the slowest part"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU when there is one)")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/depth"), help="default: runs/depth")


def run(args: argparse.Namespace) -> int:
    """Profile, write, print."""
    from trainers.data.prepare import prepare
    from trainers.encoder_depth.block_measures import describe, plot_profile, profile_encoder
    from trainers.encoder_depth.loading import load_encoder
    from trainers.errors import UserError
    from trainers.files import write_json

    loaded = load_encoder(args.model, device=args.device, revision=args.revision)
    blocks = len(loaded.encoder.layers)
    counts = args.prune or [count for count in (1, 2, 3) if count < blocks]
    for count in counts:
        if not 0 < count < blocks:
            raise UserError(f"--prune {count}: the encoder has {blocks} blocks; give numbers from 1 to {blocks - 1}.")
    spec = data_spec(args)
    rows, report = prepare([spec], "depth", seed=args.seed)
    print(report.describe())
    with_loss = not args.no_loss
    profile = profile_encoder(
        loaded.encoder,
        rows,
        loaded.spectrogram,
        batch_size=args.batch_size,
        model=loaded.model if with_loss else None,
        processor=loaded.processor if with_loss else None,
    )
    facts = {"model": args.model, "dataset": args.dataset, "split": args.split, "seed": args.seed}
    write_json(args.output_dir / "depth.json", {**facts, **profile.to_dict()})
    plot_profile(profile, str(args.output_dir / "depth.svg"))
    print(f"{describe(profile, counts)}\n\n{args.output_dir}/depth.json  {args.output_dir}/depth.svg")
    return 0
