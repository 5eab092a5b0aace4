"""Data sets of the Hub, and local folders in its form: downloaded or streamed, their sound left undecoded."""

import io
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import soundfile
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

from trainers.data.folders import METADATA_FILES, load_audio_folder
from trainers.data.places import Place
from trainers.data.rows import (
    LANGUAGE_COLUMNS,
    SPEAKER_COLUMNS,
    TEXT_COLUMNS,
    SpeechRow,
    Utterance,
    details_of,
    first_present,
    from_rows,
    optional_text,
    pick_column,
    text_of,
    with_fault,
    with_metadata,
)
from trainers.data.segments import Bounds, Part, bounds, part_of, stated_length
from trainers.data.sources import detect_format
from trainers.data.spec import DataSpec
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.errors import UserError

# What goes wrong between this machine and the Hub. Without a network the client raises its HTTP library's own errors, which are no OSError.
HUB_ERRORS = (OSError, HfHubHTTPError, httpx.HTTPError)
_LOOKED_AT = 8  # recordings that show whether a data set's times are those of its clips' origin
_STREAM_HEAD = 50

logger = logging.getLogger(__name__)


def holds_sound(spec: DataSpec) -> bool:
    """True for a parquet file whose first row holds its sound: a file of a data set of the Hub."""
    path = spec.path
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [f"{kind.name}.bytes" for kind in file.schema_arrow if "bytes" in _parts(kind.type)]
            first = next(file.iter_batches(1, columns=columns), None) if columns else None
    except (pyarrow.ArrowException, OSError, ValueError):
        return False  # reading it as a manifest tells what is wrong
    rows = [] if first is None else first.to_pylist()
    return any(value["bytes"] is not None for row in rows for value in row.values() if value is not None)


def _parts(kind: pyarrow.DataType) -> list[str]:
    return [field.name for field in kind] if pyarrow.types.is_struct(kind) else []


def load_hub(spec: DataSpec) -> Dataset:
    """A data set of the Hub (or a local folder or file in its form), downloaded and memory-mapped, audio left undecoded."""
    if not spec.streaming and not spec.path.exists() and (folder := _loose_files(spec)) is not None:
        inner = DataSpec(**{**vars(spec), "dataset": str(folder), "format": "audiofolder"})
        return from_rows(load_audio_folder(inner, downloaded=True))
    dataset = _open_hub(spec, streaming=False)
    audio_column, text_column = hub_columns(spec, dataset.column_names)
    other = dataset.select_columns([name for name in dataset.column_names if name != audio_column])
    audio = _undecoded(spec, dataset.select_columns([audio_column]), audio_column)
    if audio_column != "audio":
        audio = audio.rename_column(audio_column, "audio")
    known = _bounds(spec, other.column_names, ({**row, "audio": index} for index, row in enumerate(other)), audio)
    classes = class_columns(other.features)
    rows = [hub_row(spec, with_class_names(row, classes), index, text_column, known) for index, row in enumerate(other)]
    held = pyarrow.compute.is_valid(pyarrow.compute.struct_field(audio.data.column("audio"), "bytes")).to_pylist()
    if all(held):
        return with_metadata(audio, rows)
    if not any(held):
        return from_rows([place_row(spec, row, audio[index]["audio"]) for index, row in enumerate(rows)])
    lacks = "holds a file's name in place of sound, where other rows hold sound. Leave it out."
    return with_metadata(
        audio,
        [
            with_fault(row, None if inside else f"Row {index + 1} of {spec.dataset!r} {lacks}")
            for index, (row, inside) in enumerate(zip(rows, held, strict=True))
        ],
    )


def class_columns(features: Features | None) -> dict[str, ClassLabel]:
    """The columns that hold classes (a language, a gender) as numbers."""
    return {name: kind for name, kind in (features or {}).items() if isinstance(kind, ClassLabel)}


def with_class_names(row: Mapping[str, Any], classes: Mapping[str, ClassLabel]) -> dict[str, Any]:
    """A row whose classes have their names in place of their numbers; -1 is none."""
    names = {
        name: kind.int2str(row[name]) if row[name] is not None and row[name] >= 0 else None
        for name, kind in classes.items()
        if name in row
    }
    return {**row, **names}


