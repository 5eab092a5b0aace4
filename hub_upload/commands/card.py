"""`slam-asr card DIR`"""

import argparse
from pathlib import Path

from ..client_environment import prepare_environment
from .arguments import add_build_arguments, build_options

HELP = """Write the model card (README.md) of a model folder.

Every figure comes from a file in the folder or from --evaluation and --study, which are copied into it. Text between the marks
`<!-- user text: ... -->` and `<!-- end of user text -->` is yours and is kept."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the model folder")
    parser.add_argument(
        "--repo-id", metavar="REPO_ID", help="where the model will be published; it stands in the snippets"
    )
    parser.add_argument("--tag", help="revision in the snippets, in place of main")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the card there in place of DIR/README.md")
    add_build_arguments(parser)


def run(args: argparse.Namespace) -> int:
    prepare_environment()
    from hub_upload.build import write_card
    from hub_upload.card import CardOptions

    repo_id = args.repo_id or f"your-name/{args.folder.resolve().name}"
    options = CardOptions(repo_id, revision=args.tag or "main")
    print(write_card(args.folder, build_options(args), options, args.output))
    return 0
