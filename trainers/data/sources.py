"""Reading utterances from a folder, a manifest, Common Voice, the Hub, or the embedded corpus."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from trainers.data.common_voice import is_common_voice, load_common_voice
from trainers.data.hub_errors import HUB_ERRORS, first_line
from trainers.data.rows import SPEAKER_COLUMNS, TEXT_COLUMNS, first_present, from_rows, pick_column, with_metadata
from trainers.data.spec import DataSpec
from trainers.errors import UserError

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLIT_ALIASES = {"validation": ("validation", "valid", "val", "dev"), "dev": ("dev", "validation", "valid", "val")}


def load_source(spec: DataSpec) -> Dataset:
    """All utterances that the spec names, unfiltered, with the columns of `trainers.data.rows`.

    Raises:
        UserError: nothing is found there, the split or a named column is missing, or a line cannot be read.
    """
    kind = detect_format(spec)
    if kind == "embedded":
        return load_embedded(spec)
    if kind == "jsonl":
        return load_manifest(spec)
    if kind == "audiofolder":
        return load_audio_folder(spec)
    if kind == "common_voice":
        return from_rows(load_common_voice(spec))
    return load_hub(spec)


def detect_format(spec: DataSpec) -> str:
    """The spec's format, found from what `dataset` is when it says `auto`."""
    if spec.format != "auto":
        return spec.format
    if spec.dataset == "embedded":
        return "embedded"
    path = Path(spec.dataset).expanduser()
    if path.suffix in (".jsonl", ".json"):
        return "jsonl"
    if path.is_dir():
        if is_common_voice(path):
            return "common_voice"
        loose = any(next(path.glob(f"{depth}{name}"), None) for name in METADATA_FILES for depth in ("", "*/"))
        return "audiofolder" if loose else "hub"
    if path.is_absolute() or spec.dataset.startswith((".", "~")) or spec.dataset.count("/") > 1:
        raise UserError(
            f"The data set {spec.dataset!r} does not exist. Give an existing folder, a .jsonl manifest or a Hub id."
        )
    return "hub"


def load_embedded(spec: DataSpec) -> Dataset:
    """A split of the corpus synthesised on the spot, spoken once and kept; `language` leaves the others out."""
    from trainers.embedded.corpus import build_corpus

    manifests = build_corpus(cache_folder() / "embedded-corpus")
    if spec.split not in manifests:
        raise UserError(f"The embedded corpus has no split {spec.split!r}. Splits there: {', '.join(manifests)}.")
    dataset = load_manifest(DataSpec(dataset=str(manifests[spec.split]), format="jsonl"))
    if spec.language is None:
        return dataset
    kept = [index for index, language in enumerate(dataset["language"]) if language == spec.language]
    if not kept:
        raise UserError(
            f"The embedded corpus has no language {spec.language!r}; it has {sorted(set(dataset['language']))}."
        )
    return dataset.select(kept)


def cache_folder() -> Path:
    """Where made data is kept: `$SLAM_ASR_CACHE`, else `~/.cache/slam-asr`."""
    return Path(os.environ.get("SLAM_ASR_CACHE", "~/.cache/slam-asr")).expanduser()


def load_manifest(spec: DataSpec) -> Dataset:
    """A JSON Lines manifest: one object a line with `audio` (relative to the manifest or absolute) and `text`."""
    path = Path(spec.dataset).expanduser()
    if not path.is_file():
        raise UserError(f"The manifest {spec.dataset!r} does not exist.")
    rows = list(_json_lines(path))
    if not rows:
        raise UserError(f"The manifest {path} has no lines.")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    audio_column = pick_column(spec.audio_column, ("audio", "file", "path"), columns, "audio", f"The manifest {path}")
    text_column = pick_column(spec.text_column, TEXT_COLUMNS, columns, "text", f"The manifest {path}")
    return from_rows(
        [
            {
                "id": row.get("id", row[audio_column]),
                "audio": path.parent / Path(str(row[audio_column])).expanduser(),
                "text": row[text_column],
                "language": row.get("language", spec.language),
                "speaker_id": first_present(row, SPEAKER_COLUMNS),
                "source": row.get("source", path.stem),
                "duration": row.get("duration"),
            }
            for row in _complete(rows, (audio_column, text_column), f"The manifest {path}")
        ]
    )


