"""The arguments that say which data a command reads; one that is used on the spot is a recipe's key too."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.data.spec import DataSpec


def add_data_arguments(parser: Any, split: str, limit: int | None = None) -> None:
    """Add them to a parser or a group of one; `split` and `limit` (None: all recordings) are the defaults."""
    parser.add_argument("--dataset", required=True, help="Hub name, folder, manifest, or 'embedded'")
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

    names = ("dataset", "config", "split", "audio_column", "text_column", "audio_root", "segments", "language")
    values = {name: getattr(args, name) for name in names}
    refuse_credentials(values)
    return DataSpec(**values, max_samples=args.limit, **filters)
