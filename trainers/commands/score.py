"""`slam-asr score`: score a prediction file of any recogniser."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.results import COUNTS, EVALUATION_FILES, LeaderboardFigures, PredictionRow

LEADERBOARD = "open-asr-leaderboard"
HELP = "Score a file of references and predictions; no model is needed."

_EPILOG = f"""
With --output-dir {", ".join(EVALUATION_FILES)} are written: the figures, normalized texts and
alignments, and the report (in a browser: sortable table, coloured alignments, audio, plots).
"""
_EPILOG += """
The file holds one JSON object a line: {"reference": "...", "prediction": "..."}, and optionally id, language,
speaker_id, source, duration (seconds of audio), seconds (of decoding), audio (path), confidence, truncated.

examples:
  slam-asr score predictions.jsonl --language nl
  slam-asr score predictions.jsonl --normalizer paper --output-dir scores
  slam-asr score predictions.jsonl --language da --training-text train.txt --output-dir scores
  slam-asr score predictions.jsonl --protocol open-asr-leaderboard --model-id me/model \\
      --dataset-id some/set --split test.clean
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Corpus word and character error rates with bootstrap intervals, counts of substitutions, deletions and "
        "insertions, and an analysis of the errors."
    )
    parser.epilog = _EPILOG
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="the prediction file")
    add_scoring_arguments(parser)
    add_training_text_argument(parser)
    parser.add_argument("--title", help="title of the reports (default: the file's name)")
    add_protocol_argument(parser)
    parser.add_argument("--model-id", default="local/model", help="the model's id in the leaderboard manifest's name")
    parser.add_argument("--dataset-id", default="local/dataset", help="the data set's id in the manifest's name")
    parser.add_argument("--split", default="test", help="the split in the manifest's name (default: %(default)s)")


def add_protocol_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that `score` and `evaluate` share."""
    parser.add_argument(
        "--protocol",
        choices=("slam-asr", LEADERBOARD),
        default="slam-asr",
        help=f"{LEADERBOARD}: also give WER and RTFx as that leaderboard does (English), and write the manifest "
        "that its scorer reads (default: %(default)s)",
    )


def describe_leaderboard(figures: LeaderboardFigures) -> str:
    """What `leaderboard_score` found, as a line."""
    rtfx = "unknown (rows need duration and seconds)" if figures["rtfx"] is None else figures["rtfx"]
    return f"Open ASR Leaderboard protocol: WER {figures['wer']:.2f} %, RTFx {rtfx}"


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `score` and `compare` share."""
    parser.add_argument(
        "--language", help="language code such as nl: chooses the normalizer for rows that name no language"
    )
    parser.add_argument(
        "--normalizer",
        help="a language, or basic, paper or none, for all rows (default: each row's language's own, else basic)",
    )
    parser.add_argument(
        "--output-dir", type=Path, help="folder for the reports; without it only the figures are printed"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=10_000, metavar="N", help="number of resamples (default: %(default)s)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the resampling (default: %(default)s)")


def add_training_text_argument(parser: argparse.ArgumentParser) -> None:
    """The argument for errors by word frequency."""
    parser.add_argument(
        "--training-text",
        type=Path,
        action="append",
        metavar="FILE",
        help="a text that the system was trained on, one sentence a line: word errors are then binned by how often it "
        "has the word (may be given again)",
    )


def training_word_counts(args: argparse.Namespace, rows: Sequence[PredictionRow]) -> Counter[str] | None:
    """Word counts of the --training-text files, normalised as the rows are; `None` without such files.

    Where the rows are normalised in several ways, so are the texts; a word counts as often as it is found in one of them.
    """
    if not args.training_text:
        return None
    from trainers.evaluation import get_normalizer, normalizer_for_language
    from trainers.evaluation.scoring import row_languages

    languages = set(row_languages(rows, args.language))
    names = {args.normalizer or normalizer_for_language(language) for language in languages}
    counts: Counter[str] = Counter()
    for name in sorted(names):
        counts |= count_words(args.training_text, get_normalizer(name))
    return counts


def count_words(paths: Iterable[Path], normalizer: Callable[[str], str]) -> Counter[str]:
    """Counts of the normalised words in text files of one sentence a line."""
    counts: Counter[str] = Counter()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The training text {path} cannot be read: {error}. Give a UTF-8 text file.") from error
        for line in lines:
            counts.update(normalizer(line).split())
    return counts


def run(args: argparse.Namespace) -> int:
    """Score the file, print the figures, write the reports."""
    from trainers.evaluation import evaluate_rows, read_predictions
    from trainers.evaluation.format import RATE_NAMES, rates_with_intervals

    rows = with_local_audio(read_predictions(args.file), args.file.parent)
    extra: dict[str, LeaderboardFigures] = {}
    if args.protocol == LEADERBOARD:
        from trainers.evaluation.leaderboard import leaderboard_score, write_manifest

        extra["leaderboard"] = leaderboard_score(rows)
        if args.output_dir:
            write_manifest(args.output_dir, rows, model_id=args.model_id, dataset=args.dataset_id, split=args.split)
    metrics = evaluate_rows(
        rows,
        args.output_dir,
        normalizer=args.normalizer,
        language=args.language,
        title=args.title or args.file.name,
        word_counts=training_word_counts(args, rows),
        extra=extra,
        bootstrap=args.bootstrap,
        confidence=args.confidence,
        seed=args.seed,
    )
    for name, cell in zip(RATE_NAMES, rates_with_intervals(metrics), strict=True):
        print(f"{name}  {cell}")
    counted = describe_counts(metrics)
    print(f"{counted}; {metrics['reference_words']:,} reference words in {metrics['utterances']:,} utterances")
    print(f"normalizer {metrics['normalizer']}")
    for note in metrics["notes"]:
        print(f"note: {note}")
    if extra:
        print(describe_leaderboard(extra["leaderboard"]))
    if args.output_dir:
        print(f"reports in {args.output_dir}")
    return 0


def describe_counts(metrics: Mapping[str, Any]) -> str:
    """`12 substitutions, 3 deletions, ...`, as text."""
    return ", ".join(f"{metrics[kind]:,} {kind}" for kind in COUNTS)


def with_local_audio(rows: list[PredictionRow], folder: Path) -> list[PredictionRow]:
    """Resolve audio paths that are relative to the prediction file."""
    for row in rows:
        audio = row.get("audio")
        if audio and not Path(audio).is_absolute() and (folder / audio).is_file():
            row["audio"] = str((folder / audio).resolve())
    return rows
