"""`slam-asr evaluate`: transcribe a data set with a model and score it."""

import argparse
import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from trainers.commands.arguments import add_data_arguments, add_decoding_arguments, data_spec, decoding_of
from trainers.commands.score import LEADERBOARD, add_protocol_argument, describe_counts, describe_leaderboard
from trainers.results import EVALUATION_FILES

HELP = """\
Transcribe a data set with a model and score the transcripts: word error rate with a confidence interval,
substitutions, deletions and insertions, character error rate and speed."""

EPILOG = f"""\
examples:
  slam-asr evaluate quickstart/model --dataset embedded --output-dir runs/quickstart-test
  slam-asr evaluate my/model --dataset data/test.jsonl --language nl
  slam-asr evaluate user/slam-asr-danish --dataset fixie-ai/common_voice_17_0 --config da
  slam-asr evaluate my/model --dataset hf-audio/open-asr-leaderboard --config ami_cleaned --protocol open-asr-leaderboard

The data set is a Hub name, a JSON Lines manifest with `audio` and `text`, or another kind of docs/training.md.
Writes {", ".join(EVALUATION_FILES)}. Results of several data sets accumulate, a folder each,
and evaluation/index.md shows them together. Interrupted, the same command goes on where it was."""


def configure(parser: argparse.ArgumentParser) -> None:
    from trainers.engines import add_engine_arguments

    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a model folder or Hub name")
    data = parser.add_argument_group("data")
    add_data_arguments(data, split="test")
    data.add_argument(
        "--max-bad-fraction", type=float, default=0.01, metavar="F", help="stop if more files are damaged"
    )
    decoding = parser.add_argument_group("decoding")
    add_decoding_arguments(decoding)
    decoding.add_argument(
        "--batch-size", type=int, default=8, help="recordings at a time; in float32 the result does not depend on it"
    )
    add_engine_arguments(decoding)
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--normalizer", help="a language, or basic, paper or none (default: the language's own)")
    scoring.add_argument(
        "--resamples", type=int, default=1000, help="bootstrap resamples of the interval (default: 1000)"
    )
    scoring.add_argument("--seed", type=int, default=42)
    add_protocol_argument(parser)
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="default: evaluation/NAME/ in a model folder, else runs/evaluate/NAME/, of the data",
    )


def data_name(published: Mapping[str, str]) -> str:
    """The name of a data set's folder: its own, its configuration, and its split where that is not `test`."""
    split = published.get("split")
    stem = re.sub(r"\.(jsonl?|ndjson|csv|tsv|parquet|txt)(\.gz)?$", "", published["name"])
    parts = [stem, published.get("config"), None if split == "test" else split]
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in parts if part)).strip(".") or "data"


def place_for(folder: Path, references: Mapping[str, str]) -> Path:
    """The folder, or `folder-2` and so on where it holds results of other data, or of more.

    references: what is said in each utterance by its id. Ids alone tell nothing: those of many data sets are 1, 2, 3.
    """
    from trainers.errors import UserError
    from trainers.evaluation.predictions import read_predictions

    for number in itertools.count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            found = {row["id"]: row["reference"] for row in read_predictions(place / "predictions.jsonl")}
        except (OSError, UserError):
            return place
        if found.items() <= references.items():
            return place
    raise AssertionError("unreachable")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the figures."""
    from trainers.errors import UserError
    from trainers.serving.without_torch import prepare_process

    prepare_process(args.engine)
    from trainers.data.prepare import NOT_CHOSEN, prepare
    from trainers.engines import check_decoding, load_pipeline
    from trainers.evaluation import get_normalizer
    from trainers.evaluation.format import number, percent, percent_range
    from trainers.evaluation.reports import write_index
    from trainers.inference.evaluate import evaluate
    from trainers.results import EVALUATIONS, RATES, read_evaluations

    if args.normalizer is not None:
        get_normalizer(args.normalizer)  # a misspelt name is told before hours of decoding
    decoding = decoding_of(args)
    if args.resamples < 0:
        raise UserError(f"--resamples {args.resamples}: it must be 0 or more.")
    leaderboard = args.protocol == LEADERBOARD
    if leaderboard and args.language not in (None, "en"):
        raise UserError(f"--protocol {LEADERBOARD} is for English, but --language is {args.language}.")
    if leaderboard and args.num_beams not in (None, 1):
        raise UserError(f"--protocol {LEADERBOARD} decodes greedily: leave --num-beams {args.num_beams} out.")
    pipe = load_pipeline(args.model, engine=args.engine, device=args.device, dtype=args.dtype, revision=args.revision)
    check_decoding(pipe, decoding)
    local = Path(args.model).is_dir()
    spec = data_spec(
        args, lowercase=False, remove_punctuation=False, min_duration=0.0, max_duration=float("inf"), min_characters=0
    )  # fmt: skip
    root = Path(args.model) / EVALUATIONS if local else Path("runs/evaluate")
    folder = args.output_dir or root / data_name(spec.published_name())
    dataset, report = prepare([spec], "test", seed=args.seed, max_bad_fraction=args.max_bad_fraction, output_dir=folder)
    print(report.describe())
    if args.output_dir is None:
        folder = place_for(folder, dict(zip(dataset["id"], dataset["text"], strict=True)))
    metrics = evaluate(
        args.model, dataset, folder, pipe=pipe, language=args.language, normalizer=args.normalizer,
        batch_size=args.batch_size, resamples=args.resamples, seed=args.seed,
        generate_kwargs=decoding or None,
        dataset_name=spec.published_name(), left_out=report.dropped[NOT_CHOSEN], leaderboard=leaderboard,
    )  # fmt: skip
    interval = "" if metrics["wer_ci"] is None else f" (95 % interval {percent_range(metrics['wer_ci'])})"
    further = "".join(f", {rate.short} {percent(rate.of(metrics))}" for rate in RATES[1:])
    fractions = ", ".join(f"{rate.short} {number(rate.of(metrics), 4)}" for rate in RATES)
    print(
        f"WER {percent(metrics['wer'])}{interval}{further}: {describe_counts(metrics)} "
        f"of {metrics['reference_words']:,} reference words; {metrics['eval_rtfx']:.1f} x real time\n"
        f"{folder / 'report.md'}\n{folder / 'report.html'}\n"
        f"{folder / 'metrics.json'} (rates as fractions: {fractions})"
    )
    if leaderboard:
        print(describe_leaderboard(metrics["leaderboard"]))
    if local and args.output_dir is None and len(evaluations := read_evaluations(args.model)) > 1:
        print(f"{len(evaluations)} evaluations of this model: {write_index(root, evaluations)}")
    return 0
