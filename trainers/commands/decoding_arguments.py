"""The options of every command that decodes."""

import argparse
from typing import Any

from trainers.errors import UserError


def add_decoding_arguments(group: Any) -> None:
    """`--num-beams`, `--max-new-tokens` and `--ctc-weight`, each the model's own setting when left out."""
    group.add_argument("--num-beams", type=int, help="beams (default: the model's own setting)")
    group.add_argument(
        "--max-new-tokens",
        type=int,
        help="longest transcript of a window, in tokens (default: the model's own setting, else from the window's length)",
    )
    group.add_argument(
        "--ctc-weight",
        type=float,
        metavar="W",
        help="what the CTC head says beside the LLM, from 0 to below 1 (default: the model's own setting)",
    )


def add_window_arguments(group: Any) -> None:
    """`--window-seconds`, `--vad` and `--drop-no-speech`, of the commands that cut recordings into windows."""
    group.add_argument(
        "--window-seconds",
        type=float,
        help="longest window (default: the model's, from the lengths that it was trained on)",
    )
    group.add_argument(
        "--vad", metavar="DETECTOR", help="transcribe only where this voice detector hears speech, such as silero"
    )
    group.add_argument("--drop-no-speech", action="store_true", help="leave steady noise untranscribed too")


def decoding_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as keyword arguments of `generate`.

    Raises:
        UserError: a value out of its range.
    """
    for name in ("num_beams", "max_new_tokens"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: it must be 1 or more.")
    if args.ctc_weight is not None and not 0 <= args.ctc_weight < 1:
        raise UserError(f"--ctc-weight {args.ctc_weight}: it must be from 0 to below 1.")
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens, "ctc_weight": args.ctc_weight}
    return {name: value for name, value in decoding.items() if value is not None}
