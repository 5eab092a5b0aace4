"""Manifests: a table with a row an utterance, in this project's words, NeMo's, or Lhotse's."""

from collections.abc import Mapping
from typing import Any

from trainers.data.lhotse import is_lhotse, read_cut
from trainers.data.places import Place
from trainers.data.rows import (
    AUDIO_COLUMNS,
    LANGUAGE_COLUMNS,
    SPEAKER_COLUMNS,
    TEXT_COLUMNS,
    Utterance,
    details_of,
    first_present,
    optional_text,
    pick_column,
    text_of,
    with_fault,
)
from trainers.data.segments import Part, bounds, part_name, part_of, stated_length
from trainers.data.spec import DataSpec
from trainers.data.tables import Table, read_table, table_suffix
from trainers.errors import UserError

_NEMO_AUDIO = "audio_filepath"
_CHANNELS = ("channel", "channel_selector")
_NO_CHANNEL = 1024
_SIDES = {"l": 0, "left": 0, "r": 1, "right": 1}


def is_manifest(spec: DataSpec) -> bool:
    """True where the name says how a table is written, unless it is a folder's."""
    path = spec.path
    return table_suffix(path) is not None and not path.is_dir()


def load_manifest(spec: DataSpec, untranscribed: bool = False) -> list[Utterance]:
    """The utterances of a table: `audio` (a path from the table's folder, or absolute) and `text`, or names like these.

    Args:
        untranscribed: rows may be without text.
    """
    path = spec.path
    if not path.is_file():
        raise UserError(f"The manifest {spec.dataset!r} does not exist.")
    table = read_table(path)
    place = Place(spec, path.parent, root=None)
    if is_lhotse(table.rows[0].values):
        return [read_cut(row, spec, place, f"Line {row.line} of {path}") for row in table.rows]
    audio_column = pick_column(spec.audio_column, AUDIO_COLUMNS, table.columns, "audio", f"The manifest {path}")
    text_column = None
    if not untranscribed or spec.text_column is not None:
        text_column = pick_column(spec.text_column, TEXT_COLUMNS, table.columns, "text", f"The manifest {path}")
    return utterances(table, spec, place, audio_column, text_column, f"The manifest {path}", path.stem)


def utterances(
    table: Table, spec: DataSpec, place: Place, audio_column: str, text_column: str | None, what: str, source: str
) -> list[Utterance]:
    """The rows of a table as utterances.

    Raises:
        UserError: a row has no value for its sound or text, or names a part of its recording in a way that is not known.
    """
    named = bounds(table.columns)
    found: list[Utterance] = []
    for number, row in enumerate(table.rows, start=1):
        where = f"Line {row.line} of {table.path}"
        values = row.values
        if row.fault is not None:
            found.append(Utterance(id=f"{table.path.name}:{row.line}", audio=None, text=None, fault=row.fault))
            continue
        for column in (audio_column, text_column):
            missing_text = column == text_column and column in values  # no value, but said: no text
            if column is not None and values.get(column) is None and not missing_text:
                there = ", ".join(key for key, value in values.items() if value is not None)
                raise UserError(
                    f"{what}: row {number} has no {column!r} (line {row.line}). The columns there: {there}."
                )
        audio, inner = values[audio_column], {}
        if isinstance(audio, Mapping):  # {"path": ..., "start_time": ...}, as `datasets` and others write it
            if audio.get("bytes") is not None:
                raise UserError(
                    f"{what}: row {number} holds its sound, where a manifest names files. Leave `format` out, or write the sound to files."
                )
            inner = {key: value for key, value in audio.items() if key != "path"}
            audio = audio.get("path")
        known, timed = {**named, **bounds(list(inner))}, {**values, **inner}
        part = Part()
        if spec.segments == "auto":
            part = part_of(timed, known, where, lengths=audio_column == _NEMO_AUDIO)
        file, missing = place.find(audio, where)
        channel, foreign = _channel(values, where)
        utterance = Utterance(
            id=optional_text(values.get("id")) or part_name(str(audio), part),
            audio=file,
            text=text_of(values[text_column], where) if text_column is not None else "",
            start=part.start,
            end=part.end,
            channel=channel,
            language=spec.language_of(optional_text(first_present(values, LANGUAGE_COLUMNS))),
            speaker_id=optional_text(first_present(values, SPEAKER_COLUMNS)),
            source=optional_text(values.get("source")) or source,
            details=details_of(values),
            duration=part.end - part.start if not part.whole else stated_length(timed, known),
        )
        found.append(with_fault(utterance, missing, part.fault, foreign))
    return found


def _channel(values: Mapping[str, Any], where: str) -> tuple[int, str | None]:
    """The channel that a row names, -1 for the mean of all, and why it cannot be read."""
    for name in _CHANNELS:
        value = values.get(name)
        if isinstance(value, str):
            value = _SIDES.get(value.strip().lower(), value)
        if isinstance(value, bool) or value is None or value in ("", "average"):
            continue
        if isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal()):
            number = int(value) if isinstance(value, int) or len(value) < 10 else _NO_CHANNEL
            if not -1 <= number < _NO_CHANNEL:
                shown = f"{name}={str(value)[:20]}"
                return -1, f"{where} has {shown}; channels are counted from 0. Correct it, or leave it out."
            return number, None
        if name == "channel_selector":
            return -1, f"{where} has {name}={value!r}. Give the number of one channel, from 0, or leave it out."
    return -1, None