def load_audio_folder(spec: DataSpec) -> Dataset:
    """A folder in the AudioFolder form of `datasets`: sound files and `metadata.csv` (or .jsonl, .parquet).

    The split is a sub-folder of that name, or the rows of the folder's own metadata with that value in a `split`
    column, or, with neither, every row for the split `train`.
    """
    root = Path(spec.dataset).expanduser()
    if not root.is_dir():
        raise UserError(f"The folder {spec.dataset!r} does not exist.")
    names = SPLIT_ALIASES.get(spec.split, (spec.split,))
    inside = next((root / name for name in names if (root / name).is_dir()), None)
    folder = inside if inside is not None and _metadata_of(inside) is not None else root
    metadata = _metadata_of(folder)
    if metadata is None:
        there = sorted(path.parent.name for name in METADATA_FILES for path in root.glob(f"*/{name}"))
        found = f" Splits there: {', '.join(there)}." if there else ""
        raise UserError(
            f"{inside or folder} has no metadata.csv, metadata.jsonl or metadata.parquet for split {spec.split!r}.{found}"
        )
    rows = _read_metadata(metadata)
    where = f"The metadata file {metadata}"
    if folder == root and rows and "split" in rows[0]:
        there = sorted({str(row.get("split")) for row in rows})
        rows = [row for row in rows if row.get("split") in names]
        if not rows:
            raise UserError(f"{where} has no rows of split {spec.split!r}. Splits there: {', '.join(there)}.")
    elif folder == root and inside is not None and rows and "file_name" in rows[0]:
        rows = [row for row in rows if Path(str(row["file_name"])).parts[:1] == (inside.name,)]
    elif folder == root and spec.split != "train":
        raise UserError(
            f"{root} has neither a folder nor a `split` column for split {spec.split!r}: everything is 'train'."
        )
    columns = list(rows[0]) if rows else []
    file_column = pick_column(spec.audio_column, ("file_name",), columns, "audio", where)
    text_column = pick_column(spec.text_column, TEXT_COLUMNS, columns, "text", where)
    return from_rows(
        [
            {
                "id": row.get("id") or row[file_column],
                "audio": folder / str(row[file_column]),
                "text": row[text_column],
                "language": row.get("language") or spec.language,
                "speaker_id": first_present(row, SPEAKER_COLUMNS),
                "source": row.get("source") or root.name,
                "duration": row.get("duration"),
            }
            for row in _complete(rows, (file_column, text_column), where)
        ]
    )


