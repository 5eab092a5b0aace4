"""Sound files with what is said in them beside them: a text file of the same name, or subtitles."""

import html
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path

from trainers.data.folders import SPLITS, named_split
from trainers.data.places import Place
from trainers.data.rows import Utterance, with_fault
from trainers.data.segments import Part, part_name, seconds_of
from trainers.data.spec import DataSpec
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.data.tables import Table, TableRow, read_text
from trainers.errors import UserError

SUBTITLE_SUFFIXES = (".srt", ".vtt")
TRANSCRIPT_SUFFIXES = (*SUBTITLE_SUFFIXES, ".txt")
"""The first that is there counts: subtitles tell where in the recording it is said."""
_CUE_TIMES = re.compile(r"\s*(\S+)\s+-->\s+(\S+)")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")

logger = logging.getLogger(__name__)


def is_beside(spec: DataSpec) -> bool:
    """True for a folder in which, at any depth, a sound file has its transcript beside it."""
    return spec.path.is_dir() and any(transcript for _, transcript in _recordings(spec.path))


def load_beside(spec: DataSpec) -> list[Utterance]:
    """The utterances of a folder: one a text file, one a cue of subtitles. Sound files without either are counted in a warning.

    The split is a sub-folder of that name; without such folders everything is the split `train`.

    Raises:
        UserError: the split is not there.
    """
    root = spec.path
    splits = {folder.name: list(_recordings(folder)) for folder in root.iterdir() if folder.name in SPLITS}
    there = sorted(name for name, recordings in splits.items() if any(text for _, text in recordings))
    named = named_split(spec.split, there)
    if named is None and (there or spec.split != "train"):
        raise UserError(
            f"{root} has no folder of the split {spec.split!r}. Splits there: {', '.join(there) or 'none, so everything is train'}. "
            "`slam-asr split` cuts such a folder into train, validation and test."
        )
    folder = root / (named or ".")
    place = Place(spec, folder, root=folder)
    found: list[Utterance] = []
    alone: list[Path] = []
    for sound, transcript in splits[named] if named else _recordings(folder):
        if transcript is None:
            alone.append(sound)
            continue
        inner = sound.relative_to(folder).as_posix()
        audio, fault = place.find(inner, str(transcript))
        for row in _utterances(transcript, inner):
            row.audio, row.language, row.source = audio, spec.language, root.name
            found.append(with_fault(row, fault))
    if alone:
        logger.warning(
            f"{folder}: {len(alone)} sound files have no {', '.join(TRANSCRIPT_SUFFIXES)} of their name and are left out, the first "
            f"{alone[0].relative_to(folder).as_posix()!r}."
        )
    return found


def _recordings(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Sound files in the order of their names, each with its transcript."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SOUND_SUFFIXES and path.is_file():
            near = (path.with_suffix(each) for suffix in TRANSCRIPT_SUFFIXES for each in (suffix, suffix.upper()))
            yield path, next((each for each in near if each.is_file()), None)


def _utterances(transcript: Path, sound: str) -> list[Utterance]:
    """What a transcript says is in the sound file of that name; a transcript that cannot be read is one damaged row."""
    try:
        text = read_text(transcript)
    except UserError as error:
        return [Utterance(sound, None, None, fault=str(error))]
    if transcript.suffix.lower() not in SUBTITLE_SUFFIXES:
        return [Utterance(sound, None, " ".join(text.split()))]
    cues = [
        Utterance(
            part_name(sound, part),
            None,
            said,
            start=part.start,
            end=part.end,
            duration=part.end - part.start,
            fault=part.fault,
        )
        for part, said in _cues(text, transcript)
    ]
    return cues or [Utterance(sound, None, None, fault=f"{transcript} has no cue (00:00:01.000 --> 00:00:02.500).")]


def _cues(text: str, where: Path) -> Iterator[tuple[Part, str]]:
    """The cues of SubRip or WebVTT: their times and their text without markup."""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.split("\n")
        timed = next((number for number, line in enumerate(lines) if _CUE_TIMES.match(line)), None)
        if timed is None:  # WEBVTT, NOTE, STYLE
            continue
        start, end = (seconds_of(time) for time in _CUE_TIMES.match(lines[timed]).groups())  # type: ignore[union-attr]
        said = html.unescape(_MARKUP.sub("", " ".join(lines[timed + 1 :])))
        if start is None or end is None or end <= start:
            yield (
                Part(fault=f"{where}: {lines[timed].strip()!r} is no part of a recording. Mend the cue's times."),
                said,
            )
        else:
            yield Part(start, end), " ".join(said.split())


def table_of(folder: Path) -> Table:
    """The utterances of such a folder as a table whose sound paths start from the folder above it, as its split's files do.

    Raises:
        UserError: there are none.
    """
    spec = DataSpec(str(folder))
    if not is_beside(spec):
        raise UserError(
            f"{folder} is a folder without sound files that have a {', '.join(TRANSCRIPT_SUFFIXES)} of their name beside them. "
            "Name a table."
        )
    rows = [TableRow({} if row.fault else _values(row, folder), line=0, fault=row.fault) for row in load_beside(spec)]
    return Table(folder, list(dict.fromkeys(name for row in rows for name in row.values)), rows)


def _values(row: Utterance, folder: Path) -> dict[str, str | float | None]:
    sound = Path(str(row.audio)).relative_to(folder.parent).as_posix()
    part = {} if math.isnan(row.start) else {"start": row.start, "end": row.end}
    return {"audio": sound, "text": row.text, **part}