def stream_hub(spec: DataSpec) -> tuple[IterableDataset, str, str, Bounds]:
    """A streamed data set of the Hub with undecoded audio, the names of its audio and text columns, and those of its parts' bounds.

    Raises:
        UserError: the data set is no stream of the Hub, cannot be read, or has no such columns.
    """
    if (kind := detect_format(spec)) != "hub":
        raise UserError(
            f"streaming is for data sets of the Hub; {spec.dataset!r} ({kind}) is read without it: leave it out."
        )
    dataset = _open_hub(spec, streaming=True)
    columns = list(dataset.column_names or dataset.features or [])
    audio_column, text_column = hub_columns(spec, columns)
    undecoded = _undecoded(spec, dataset, audio_column)
    head = ({**row, "audio": row[audio_column]} for row in undecoded.take(_STREAM_HEAD))
    known = _bounds(spec, [name for name in columns if name != audio_column], head, None)
    return undecoded, audio_column, text_column, known


def stream_row(
    spec: DataSpec, raw: Mapping[str, Any], index: int, audio_column: str, text_column: str, known: Bounds
) -> SpeechRow:
    """One row of a streamed data set in the common form."""
    row = hub_row(spec, {name: raw[name] for name in raw if name != audio_column}, index, text_column, known)
    audio = raw[audio_column] or {}
    if audio.get("bytes") is None:
        row = place_row(spec, row, audio)
        audio = {"bytes": None, "path": None if row.audio is None else str(row.audio)}
    return cast(SpeechRow, {**asdict(row), "audio": audio})


def hub_columns(spec: DataSpec, columns: list[str]) -> tuple[str, str]:
    """The audio and the text column of a Hub data set."""
    where = f"The data set {spec.dataset!r}"
    audio = pick_column(spec.audio_column, ("audio", "speech", "file"), columns, "audio", where)
    return audio, pick_column(spec.text_column, TEXT_COLUMNS, columns, "text", where)


def hub_row(spec: DataSpec, row: Mapping[str, Any], index: int, text_column: str, known: Bounds) -> Utterance:
    """One row of a Hub data set, its sound left out."""
    where = f"Row {index + 1} of {spec.dataset!r}"
    name = first_present(row, ("id", "segment_id", "id_recording", "path", "file"))
    part = part_of(row, known, where, lengths=False) if spec.segments == "auto" else Part()
    return Utterance(
        id=f"{spec.split}-{index}" if name is None else str(name),
        audio=None,
        text=text_of(row[text_column], where),
        start=part.start,
        end=part.end,
        language=spec.language_of(optional_text(first_present(row, LANGUAGE_COLUMNS))),
        speaker_id=optional_text(first_present(row, SPEAKER_COLUMNS)),
        source=spec.dataset,
        details=details_of(row),
        duration=stated_length(row, bounds(list(row))) if part.whole else part.end - part.start,
        fault=part.fault,
    )


def place_row(spec: DataSpec, row: Utterance, audio: Mapping[str, Any] | None) -> Utterance:
    """A row that names a file in place of holding sound: found in the local folder, refused in what was downloaded."""
    where, name = f"The row {row.id!r} of {spec.dataset!r}", (audio or {}).get("path")
    folder = spec.path
    if _saved(spec):
        place = Place(spec, Path(), root=None)  # saved on this machine, with the paths of this machine
    elif folder.is_dir() or spec.audio_root is not None:
        place = Place(spec, folder, root=folder)
    else:
        return with_fault(
            row,
            f"{where} names the file {name!r} in place of holding sound. Download the data set's files and name their "
            "folder in audio_root.",
        )
    row.audio, fault = place.find(name, where)
    return with_fault(row, fault)


