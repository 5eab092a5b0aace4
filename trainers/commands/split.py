"""`slam-asr split`: one's own table cut into train, validation and test by speaker."""

import argparse
from pathlib import Path

HELP = """\
Cut a table of recordings (csv, tsv, JSON lines, parquet), or a folder of sound files with their transcripts beside them, into
three tables for training, validation and test. No speaker is in two of them: a model is to be tested on voices that it has
not heard."""

EPILOG = """\
examples:
  slam-asr split my/all.csv                    # writes my/all-train.jsonl, my/all-validation.jsonl, my/all-test.jsonl
  slam-asr split my/all.csv --by session --test 20
  slam-asr split my/recordings                 # a.wav with a.txt, a.srt or a.vtt; writes my/recordings-train.jsonl, ...
  slam-asr train own_data train.dataset=my/all-train.jsonl validation.dataset=my/all-validation.jsonl language=nl

The files lie beside the table, as its paths may begin there; they have its columns. Rows without a speaker are for training."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("table", type=Path, metavar="TABLE", help="one utterance a line; or a folder")
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="rows with the same value stay together (default: the speaker by its usual names, else the sound file)",
    )
    for part in ("validation", "test"):
        parser.add_argument(
            f"--{part}", type=float, default=10.0, metavar="P", help="per cent of the rows (default: 10)"
        )
    parser.add_argument("--seed", type=int, default=42, help="another one chooses other speakers (default: 42)")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove an earlier split first, also a part of it that is left out now"
    )


def run(args: argparse.Namespace) -> int:
    """Write the parts and say what is in each."""
    from trainers.data.beside import table_of
    from trainers.data.rows import AUDIO_COLUMNS, SPEAKER_COLUMNS, TEXT_COLUMNS, first_present, optional_text
    from trainers.data.split import PARTS, split_groups
    from trainers.data.tables import json_values, read_table, table_suffix
    from trainers.errors import UserError
    from trainers.files import write_jsonl

    shares = {part: getattr(args, part) / 100 for part in PARTS[1:]}
    if min(shares.values()) < 0 or not 0 < sum(shares.values()) < 1:
        raise UserError(
            f"--validation {args.validation:g} and --test {args.test:g} are per cent of the rows: together above 0 and below 100."
        )
    table = table_of(args.table) if args.table.is_dir() else read_table(args.table)
    stem = args.table.name.removesuffix(".gz").removesuffix(table_suffix(args.table) or "")
    files = {part: args.table.with_name(f"{stem}-{part}.jsonl") for part in PARTS}
    targets = {part: path for part, path in files.items() if shares.get(part) != 0}
    earlier = [path for path in files.values() if path.exists()]
    if earlier and not args.overwrite:
        raise UserError(
            f"{', '.join(path.name for path in earlier)} of an earlier split lie beside {args.table}. Add --overwrite, which "
            "removes them, or move them."
        )
    if args.by is not None and args.by not in table.columns:
        raise UserError(f"--by {args.by}: {args.table} has no such column. Columns there: {', '.join(table.columns)}.")
    rows = [json_values(table.path, row) for row in table.rows if row.fault is None]
    broken = [row for row in table.rows if row.fault is not None]
    usual = next((name for name in SPEAKER_COLUMNS if name in table.columns), None)
    by = args.by or usual or next((name for name in AUDIO_COLUMNS if name in table.columns), None)
    if by is None:
        raise UserError(
            f"{args.table} names no speaker and no sound file. Columns there: {', '.join(table.columns)}. Add --by."
        )
    groups = [optional_text(row.get(by)) for row in rows]
    chosen = split_groups(groups, shares, args.seed)
    texts: dict[str, set[str]] = {}
    for path in earlier:  # before the first is written: parts of two splits would have speakers in common
        path.unlink()
        if path not in targets.values():
            print(f"{path} of an earlier split is removed.")
    for part, path in targets.items():
        mine = [row for row, place in zip(rows, chosen, strict=True) if place == part]
        write_jsonl(path, mine)
        texts[part] = {str(text).casefold() for row in mine if (text := first_present(row, TEXT_COLUMNS)) is not None}
        known = len({group for group, place in zip(groups, chosen, strict=True) if place == part and group is not None})
        print(f"{path}: {len(mine)} rows, {known} of column {by!r}")
    for part in [name for name in targets if name != PARTS[0]]:
        if same := len(texts[part] & texts[PARTS[0]]):
            print(f"{same} of the {len(texts[part])} texts of {part} are in the training data too.")
    if args.by is None and usual is None:
        print(
            "No column names the speaker, so a voice may be in several parts: figures will be better than for strangers."
        )
    clips = args.table.parent / "clips"  # of Common Voice as Mozilla has it
    name = first_present(rows[0], AUDIO_COLUMNS)
    if isinstance(name, str) and (clips / name).is_file() and not (args.table.parent / name).is_file():
        print(f"The sound lies in {clips}: set audio_root to that folder in train, validation and test.")
    for row in broken[:10]:
        print(f"Left out: {f'line {row.line}: ' if row.line else ''}{row.fault}")
    if len(broken) > 10:
        print(f"Left out: {len(broken) - 10} more")
    return 0
