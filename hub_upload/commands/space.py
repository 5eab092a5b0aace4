"""`slam-asr space REPO_ID`"""

import argparse

from ..client_environment import prepare_environment
from .arguments import add_hub_arguments

HELP = """Publish a demo of a model as a Gradio Space, or run the same app here with --local.

The app takes the microphone or a file of any length, shows the text while it is generated, and times if wanted. The Space loads
the model at the commit that it has now."""


def configure(parser: argparse.ArgumentParser) -> None:
    from trainers.engines import ENGINES

    parser.add_argument("model", metavar="REPO_ID", help="the published model; with --local also a model folder")
    parser.add_argument("--local", action="store_true", help="run the app on this machine and publish nothing")
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="torch",
        help="with --local: what computes (docs/publishing.md)",
    )
    parser.add_argument("--port", type=int, help="with --local: port to listen on")
    parser.add_argument("--space-id", metavar="SPACE_ID", help="NAMESPACE/NAME of the Space (REPO_ID-demo)")
    parser.add_argument("--revision", help="branch, tag or commit of the model (main)")
    add_hub_arguments(parser)


def run(args: argparse.Namespace) -> int:
    prepare_environment()
    from hub_upload.space import push_space, run_local
    from trainers.errors import UserError

    if args.local:
        return run_local(args.model, args.revision, args.port, args.timeout, args.engine)
    if args.engine != "torch":
        raise UserError(
            f"--engine {args.engine}: a Space has the model's own code, which computes with torch. Add --local, or leave it out."
        )
    push_space(args.model, args.space_id, args.revision, private=args.private, timeout=args.timeout)
    return 0
