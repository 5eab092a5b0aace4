"""The common form of an utterance, whatever its source: one row of a `datasets.Dataset`.

Columns: `id`, `audio` ({"bytes", "path"}, undecoded), `audio_offset` and `audio_size` (bytes inside `path` when that is a
tar file, else -1), `start` and `end` (seconds: the part of the recording that is the utterance, NaN: not bounded),
`channel` (-1: the mean of all), `text` (as in the source, None: it has none), `language`, `speaker_id`, `source`,
`duration` in seconds as stated (NaN: unknown), `fault` (why the row cannot be used, None: nothing is known against it), and
`details` (age, gender, dialect and the like, as a JSON object).
"""

import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from datasets import Audio, Dataset, Features, Value, concatenate_datasets

from modeling_slam_asr.audio_slam_asr import load_audio
from trainers.errors import UserError
from trainers.recipes.checked_dataclasses import nearest
from trainers.results import METADATA_COLUMNS
from trainers.sound import RATE

AUDIO_COLUMNS = ("audio", "file", "path", "audio_filepath", "file_name", "audio_path", "audio_file", "filename", "wav")
TEXT_COLUMNS = ("text", "transcription", "sentence", "transcript", "normalized_text", "raw_transcription")
SPEAKER_COLUMNS = ("speaker_id", "client_id", "speaker", "id_speaker")
LANGUAGE_COLUMNS = ("language", "locale", "lang")
MAX_ARCHIVED_BYTES = 1 << 30  # of one clip in a tar file
# What programs write where a table's cell has no value: a transcript of it would be a word that nobody said.
_NO_VALUE = frozenset({"nan", "NaN", "<NA>"})
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

logger = logging.getLogger(__name__)


class StoredAudio(TypedDict):
    """A recording as `datasets.Audio(decode=False)` gives it: its file's content, or its path."""

    bytes: bytes | None
    path: str | None


class SpeechRow(TypedDict):
    """A row in the common form; the keys are the columns above."""

    id: str
    audio: StoredAudio
    audio_offset: int
    audio_size: int
    start: float
    end: float
    channel: int
    text: str | None
    language: str | None
    speaker_id: str | None
    source: str | None
    duration: float
    fault: str | None
    details: str | None


class PreparedRow(SpeechRow):
    """A row of `trainers.data.prepare`."""

    transcript: str
    """normalised for training"""
    seconds: float
    """measured"""


class TrainingRow(PreparedRow, total=False):
    """A row on its way into a batch."""

    index: int
    epoch: int
    """that it is read for"""
    counted: bool
    """whether it has a part in the loss; it has where nothing is said"""
    encoder_hidden_states: Any
    """(frames, width), in place of `audio`: states before the encoder's final LayerNorm"""


@dataclass
class Utterance:
    """One row before it is a row of a `Dataset`; the fields are the columns above."""

    id: str
    audio: str | os.PathLike[str] | None
    text: str | None
    audio_offset: int = -1
    audio_size: int = -1
    start: float = math.nan
    end: float = math.nan
    channel: int = -1
    language: str | None = None
    speaker_id: str | None = None
    source: str | None = None
    duration: float = math.nan
    fault: str | None = None
    details: str | None = None
    """what else the source tells, as `details_of` gives it"""


_STORED_AS: dict[object, str] = {str: "string", str | None: "string", int: "int64", float: "float64"}
METADATA_FEATURES = Features(
    {column.name: Value(_STORED_AS[column.type]) for column in dataclasses.fields(Utterance) if column.name != "audio"}
)


def from_rows(rows: Sequence[Utterance]) -> Dataset:
    """A data set of rows whose sound lies in files."""
    try:
        audio = Dataset.from_dict(
            {"audio": [{"bytes": None, "path": None if row.audio is None else os.fspath(row.audio)} for row in rows]},
            features=Features({"audio": {"bytes": Value("binary"), "path": Value("string")}}),
        ).cast_column("audio", Audio(decode=False))
    except UnicodeEncodeError as error:
        raise UserError(f"The file name {error.object!r} is not UTF-8. Rename the file.") from error
    return with_metadata(audio, rows)


def with_metadata(audio: Dataset, rows: Sequence[Utterance]) -> Dataset:
    """`audio` (a data set with the one column `audio`, undecoded) joined with the other columns, taken from `rows`."""
    columns = {name: [getattr(row, name) for row in rows] for name in METADATA_FEATURES}
    try:
        return concatenate_datasets([audio, Dataset.from_dict(columns, features=METADATA_FEATURES)], axis=1)
    except UnicodeEncodeError as error:
        raise UserError(f"{error.object!r} holds half a character (a lone surrogate). Mend or remove it.") from error


