"""The options that several commands have: which data one reads (one that is used on the spot is a recipe's key too), and how it decodes."""

import argparse
from typing import TYPE_CHECKING, Any

from trainers.data.kinds import KIND_NAMES
from trainers.errors import UserError

if TYPE_CHECKING:
    from trainers.data.spec import DataSpec


def add_data_arguments(parser: Any, split: str, limit: int | None = None) -> None:
    """Add them to a parser or a group of one; `split` and `limit` (None: all recordings) are the defaults."""
    parser.add_argument("--dataset", required=True, help="Hub name, folder, manifest, or 'embedded'")
    parser.add_argument(
        "--format",
        choices=("auto", *KIND_NAMES),
        default="auto",
        help="kind of data set (default: found from what it is)",
    )
    parser.add_argument("--config", help="configuration of a Hub data set, for instance its language")
    parser.add_argument("--split", default=split, help=f"split to read (default: {split})")
    parser.add_argument("--audio-column", help="column with the recordings (default: found by its usual names)")
    parser.add_argument("--text-column", help="column with the transcripts (default: found by its usual names)")
    parser.add_argument(
        "--audio-root", metavar="DIR", help="folder that rows' files are named from and lie in (default: the data's)"
    )
    parser.add_argument(
        "--segments",
        choices=("auto", "ignore"),
        default="auto",
        help="'ignore': read recordings whole, whatever part of them their rows name",
    )
    parser.add_argument("--language", help="language of all recordings, such as nl (default: each row's own)")
    parser.add_argument(
        "--limit",
        type=int,
        default=limit,
        metavar="N",
        help=f"use only N recordings, a seeded choice (default: {limit or 'all'})",
    )


def data_spec(args: argparse.Namespace, **filters: Any) -> "DataSpec":
    """The source that the arguments name; `filters` are further fields."""
    from trainers.credentials import refuse_credentials
    from trainers.data.spec import DataSpec

    names = (
        "dataset",
        "format",
        "config",
        "split",
        "audio_column",
        "text_column",
        "audio_root",
        "segments",
        "language",
    )
    values = {name: getattr(args, name) for name in names}
    refuse_credentials(values)
    return DataSpec(**values, max_samples=args.limit, **filters)


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
        UserError: a value out of its range, the batch size of a command that has one included.
    """
    for name in ("num_beams", "max_new_tokens", "batch_size"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: it must be 1 or more.")
    if args.ctc_weight is not None and not 0 <= args.ctc_weight < 1:
        raise UserError(f"--ctc-weight {args.ctc_weight}: it must be from 0 to below 1.")
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens, "ctc_weight": args.ctc_weight}
    return {name: value for name, value in decoding.items() if value is not None}
