"""`slam-asr compare`: paired comparison of two or more prediction files."""

import argparse
from pathlib import Path

from trainers.commands.score import add_scoring_arguments, add_training_text_argument, training_word_counts
from trainers.errors import UserError

HELP = "Compare prediction files of the same utterances: do the systems differ, and in what?"

_EPILOG = """
Each file holds one JSON object a line with reference, prediction and the same ids (or, without ids, the same lines);
see `slam-asr score --help`. speaker_id in the first file makes the bootstrap resample speakers.

Differences are B minus A: negative means that B makes fewer errors. Two tests are made, a paired bootstrap and the
matched pairs sentence-segment word error test (MAPSSWE); with more than two files every pair is tested and the p-values
are corrected by Holm's method. --output-dir gets comparison.json and report.md.

examples:
  slam-asr compare baseline/predictions.jsonl lora/predictions.jsonl --language nl --names baseline lora
  slam-asr compare a.jsonl b.jsonl c.jsonl --normalizer paper --output-dir comparison
  slam-asr compare a.jsonl b.jsonl --language nl --language-model Qwen/Qwen2.5-3B --output-dir comparison
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Paired comparison of recognisers on the same utterances, with intervals and tests."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE.jsonl", help="two or more prediction files: A B ..."
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
    names = args.names or default_names(args.files)
    if len(names) != len(args.files) or len(set(names)) != len(names):
        raise UserError(f"--names needs {len(args.files)} different names, one for each file; got {names}.")
    if args.bootstrap < 1:
        raise UserError(f"--bootstrap must be at least 1 for a comparison, got {args.bootstrap}.")
    systems = {name: read_predictions(path) for name, path in zip(names, args.files, strict=True)}
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
        print(f"report in {write_comparison(args.output_dir, comparison)}")
    return 0


def default_names(paths: list[Path]) -> list[str]:
    """The shortest names that tell the files apart: stems, else folders, else whole paths."""
    for names in ([p.stem for p in paths], [p.resolve().parent.name for p in paths], [str(p) for p in paths]):
        if len(set(names)) == len(names):
            return names
    raise UserError("The same file is given twice; compare two different files, or copy it under another name.")