def read_audio(row: Mapping[str, Any], sampling_rate: int = RATE) -> np.ndarray:
    """The sound of a row, (samples,) float32 mono: its recording, or the part of it that the row names.

    Raises:
        ValueError: the file is missing, damaged, cut short, empty, or has NaN samples; the part lies outside of it; the row
            names an address on the web, which only a user may do.
    """
    if row.get("fault") is not None:
        raise ValueError(row["fault"])
    audio = row["audio"]
    if row.get("audio_offset", -1) >= 0:
        audio = {"bytes": _archived(row), "path": row["id"]}
    refuse_address(audio)
    start, end = row.get("start", math.nan), row.get("end", math.nan)
    return load_audio(
        audio,
        sampling_rate,
        whole=True,
        start=0.0 if math.isnan(start) else start,
        end=None if math.isnan(end) else end,
        channel=None if row.get("channel", -1) < 0 else row["channel"],
    )


def has_part(row: Mapping[str, Any]) -> bool:
    """Whether a row names a part of its recording."""
    return not (math.isnan(row.get("start", math.nan)) and math.isnan(row.get("end", math.nan)))


def refuse_address(audio: Any) -> None:
    """Refuse a row whose sound is to be fetched: a data set does not say what this machine connects to.

    Raises:
        ValueError: it is.
    """
    path = audio.get("path") if isinstance(audio, Mapping) and audio.get("bytes") is None else audio
    if isinstance(path, str) and _ADDRESS.match(path):
        raise ValueError(
            f"The recording {path!r} is an address, which is not fetched for a data set. Download it first."
        )


def _archived(row: Mapping[str, Any]) -> bytes:
    where, offset, size = row["audio"]["path"], row["audio_offset"], row["audio_size"]
    try:
        with Path(where).open("rb") as archive:
            held = archive.seek(0, os.SEEK_END) - offset
            if size > min(held, MAX_ARCHIVED_BYTES):
                raise ValueError(
                    f"{row['id']} in {where} is said to have {size} bytes, more than the archive holds or a clip may have "
                    f"({MAX_ARCHIVED_BYTES >> 20} MiB). Get the archive again."
                )
            archive.seek(offset)
            return archive.read(size)
    except OSError as error:
        raise ValueError(f"{row['id']} in {where}: {error.strerror or error}.") from error


def details_of(values: Mapping[str, Any]) -> str | None:
    """What a row tells of its speaker and its speech (age, gender, dialect, ...), as a JSON object; None if nothing."""
    known = {name: text for name in METADATA_COLUMNS if (text := optional_text(values.get(name)))}
    return json.dumps(known, ensure_ascii=False) if known else None


def text_of(value: Any, where: str) -> str | None:
    """A transcript as text, None where there is no value (null, NaN, the word that programs write for them).

    Raises:
        UserError: it is neither text nor a whole number.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return None if value.strip() in _NO_VALUE else value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(
        f"{where} has a transcript that is no text but a {type(value).__name__}: {str(value)[:60]!r}. Write it as text."
    )


def optional_text(value: Any) -> str | None:
    """A value as text, None where there is none."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def pick_column(wanted: str | None, usual: Sequence[str], columns: Sequence[str], what: str, where: str) -> str:
    """The column `wanted`, or the first of the `usual` names that is there.

    Raises:
        UserError: none is there; the message names the columns that are.
    """
    there = f"The columns there: {', '.join(str(name)[:60] for name in columns[:30]) or 'none'}."
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise UserError(f"{where} has no column {wanted!r} ({what}_column).{nearest(wanted, columns)} {there}")
    for name in usual:
        if name in columns:
            return name
    raise UserError(f"{where} has no {what} column under a usual name ({', '.join(usual)}). {there} Set {what}_column.")


def first_present(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of `names` that the row has, or None."""
    return next((row[name] for name in names if optional_text(row.get(name)) is not None), None)


def with_fault(row: Utterance, *faults: str | None) -> Utterance:
    """The row with the first of its faults: its own, or else those of `faults` that are not None, in their order."""
    fault = next((each for each in faults if each is not None), None)
    return row if fault is None or row.fault is not None else dataclasses.replace(row, fault=fault)
