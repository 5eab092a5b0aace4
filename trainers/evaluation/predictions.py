"""Prediction files: JSON Lines with a reference and a prediction, from any speech recogniser."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from trainers.errors import UserError
from trainers.results import Origin, PredictionRow

TEXT_FIELDS = ("reference", "prediction")
OPTIONAL_TEXT_FIELDS = ("language", "speaker_id", "source", "audio")
SECONDS_FIELDS = ("duration", "seconds")
# The manifests of NeMo and of the Open ASR Leaderboard's scripts name the same things otherwise.
ALIASES = {"text": "reference", "pred_text": "prediction", "audio_filepath": "audio", "time": "seconds"}


def read_predictions(path: str | os.PathLike[str]) -> list[PredictionRow]:
    """Read a prediction file, one JSON object a line: `reference`, `prediction`, and optionally `id`, `language`,
    `speaker_id`, `source`, `duration` (seconds), `audio` (path), `confidence`, `truncated` and anything else.

    A row without `id` gets its line number. `text`, `pred_text` and `audio_filepath` (NeMo's manifests) are understood.
    Raises `UserError` that names the file, the line and the field for anything that cannot be scored.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"There is no prediction file {path}. Check the path.") from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder; give the prediction file in it, for example {path / 'predictions.jsonl'}."
        ) from None
    rows: list[PredictionRow] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            row = _read_line(line, f"{path}, line {number}")
            row.setdefault("id", str(number))
            row["id"] = str(row["id"])
            if row["id"] in seen:
                raise UserError(
                    f"{path}, line {number}: the id {row['id']!r} stands on line {seen[row['id']]} already. "
                    "Give every row its own id, or leave the ids out."
                )
            seen[row["id"]] = number
            rows.append(row)
    if not rows:
        raise UserError(
            f"{path} holds no predictions: it needs one JSON object a line with 'reference' and 'prediction'."
        )
    return rows


def texts(rows: Sequence[PredictionRow]) -> tuple[list[str], list[str]]:
    """The references and the predictions of `rows`."""
    return [row["reference"] for row in rows], [row["prediction"] for row in rows]


def column(rows: Sequence[PredictionRow], field: str) -> list[Any] | None:
    """The values of `field`, `None` where a row lacks it, or `None` altogether where every row lacks it."""
    values = [row.get(field) for row in rows]
    return None if all(value is None for value in values) else values


def row_origins(rows: Sequence[PredictionRow]) -> list[Origin]:
    """Each row's test set and speaker."""
    return [(row.get("source"), row.get("speaker_id")) for row in rows]


def pair_predictions(
    first: Sequence[PredictionRow], second: Sequence[PredictionRow], names: tuple[str, str] = ("A", "B")
) -> tuple[list[PredictionRow], list[PredictionRow]]:
    """Bring the rows of two systems into the same order by id and check that they answer the same utterances.

    Raises `UserError` where an id stands in one file only, or where the references of one id differ.
    """
    by_id = {row["id"]: row for row in second}
    first_ids = {row["id"] for row in first}
    for name, missing in (
        (names[1], [row["id"] for row in first if row["id"] not in by_id]),
        (names[0], [row["id"] for row in second if row["id"] not in first_ids]),
    ):
        if missing:
            shown = ", ".join(repr(i) for i in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"{names[0]} has {len(first)} rows and {names[1]} has {len(second)}: {name} lacks {len(missing)} id(s) "
                f"that the other has ({shown}). Compare predictions of the same utterances."
            )
    paired = [by_id[row["id"]] for row in first]
    for a, b in zip(first, paired, strict=True):
        if a["reference"] != b["reference"]:
            raise UserError(
                f"The reference of id {a['id']!r} differs: {names[0]} has {_short(a['reference'])}, {names[1]} has "
                f"{_short(b['reference'])}. Compare predictions of the same test set, with the same references."
            )
    return list(first), paired


def _read_line(line: bytes, where: str) -> PredictionRow:
    row = _parse(line, where)
    for alias, field in ALIASES.items():
        if alias in row and field not in row:
            row[field] = row.pop(alias)
    if b"\\ud" in line.lower():
        _refuse_halves(row, where)
    for field in TEXT_FIELDS:
        if field not in row:
            raise UserError(f"{where}: the field {field!r} is missing; the row has {sorted(row)}.")
        if not isinstance(row[field], str):
            raise UserError(f"{where}: {field!r} is {row[field]!r}; it must be a string (an empty one for silence).")
    for field in OPTIONAL_TEXT_FIELDS:
        if isinstance(row.get(field), (int, float)) and field != "audio":
            row[field] = str(row[field])
        elif row.get(field) is not None and not isinstance(row[field], str):
            raise UserError(f"{where}: {field!r} is {row[field]!r}; it must be a string.")
    for field in SECONDS_FIELDS:
        value = row.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise UserError(f"{where}: {field!r} is {value!r}; it must be a number of seconds, 0 or more.")
    if row.get("id") is None:
        row.pop("id", None)
    return cast(PredictionRow, row)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise UserError(f"{where}: {constant} is not JSON. Leave the field out, or write null.")

    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: invalid UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno}). Write one object a line.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: a {type(row).__name__} instead of an object with 'reference' and 'prediction'.")
    return row


def _refuse_halves(row: Mapping[str, Any], where: str) -> None:
    """Half a character can come from an escape alone, and no file takes it."""
    for field, value in row.items():
        try:
            json.dumps({field: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: {field!r} holds half of a surrogate pair; write the character itself, in UTF-8."
            ) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
