"""Which part of its recording a row names, in the words of NeMo, Kaldi, Lhotse, aligners and data sets of the Hub.

A key that seems to name a part and is not known is refused: to read the whole recording for it would train on, and score,
sound that the transcript does not have.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from trainers.errors import UserError

_STARTS = frozenset(
    {"start", "begin", "beg", "offset", "onset", "from", "starttime", "begintime", "stime", "xmin", "tmin"}
)
_ENDS = frozenset({"end", "stop", "until", "to", "endtime", "etime", "xmax", "tmax"})
_LENGTHS = frozenset({"duration", "dur"})
# Words that say nothing of which bound a key is.
_FILLERS = frozenset({
    "time", "timestamp", "segment", "seg", "audio", "clip", "utt", "utterance", "cut", "speech", "stamp", "in", "recording", "file",
    "wav", "sound", "media", "video",
})  # fmt: skip
_UNITS = {"ms": 1e-3, "msec": 1e-3, "millis": 1e-3, "milliseconds": 1e-3} | dict.fromkeys(
    ("s", "sec", "secs", "second", "seconds"), 1.0
)
_COUNTS = frozenset({"sample", "samples", "frame", "frames"})
_PAIRS = frozenset({"segment", "timestamp", "timestamps", "interval", "span", "range"})
_DATE = re.compile(r"\d{4}-\d\d")
_MOST = 1e9  # seconds: 30 years are no place in a recording
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")  # SubRip has a comma

# Columns that bound a part: what each is (`start`, `end` or `duration`; `origin` says where a clip was cut from) and the seconds
# of its unit.
Bounds: TypeAlias = Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Part:
    """A part of a recording in seconds; the whole when both bounds are NaN, up to its end when `end` is."""

    start: float = math.nan
    end: float = math.nan
    fault: str | None = None

    @property
    def whole(self) -> bool:
        return math.isnan(self.start) and math.isnan(self.end)


def part_name(audio: str, part: Part) -> str:
    """What an utterance without an id is called: its file, with the part's times where it is a part."""
    if part.whole:
        return audio
    return f"{audio}:{part.start:.3f}-{'' if math.isnan(part.end) else f'{part.end:.3f}'}"


def bounds(columns: list[str]) -> dict[str, tuple[str, float]]:
    """Those of the columns that bound a part."""
    found = {}
    for column in columns:
        words = _words(column)
        unit = next((_UNITS[word] for word in words if word in _UNITS), 1.0)
        rest = [word for word in words if word not in _FILLERS and word not in _UNITS]
        for kind, names in (("start", _STARTS), ("end", _ENDS), ("duration", _LENGTHS)):
            if len(rest) == 1 and rest[0] in names:
                found[column] = (kind, unit)
    return found


def part_of(values: Mapping[str, Any], known: Bounds, where: str, lengths: bool) -> Part:
    """
    The part of its recording that a row names.

    Args:
        known: the row's bounding columns, as `bounds` gives them.
        where: the row's file and line, for messages.
        lengths: whether a length alone names a part from the recording's start, as NeMo reads it.

    Raises:
        UserError: a key seems to name a part, and how is not known.
    """
    refuse_unknown(values, known, where)
    seconds: dict[str, float] = {}
    for column, (kind, unit) in known.items():
        value = values.get(column)
        if kind == "origin" or value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        read = seconds_of(value, unit)
        if read is None:
            said_otherwise = column.lower() in ("from", "to") or _DATE.match(str(value))  # languages, days
            if kind != "duration" and not said_otherwise:
                return Part(fault=f"{where} has {column}={value!r}, which is no time. Give seconds, as 12.5.")
            continue
        if kind in seconds and not math.isclose(seconds[kind], read, abs_tol=0.01):
            return Part(fault=f"{where} says twice, and differently, where its part has its {kind}. Remove one key.")
        seconds[kind] = read
    start, end, length = (seconds.get(kind, math.nan) for kind in ("start", "end", "duration"))
    if math.isnan(start) and math.isnan(end) and (math.isnan(length) or not lengths):
        return Part()
    start = 0.0 if math.isnan(start) or -0.1 <= start < 0 else start
    end = start + length if math.isnan(end) else end
    if start < 0 or end <= start:
        return Part(fault=f"{where} names the part from {start:g} to {end:g} s, which holds nothing. Mend its times.")
    return Part(start, end)


def stated_length(values: Mapping[str, Any], known: Bounds) -> float:
    """The length in seconds that a row states, NaN where it states none or one that cannot be."""
    for column, (kind, unit) in known.items():
        length = seconds_of(values.get(column), unit) if kind == "duration" else None
        if length is not None and length > 0:
            return length
    return math.nan


def seconds_of(value: Any, unit: float = 1.0) -> float | None:
    """A time as a number of seconds: a number, its text, or `[hours:]minutes:seconds`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        hours, minutes, rest = clock.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest.replace(",", "."))
    try:
        number = float(value) * unit
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < _MOST else None


def refuse_unknown(values: Mapping[str, Any], known: Bounds, where: str) -> None:
    """Refuse the keys that seem to name a part in a way that is not read.

    Raises:
        UserError: there is one; the message names it.
    """
    for column, value in values.items():
        words = _words(column)
        if column in known or value is None:
            continue
        bounding = any(word in (_STARTS | _ENDS) - {"from", "to"} for word in words)
        counted = "counts samples or frames" if _COUNTS.intersection(words) else "is not known"
        pair = words[-1:] and words[-1] in _PAIRS and _is_pair(value)
        if pair or (bounding and seconds_of(value) is not None):
            raise UserError(
                f"{where} has the key {column!r}, which seems to name a part of the recording and {counted}. "
                "Give `start` and `end` (or `offset` and `duration`) in seconds, or remove the key; `segments: ignore` in a "
                "recipe reads every recording whole."
            )


def _is_pair(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(kind in ("start", "end") for kind, _ in bounds([str(key) for key in value]).values())
    return isinstance(value, list | tuple) and len(value) == 2 and all(seconds_of(each) is not None for each in value)


def _words(column: str) -> list[str]:
    """`segmentStart_ms` as `segment`, `start`, `ms`."""
    return [word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()) if word]
