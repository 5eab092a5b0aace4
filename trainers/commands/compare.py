"""`slam-asr compare`: paired comparison of two or more prediction files."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from trainers.commands.score import add_scoring_arguments, add_training_text_argument, training_word_counts
from trainers.errors import UserError
from trainers.results import EVALUATIONS, read_evaluations

PREDICTIONS = "predictions.jsonl"
HELP = "Compare prediction files of the same utterances: do the systems differ, and in what?"

_EPILOG = """
Each system is a prediction file, or a folder: of one evaluation, or of a model with its evaluations (those of the data
set that all systems have are compared). Each file holds one JSON object a line with reference, prediction and the same ids (or, without ids, the same lines);
see `slam-asr score --help`. speaker_id in the first file makes the bootstrap resample speakers.

Differences are B minus A: negative means that B makes fewer errors. Two tests are made, a paired bootstrap and the
matched pairs sentence-segment word error test (MAPSSWE); with more than two files every pair is tested and the p-values
are corrected by Holm's method. --output-dir gets comparison.json, report.md and report.html.

examples:
  slam-asr compare baseline/predictions.jsonl lora/predictions.jsonl --language nl --names baseline lora
  slam-asr compare runs/projector runs/lora --output-dir comparison
  slam-asr compare a.jsonl b.jsonl c.jsonl --normalizer paper --output-dir comparison
  slam-asr compare a.jsonl b.jsonl --language nl --language-model Qwen/Qwen2.5-3B --output-dir comparison
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Paired comparison of recognisers on the same utterances, with intervals and tests."
    parser.epilog = _EPILOG
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="SYSTEM", help="two or more prediction files or folders: A B ..."
    )
    parser.add_argument("--names", nargs="+", help="names of the systems, one for each file (default: from the paths)")
    add_scoring_arguments(parser)
    add_training_text_argument(parser)
    parser.add_argument(
        "--language-model",
        metavar="MODEL",
        help="a causal language model (folder or Hub id): also ask whether its text-only probability explains the "
        "errors that B fixed and made",
    )
    parser.add_argument(
        "--prior-errors",
        type=int,
        default=2_000,
        metavar="N",
        help="score at most so many errors (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare the files, print a verdict for each pair, write the report."""
    from trainers.evaluation import compare, read_predictions
    from trainers.evaluation.comparison_report import verdict, write_comparison

    if len(args.files) < 2:
        raise UserError(f"A comparison needs two prediction files, got {len(args.files)}. Name the second file too.")
    files = find_predictions(args.files)
    names = args.names or default_names(files)
    if len(names) != len(args.files) or len(set(names)) != len(names):
        raise UserError(f"--names needs {len(args.files)} different names, one for each file; got {names}.")
    if args.bootstrap < 1:
        raise UserError(f"--bootstrap must be at least 1 for a comparison, got {args.bootstrap}.")
    systems = {name: read_predictions(path) for name, path in zip(names, files, strict=True)}
    scorer = None
    if args.language_model:
        from trainers.evaluation.language_prior import load_scorer

        scorer = load_scorer(args.language_model)
    comparison = compare(
        systems,
        normalizer=args.normalizer,
        language=args.language,
        bootstrap=args.bootstrap,
        confidence=args.confidence,
        seed=args.seed,
        word_counts=training_word_counts(args, systems[names[0]]),
        text_scorer=scorer,
        most_prior_errors=args.prior_errors,
    )
    for pair in comparison["comparisons"]:
        print(verdict(pair, comparison["alpha"]))
    if args.output_dir:
        report = write_comparison(args.output_dir, comparison)
        print(f"report in {report} and {report.with_suffix('.html')}")
    return 0


def find_predictions(paths: Sequence[Path]) -> list[Path]:
    """The prediction file of each system: the file itself, or that of a folder.

    A model with several evaluations gives the one of the data set that every system has been evaluated on.

    Raises:
        UserError: a folder holds none, or the data set is not clear.
    """
    choices = [_evaluated(path) for path in paths]
    several = [found for found in choices if len(found) > 1]
    common = set.intersection(*(set(found) for found in several)) if several else set()
    if several and len(common) != 1:
        known = "; ".join(f"{path}: {', '.join(found)}" for path, found in zip(paths, choices, strict=True) if found)
        raise UserError(
            f"Which data set is to be compared is not clear ({known}). Name the folders of the evaluations, such as "
            f"{paths[0] / 'evaluation' / next(iter(several[0]))}."
        )
    return [found[next(iter(common))] if len(found) > 1 else next(iter(found.values())) for found in choices]


def _evaluated(path: Path) -> dict[str, Path]:
    """The prediction files that a system's path can mean, by the name of the data."""
    if not path.is_dir():
        return {path.name: path}
    below = {(path / one.path).parent.name: (path / one.path).parent for one in read_evaluations(path)}
    folders = below or {path.name: path if (path / PREDICTIONS).is_file() else path / EVALUATIONS}
    found = {name: folder / PREDICTIONS for name, folder in folders.items() if (folder / PREDICTIONS).is_file()}
    if not found:
        raise UserError(
            f"{path} holds no {PREDICTIONS}, nor does an evaluation in it. `slam-asr evaluate {path} --dataset ...` makes one."
        )
    return found


def _alike(parts: Sequence[tuple[str, ...]]) -> int:
    """How many parts all of them begin with."""
    return sum(1 for _ in itertools.takewhile(lambda places: len(set(places)) == 1, zip(*parts, strict=False)))


def default_names(paths: list[Path]) -> list[str]:
    """The shortest names that tell the files apart: what their paths do not begin and do not end with alike."""
    parts = [(*path.parent.resolve().parts, path.stem) for path in paths]
    if len(set(parts)) < len(parts):
        raise UserError("The same file is given twice; compare two different files, or copy it under another name.")
    start = _alike(parts)
    end = _alike([one[start:][::-1] for one in parts])
    names = ["/".join(one[start : len(one) - end]) for one in parts]
    # Files that differ in one folder are named by it; where one path is part of another, whole paths are clearer.
    return names if all(names) and len(set(names)) == len(names) else [str(path) for path in paths]