def _bounds(spec: DataSpec, columns: list[str], rows: Iterable[Mapping[str, Any]], sound: Dataset | None) -> Bounds:
    """The columns that bound a part of a row's recording; none where they say what the row's clip was cut from.

    Corpora on the Hub keep either: whole recordings with times, or clips with the times that they had in theirs. The
    recordings' lengths tell.

    Args:
        rows: with their sound, or its index in `sound`, under `audio`.

    Raises:
        UserError: the recordings fit neither.
    """
    known = bounds(columns)
    names = [name for name, (kind, _) in known.items() if kind != "duration"]
    if not names or spec.segments == "ignore":
        return {} if spec.segments == "ignore" else known
    parts = clips = seen = 0
    for row in rows:
        part = part_of(row, known, f"A row of {spec.dataset!r}", lengths=False)
        if part.whole or part.fault is not None or part.start < 1:
            continue
        length = _length(row["audio"] if sound is None else sound[row["audio"]]["audio"])
        if length is None:
            continue
        seen += 1
        parts += length >= (part.start if math.isnan(part.end) else part.end) - 0.1
        clips += abs(length - (part.end - part.start)) < 0.25 and length < part.end - 0.1
        if seen == _LOOKED_AT:
            break
    if seen and clips == seen and not parts:
        logger.warning(
            f"{spec.dataset}: {' and '.join(names)} say where the clips were cut from; each clip is read whole."
        )
        return {name: ("origin" if name in names else kind, unit) for name, (kind, unit) in known.items()}
    if parts != seen:
        raise UserError(
            f"{spec.dataset!r} has the columns {', '.join(names)}, which are neither a part of the rows' recordings nor what "
            "they were cut from. Set segments: ignore to read each recording whole."
        )
    return known


def _length(audio: Mapping[str, Any] | None) -> float | None:
    """Seconds of the sound that a row holds, None where that cannot be told."""
    if not audio or audio.get("bytes") is None:
        return None
    try:
        header = soundfile.info(io.BytesIO(audio["bytes"]))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return float(header.frames) / header.samplerate


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _undecoded(spec: DataSpec, dataset: Any, column: str) -> Any:
    try:
        return dataset.cast_column(column, Audio(decode=False))
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"The column {column!r} of {spec.dataset!r} holds no sound that can be read ({first_line(error)}). "
            "Name another in audio_column."
        ) from error


def _saved(spec: DataSpec) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` wrote."""
    folder = spec.path
    return (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()


def _open_hub(spec: DataSpec, streaming: bool) -> Any:
    if _saved(spec):
        loaded = load_from_disk(str(spec.path))
        if isinstance(loaded, Dataset):
            return loaded.to_iterable_dataset() if streaming else loaded
        if spec.split not in loaded:
            raise UserError(f"{spec.dataset} has no split {spec.split!r}. Splits there: {', '.join(loaded)}.")
        return loaded[spec.split].to_iterable_dataset() if streaming else loaded[spec.split]
    try:
        if holds_sound(spec):
            file = str(spec.path)
            return load_dataset("parquet", data_files=file, split="train", streaming=streaming)
        return load_dataset(
            spec.dataset, name=spec.config, split=spec.split, revision=spec.revision, streaming=streaming
        )
    except (*HUB_ERRORS, DatasetsError, ValueError, RuntimeError) as error:
        raise _unreadable(spec, error) from error


def _unreadable(spec: DataSpec, error: Exception) -> UserError:
    """The error for people. `datasets` wraps what it meets in a file, and says little itself."""
    if spec.path.exists():
        loose = (file for file in spec.path.rglob("*") if file.suffix.lower() in SOUND_SUFFIXES)
        if (sound := next(loose, None)) is not None:
            return UserError(
                f"The folder {spec.dataset!r} holds sound files, such as {sound.name!r}, and nothing that says what is said in them. Put a "
                "text file or subtitles of the same name (.txt, .srt, .vtt) beside each, or write metadata.csv into the folder, with the "
                "columns file_name and transcription and a row a file, or a manifest (docs/training.md)."
            )
        return UserError(
            f"{spec.dataset!r} cannot be read as a data set of the Hub (config {spec.config!r}, split {spec.split!r}): "
            f"{first_line(error.__cause__ or error)} It is of no other known kind either: docs/training.md tells what a folder has to "
            "hold."
        )
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
