"""`slam-asr push DIR REPO_ID`"""

import argparse
from pathlib import Path

from ..client_environment import prepare_environment
from .arguments import add_build_arguments, add_form_arguments, add_hub_arguments, add_verify_timeout, options_by_name

HELP = """Publish a model folder to the Hugging Face Hub and verify it.

The folder is built whole, checked (no pickles, optimiser state, absolute paths, tokens, e-mail addresses, unpinned bases, or
results that `slam-asr evaluate` did not produce) and loaded back; then it is published in one commit; at the end a fresh
process with an empty cache loads that commit and must give the same logits and transcript. A second push of the same content
makes no commit. The token is that of `hf auth login` or HF_TOKEN."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the model folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="NAMESPACE/NAME")
    add_form_arguments(parser)
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch to commit to (main)")
    parser.add_argument(
        "--pr", dest="create_pr", action="store_true", help="open a pull request in place of a commit to the branch"
    )
    parser.add_argument("--tag", help="name the commit; the card's snippets then use this tag")
    parser.add_argument(
        "--dry-run", action="store_true", help="build, check and load back, then print what would change"
    )
    parser.add_argument("--message", default="Publish with slam-asr", help="title of the commit")
    parser.add_argument(
        "--audio", dest="recording", type=Path, metavar="FILE",
        help="recording for the proof (a synthetic one by default)",
    )  # fmt: skip
    parser.add_argument(
        "--user-text", choices=["local", "hub"], help="whose text counts where the card was edited here and on the Hub"
    )
    add_verify_timeout(parser)
    add_hub_arguments(parser)
    add_build_arguments(parser)


def run(args: argparse.Namespace) -> int:
    prepare_environment()
    from hub_upload.push import PushOptions, push_model

    result = push_model(PushOptions(**options_by_name(PushOptions, args)))
    if result.commit:
        print(f"{result.url}/tree/{result.commit}")
    return 0