def _metadata_of(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def load_hub(spec: DataSpec) -> Dataset:
    """A data set of the Hub (or a local folder in its form), downloaded and memory-mapped, audio left undecoded."""
    if not spec.streaming and not Path(spec.dataset).is_dir() and (folder := _loose_files(spec)) is not None:
        return load_audio_folder(DataSpec(**{**vars(spec), "dataset": str(folder), "format": "audiofolder"}))
    dataset = _open_hub(spec, streaming=False)
    audio_column, text_column = hub_columns(spec, dataset.column_names)
    other = dataset.select_columns([name for name in dataset.column_names if name != audio_column])
    rows = [_hub_row(spec, row, index, text_column) for index, row in enumerate(other)]
    audio = dataset.select_columns([audio_column]).cast_column(audio_column, Audio(decode=False))
    if audio_column != "audio":
        audio = audio.rename_column(audio_column, "audio")
    return with_metadata(audio, rows)


def stream_hub(spec: DataSpec) -> tuple[IterableDataset, str, str]:
    """A streamed data set of the Hub with undecoded audio, and the names of its audio and text columns.

    Raises:
        UserError: the data set is no stream of the Hub, cannot be read, or has no such columns.
    """
    if (kind := detect_format(spec)) != "hub":
        raise UserError(
            f"streaming is for data sets of the Hub; {spec.dataset!r} ({kind}) is read without it: leave it out."
        )
    dataset = _open_hub(spec, streaming=True)
    audio_column, text_column = hub_columns(spec, list(dataset.column_names or dataset.features or []))
    return dataset.cast_column(audio_column, Audio(decode=False)), audio_column, text_column


def stream_row(spec: DataSpec, raw: dict[str, Any], index: int, audio_column: str, text_column: str) -> dict[str, Any]:
    """One row of a streamed data set in the common form."""
    row = _hub_row(spec, raw, index, text_column)
    return {**row, "audio": raw[audio_column], "audio_offset": -1, "audio_size": -1}


def hub_columns(spec: DataSpec, columns: list[str]) -> tuple[str, str]:
    """The audio and the text column of a Hub data set."""
    where = f"The data set {spec.dataset!r}"
    audio = pick_column(spec.audio_column, ("audio", "speech", "file"), columns, "audio", where)
    return audio, pick_column(spec.text_column, TEXT_COLUMNS, columns, "text", where)


def _hub_row(spec: DataSpec, row: dict[str, Any], index: int, text_column: str) -> dict[str, Any]:
    name = first_present(row, ("id", "segment_id", "path", "file"))
    return {
        "id": f"{spec.split}-{index}" if name is None else name,
        "text": row[text_column] or "",
        "language": first_present(row, ("language", "locale")) if spec.language is None else spec.language,
        "speaker_id": first_present(row, SPEAKER_COLUMNS),
        "source": spec.dataset,
        "duration": row.get("duration"),
    }


def _open_hub(spec: DataSpec, streaming: bool) -> Any:
    if (Path(spec.dataset) / "dataset_info.json").is_file() or (Path(spec.dataset) / "dataset_dict.json").is_file():
        loaded = load_from_disk(spec.dataset)
        if isinstance(loaded, Dataset):
            return loaded.to_iterable_dataset() if streaming else loaded
        if spec.split not in loaded:
            raise UserError(f"{spec.dataset} has no split {spec.split!r}. Splits there: {', '.join(loaded)}.")
        return loaded[spec.split].to_iterable_dataset() if streaming else loaded[spec.split]
    try:
        return load_dataset(
            spec.dataset, name=spec.config, split=spec.split, revision=spec.revision, streaming=streaming
        )
    except (*HUB_ERRORS, DatasetsError, ValueError, RuntimeError) as error:
        raise _unreadable(spec, error) from error


def _unreadable(spec: DataSpec, error: Exception) -> UserError:
    return UserError(
        f"The data set {spec.dataset!r} (config {spec.config!r}, split {spec.split!r}) cannot be read: {first_line(error)} "
        "Check its id, config and split, your connection, and `hf auth login` for a gated one."
    )


def _loose_files(spec: DataSpec) -> Path | None:
    """The downloaded folder of a Hub repository that holds loose sound files with a metadata file, else None.

    `datasets` can build such a set only with torchcodec, which this project does without.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().list_repo_files(spec.dataset, repo_type="dataset", revision=spec.revision)
    except (*HUB_ERRORS, ValueError):
        return None  # load_dataset works from its cache, or reports what is wrong
    if not any(Path(name).name in METADATA_FILES for name in files):
        return None
    try:
        return Path(snapshot_download(spec.dataset, repo_type="dataset", revision=spec.revision))
    except HUB_ERRORS as error:
        raise _unreadable(spec, error) from error


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    return list(_json_lines(path))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"Line {number} of {path} is not JSON ({error.msg}): {line.strip()[:80]!r}.") from error
            if not isinstance(row, dict):
                raise UserError(f"Line {number} of {path} must be an object, not {line.strip()[:80]!r}.")
            yield row


def _complete(rows: list[dict[str, Any]], names: tuple[str, ...], where: str) -> Iterator[dict[str, Any]]:
    """The rows, each checked to have a value under every one of `names`."""
    for number, row in enumerate(rows, start=1):
        for name in names:
            if row.get(name) is None:
                there = ", ".join(key for key, value in row.items() if value is not None)
                raise UserError(f"{where}: row {number} has no {name!r}. The columns there: {there}.")
        yield row
