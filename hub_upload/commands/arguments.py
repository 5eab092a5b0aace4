"""Options that the publishing commands share."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.errors import UserError

from ..client_environment import HUB_TIMEOUT, VERIFY_TIMEOUT

if TYPE_CHECKING:
    from ..build import BuildOptions


def add_build_arguments(parser: argparse.ArgumentParser, study: bool = True) -> None:
    """Options that decide what a card is made from."""
    parser.add_argument(
        "--evaluation", type=Path, action="append", default=[], metavar="PATH",
        help="a metrics.json of `slam-asr evaluate`, or its folder, beside those in DIR; may be given again",
    )  # fmt: skip
    if study:
        parser.add_argument(
            "--study", type=Path, metavar="FILE", help="results.json or results.jsonl with runs at other depths"
        )
    parser.add_argument(
        "--licence", action="append", default=[], metavar="NAME=ID",
        help="licence of a base model or data set, for example nst=cc0-1.0; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--base", action="append", default=[], metavar="PART=REPO_ID[@REVISION]",
        help="where the base model of a local folder is on the Hub, for --adapter: audio=openai/whisper-tiny; for text too",
    )  # fmt: skip
    parser.add_argument(
        "--with-predictions", action="store_true",
        help="publish predictions.jsonl too: transcripts and names of clips of the test data",
    )  # fmt: skip
    parser.add_argument(
        "--no-limits", action="store_true", help="do not measure silence, noise and batches when limits.json is missing"
    )


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the form that a model is published in; without one it keeps its own."""
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--adapter",
        action="store_true",
        help="projector and LoRA only; the base models come from their own repositories",
    )
    forms.add_argument("--standalone", action="store_true", help="every weight")
    parser.add_argument("--merge", action="store_true", help="standalone with LoRA added into the weights")


def add_hub_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of commands that talk to the Hub. The token comes from `hf auth login` or HF_TOKEN, never from an option."""
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--timeout",
        type=positive,
        default=HUB_TIMEOUT,
        metavar="SECONDS",
        help=f"give up on a Hub that is silent for so long ({HUB_TIMEOUT:.0f})",
    )


def add_verify_timeout(parser: argparse.ArgumentParser) -> None:
    """The option of commands that load what they published in a fresh process."""
    parser.add_argument(
        "--verify-timeout", type=positive, default=VERIFY_TIMEOUT, metavar="SECONDS",
        help=f"longest time to load and use a model ({VERIFY_TIMEOUT:.0f})",
    )  # fmt: skip


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def read_licences(pairs: list[str]) -> dict[str, str]:
    """`["nst=cc0-1.0"]` as a mapping."""
    for pair in pairs:
        if not all(pair.partition("=")[::2]):
            raise UserError(f"--licence {pair!r} must be NAME=ID, for example --licence nst=cc0-1.0.")
    return dict(pair.rsplit("=", 1) for pair in pairs)


def read_bases(pairs: list[str]) -> dict[str, tuple[str, str]]:
    """`["audio=openai/whisper-tiny@main"]` as repository and revision by part."""
    found = {}
    for pair in pairs:
        part, _, where = pair.partition("=")
        repo_id, _, revision = where.partition("@")
        if part not in ("audio", "text") or not repo_id:
            raise UserError(f"--base {pair!r} must be audio=REPO_ID or text=REPO_ID, with @REVISION if wanted.")
        found[part] = (repo_id, revision)
    return found


def build_options(args: argparse.Namespace) -> "BuildOptions":
    """From the options of `add_build_arguments` and, where the command has them, `add_form_arguments`."""
    from hub_upload.build import BuildOptions

    return BuildOptions(
        evaluations=tuple(args.evaluation),
        study=getattr(args, "study", None),
        licences=read_licences(args.licence),
        measure=not args.no_limits,
        predictions=args.with_predictions,
        bases=read_bases(args.base),
        form=next((form for form in ("adapter", "standalone") if getattr(args, form, False)), None),
        merge=getattr(args, "merge", False),
    )


def options_by_name(kind: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a dataclass of options, each from the argument of its name; `build` from `build_options`."""
    named = {field.name: getattr(args, field.name) for field in fields(kind) if field.name != "build"}
    return {**named, "build": build_options(args)}
