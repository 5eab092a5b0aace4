"""Make the embedded default's base models: `python -m benchmarks.embedded_bases.pretrain {encoder,lm} [options]`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.embedded_bases.pretrain_encoder import EncoderSettings, pretrain_encoder
from benchmarks.embedded_bases.pretrain_lm import LmSettings, pretrain_lm
from trainers.files import write_json

BASES = Path(__file__).parents[2] / "trainers" / "embedded" / "bases"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_bases.pretrain", description=__doc__)
    commands = parser.add_subparsers(dest="base", required=True)
    for name, settings in (("encoder", EncoderSettings), ("lm", LmSettings)):
        command = commands.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.add_argument("--output", type=Path, default=BASES / name, help="folder of the base model")
        command.add_argument(
            "--scratch", type=Path, default=Path("runs/pretrain"), help="folder of features and checkpoints"
        )
        command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
        for field in dataclasses.fields(settings):
            option = "--" + field.name.replace("_", "-")
            if isinstance(field.default, bool):
                command.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
            else:
                command.add_argument(option, type=type(field.default), default=field.default)
    return parser


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run one pretraining and write `pretraining.json` (settings and measured quality) beside the model."""
    options = vars(build_parser().parse_args(arguments))
    base, output, scratch = options.pop("base"), options.pop("output"), options.pop("scratch")
    torch.set_num_threads(options.pop("threads"))
    if base == "encoder":
        result = pretrain_encoder(output, scratch, EncoderSettings(**options))
    else:
        result = pretrain_lm(output, scratch, LmSettings(**options))
    record = {"settings": options, "result": result}
    write_json(output / "pretraining.json", record)
    print(record)
    return record


if __name__ == "__main__":
    main()
