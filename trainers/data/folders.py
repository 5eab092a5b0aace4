"""AudioFolder: sound files with metadata beside or above them."""

import dataclasses
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from trainers.data.manifests import utterances
from trainers.data.places import Place
from trainers.data.rows import TEXT_COLUMNS, Utterance, pick_column
from trainers.data.spec import DataSpec
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.data.tables import Table, read_table
from trainers.errors import UserError

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.tsv")
SPLIT_ALIASES = {"validation": ("validation", "valid", "val", "dev"), "dev": ("dev", "validation", "valid", "val")}
SPLITS = frozenset(("train", "test", "eval", *SPLIT_ALIASES["validation"]))

logger = logging.getLogger(__name__)


def named_split(split: str, there: Collection[str]) -> str | None:
    """The split of those `there` that has this name, or else one of the usual others for it; None where there is none."""
    return next((name for name in SPLIT_ALIASES.get(split, (split,)) if name in there), None)


def is_audio_folder(spec: DataSpec) -> bool:
    """True where a metadata file lies in the folder or below it."""
    return next(_metadata_below(spec.path), None) is not None


def load_audio_folder(spec: DataSpec, downloaded: bool = False) -> list[Utterance]:
    """A folder in the AudioFolder form of `datasets`: sound files and `metadata.csv` (or .jsonl, .parquet), at any depth.

    The split is a sub-folder of that name, or the rows of the folder's own metadata with that value in a `split`
    column, or, with neither, every row for the split `train`. Sound files that no row names are counted in a warning.

    Args:
        downloaded: the folder is a snapshot of the Hub's cache: what it links to must lie there.
    """
    root = spec.path
    if not root.is_dir():
        raise UserError(f"The folder {spec.dataset!r} does not exist.")
    names = SPLIT_ALIASES.get(spec.split, (spec.split,))
    inside = next((root / name for name in names if (root / name).is_dir()), None)
    folder = inside if inside is not None and next(_metadata_below(inside), None) is not None else root
    # Beside the folder's own metadata there may be folders of other splits with theirs.
    other = {name for name in SPLITS if name not in names} if folder == root else set()
    files = _metadata_files(folder, other)
    if not files:
        there = sorted(
            {path.relative_to(root).parts[0] for path in _metadata_below(root) if len(path.relative_to(root).parts) > 1}
        )
        found = f" Splits there: {', '.join(there)}." if there else ""
        raise UserError(
            f"{inside or folder} has no metadata.csv, metadata.jsonl or metadata.parquet for split {spec.split!r}.{found}"
        )
    # A snapshot of the Hub's cache has links to its repository's files, two folders up.
    cached = root.resolve().parents[1] if downloaded else None
    found_rows: list[Utterance] = []
    seen: dict[str, Path] = {}  # sound by the metadata file that names it, rows of other splits included
    for file in files:
        table = read_table(file)
        rows = _of_split(table, spec, names, root, folder, inside)
        where = f"The metadata file {file}"
        file_column = pick_column(spec.audio_column, ("file_name",), table.columns, "audio", where)
        text_column = pick_column(spec.text_column, TEXT_COLUMNS, table.columns, "text", where)
        near = Place(spec, file.parent, root=root, cached=cached)
        nearer = set(seen)
        for each in table.rows:
            seen.setdefault(os.path.abspath(near.folder / str(each.values.get(file_column))), file)
        for row in utterances(rows, spec, near, file_column, text_column, where, root.name):
            if row.audio is not None and os.path.abspath(row.audio) in nearer:
                continue  # the metadata file in its own folder has named it already
            if file.parent != folder:
                row = dataclasses.replace(row, id=f"{file.parent.relative_to(folder).as_posix()}/{row.id}")
            found_rows.append(row)
    _tell_unnamed(folder if folder != root or inside is None else inside, seen, other)
    return found_rows


def _of_split(
    table: Table, spec: DataSpec, names: tuple[str, ...], root: Path, folder: Path, inside: Path | None
) -> Table:
    """The rows of a metadata file that belong to the split."""
    if folder != root:
        return table
    where, rows = f"The metadata file {table.path}", table.rows
    if "split" in table.columns:
        there = sorted({str(row.values.get("split")) for row in rows})
        rows = [row for row in rows if row.fault is not None or row.values.get("split") in names]
        if not any(row.fault is None for row in rows):
            raise UserError(f"{where} has no rows of split {spec.split!r}. Splits there: {', '.join(there)}.")
    elif inside is not None and "file_name" in table.columns:
        rows = [
            row
            for row in rows
            if row.fault is not None or Path(str(row.values.get("file_name"))).parts[:1] == (inside.name,)
        ]
    elif spec.split != "train":
        raise UserError(
            f"{root} has neither a folder nor a `split` column for split {spec.split!r}: everything is 'train'. Ask for that split "
            "(`--split train`, in a recipe `split: train`), or name the parts in a `split` column."
        )
    return Table(table.path, table.columns, rows)


def _metadata_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("metadata.*")) if path.name in METADATA_FILES and path.is_file())


def _metadata_files(folder: Path, other: set[str]) -> list[Path]:
    """The metadata files of a folder, the deepest first; one a folder; none of the `other` splits' folders."""
    nearest: dict[Path, Path] = {}
    for path in _metadata_below(folder):
        kept = nearest.get(path.parent)
        if path.relative_to(folder).parts[0] in other:
            continue
        if kept is None or METADATA_FILES.index(path.name) < METADATA_FILES.index(kept.name):
            nearest[path.parent] = path
    return sorted(nearest.values(), key=lambda path: (-len(path.parts), path))


def _tell_unnamed(folder: Path, named: Mapping[str, Path], other: set[str]) -> None:
    """Say how many sound files of a folder no row names."""
    unnamed = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SOUND_SUFFIXES
        and os.path.abspath(path) not in named
        and path.relative_to(folder).parts[0] not in other
    ]
    if unnamed:
        logger.warning(
            f"{folder}: {len(unnamed)} sound files are named by no row of the metadata and left out, the first "
            f"{unnamed[0].relative_to(folder).as_posix()!r}."
        )
