"""The common form of an utterance, whatever its source: one row of a `datasets.Dataset`.

Columns: `id`, `audio` ({"bytes", "path"}, undecoded), `audio_offset` and `audio_size` (bytes inside `path` when that is a
tar file, else -1), `text` (as in the source), `language`, `speaker_id`, `source`, and `duration` in seconds (NaN: unknown).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Features, Value, concatenate_datasets

from modeling_slam_asr.audio_slam_asr import load_audio
from trainers.errors import UserError
from trainers.schema import nearest

METADATA_FEATURES = Features(
    {
        "id": Value("string"),
        "audio_offset": Value("int64"),
        "audio_size": Value("int64"),
        "text": Value("string"),
        "language": Value("string"),
        "speaker_id": Value("string"),
        "source": Value("string"),
        "duration": Value("float64"),
    }
)
TEXT_COLUMNS = ("text", "transcription", "sentence", "transcript", "normalized_text", "raw_transcription")
SPEAKER_COLUMNS = ("speaker_id", "client_id", "speaker")


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A data set of rows with at least `id`, `audio` (a path) and `text`."""
    audio = Dataset.from_dict(
        {"audio": [{"bytes": None, "path": str(row["audio"])} for row in rows]},
        features=Features({"audio": {"bytes": Value("binary"), "path": Value("string")}}),
    ).cast_column("audio", Audio(decode=False))
    return with_metadata(audio, rows)


def with_metadata(audio: Dataset, rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """`audio` (a data set with the one column `audio`, undecoded) joined with the other columns, taken from `rows`."""
    columns: dict[str, list[Any]] = {
        "id": [str(row["id"]) for row in rows],
        "audio_offset": [row.get("audio_offset", -1) for row in rows],
        "audio_size": [row.get("audio_size", -1) for row in rows],
        "text": [row["text"] for row in rows],
        "language": [_optional_text(row.get("language")) for row in rows],
        "speaker_id": [_optional_text(row.get("speaker_id")) for row in rows],
        "source": [_optional_text(row.get("source")) for row in rows],
        "duration": [_seconds(row.get("duration")) for row in rows],
    }
    return concatenate_datasets([audio, Dataset.from_dict(columns, features=METADATA_FEATURES)], axis=1)


def read_audio(row: Mapping[str, Any], sampling_rate: int = 16_000) -> np.ndarray:
    """The recording of a row, (samples,) float32 mono.

    Raises:
        ValueError: the file is missing, damaged, cut short, empty, or has NaN samples.
    """
    audio = row["audio"]
    if row.get("audio_offset", -1) >= 0:
        try:
            with Path(audio["path"]).open("rb") as archive:
                archive.seek(row["audio_offset"])
                data = archive.read(row["audio_size"])
        except OSError as error:
            raise ValueError(f"{row['id']} in {audio['path']}: {error.strerror or error}.") from error
        return load_audio({"bytes": data, "path": row["id"]}, sampling_rate, whole=True)
    return load_audio(audio, sampling_rate, whole=True)


def pick_column(wanted: str | None, usual: Sequence[str], columns: Sequence[str], what: str, where: str) -> str:
    """The column `wanted`, or the first of the `usual` names that is there.

    Raises:
        UserError: none is there; the message names the columns that are.
    """
    there = f"The columns there: {', '.join(map(str, columns)) or 'none'}."
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
    return next((row[name] for name in names if row.get(name) is not None), None)


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
