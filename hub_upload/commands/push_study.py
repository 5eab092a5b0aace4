"""`slam-asr push-study STUDY NAMESPACE/PREFIX`"""

import argparse
from pathlib import Path

from .arguments import add_build_arguments, add_hub_arguments, add_verify_timeout, build_options

HELP = """Publish a study's chosen checkpoints, each verified, as one collection.

Each model becomes NAMESPACE/PREFIX-NAME; its card has the study's table with links to the others. Without --choose, those runs
are taken that no other run of the same language beats in both error rate and number of parameters."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="STUDY", help="the study's output folder, with results.jsonl")
    parser.add_argument("prefix", metavar="NAMESPACE/PREFIX", help="beginning of the models' names")
    parser.add_argument(
        "--choose", action="append", default=[], metavar="NAME", help="a run to publish; may be given again"
    )
    parser.add_argument("--title", help="title of the collection (PREFIX)")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--adapter", action="store_true", help="projector and LoRA only")
    forms.add_argument("--standalone", action="store_true", help="every weight")
    parser.add_argument("--merge", action="store_true", help="standalone with LoRA added into the weights")
    parser.add_argument("--dry-run", action="store_true", help="print what would change")
    add_verify_timeout(parser)
    add_hub_arguments(parser)
    add_build_arguments(parser, study=False)


def run(args: argparse.Namespace) -> int:
    from hub_upload.client_environment import prepare_environment

    prepare_environment()
    from hub_upload.study import StudyOptions, push_study

    form = "adapter" if args.adapter else "standalone" if args.standalone else None
    options = StudyOptions(
        folder=args.folder,
        prefix=args.prefix,
        choose=tuple(args.choose),
        title=args.title,
        build=build_options(args, form=form, merge=args.merge),
        private=args.private,
        dry_run=args.dry_run,
        timeout=args.timeout,
        verify_timeout=args.verify_timeout,
    )
    push_study(options)
    return 0
