"""`slam-asr push-study STUDY NAMESPACE/PREFIX`"""

import argparse
from pathlib import Path

from ..client_environment import prepare_environment
from .arguments import add_build_arguments, add_form_arguments, add_hub_arguments, add_verify_timeout, options_by_name

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
    add_form_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would change")
    add_verify_timeout(parser)
    add_hub_arguments(parser)
    add_build_arguments(parser, study=False)


def run(args: argparse.Namespace) -> int:
    prepare_environment()
    from hub_upload.study import StudyOptions, push_study

    push_study(StudyOptions(**options_by_name(StudyOptions, args)))
    return 0
