"""Cuts of Lhotse, as its manifests have them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.data.places import Place
from trainers.data.rows import Utterance, optional_text, text_of, with_fault
from trainers.data.segments import part_name, part_of
from trainers.data.spec import DataSpec
from trainers.data.tables import TableRow
from trainers.errors import UserError


def is_lhotse(values: Mapping[str, Any]) -> bool:
    """True for a row that is a cut of Lhotse."""
    return "supervisions" in values or str(values.get("type")) in ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


def read_cut(row: TableRow, spec: DataSpec, place: Place, where: str) -> Utterance:
    """A cut of Lhotse: a part of one recording, with what is said in it.

    Raises:
        UserError: the cut is mixed of several, or its sound is changed or does not lie in one file.
    """
    values = row.values
    said, recording = values.get("supervisions"), values.get("recording")
    recording = recording if isinstance(recording, Mapping) else {}
    sources = recording.get("sources")
    kind = values.get("type", "MonoCut")
    if kind != "MonoCut" or not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], Mapping):
        raise UserError(
            f"{where} is a {kind} without one recording in one file. Only cuts of one recording are read: save the others' "
            "sound first (`CutSet.save_audios`)."
        )
    changed = [name for part in (recording, values) for name in ("transforms",) if part.get(name)]
    if sources[0].get("type") != "file" or changed:
        what = f"the key {changed[0]!r}" if changed else f"a source of type {sources[0].get('type')!r}"
        raise UserError(f"{where} has {what}, which is not read. Save the cuts' sound first (`CutSet.save_audios`).")
    if not isinstance(said, list) or not all(isinstance(each, Mapping) for each in said):
        raise UserError(f"{where} has no list of supervisions: there is no transcript. Save the cuts with them.")
    part = part_of(
        {"start": values.get("start"), "duration": values.get("duration")},
        {"start": ("start", 1.0), "duration": ("duration", 1.0)},
        where,
        lengths=True,
    )
    first: Mapping[str, Any] = said[0] if said else {}
    texts = [text_of(each.get("text"), where) for each in sorted(said, key=_start)]
    channels = sources[0].get("channels")
    channel = values.get("channel")
    several = isinstance(channels, list) and len(channels) > 1 and channel in channels
    file, missing = place.find(sources[0].get("source"), where)
    found = Utterance(
        id=optional_text(values.get("id")) or part_name(str(sources[0].get("source")), part),
        audio=file,
        text=" ".join(text for text in texts if text) or None,
        start=part.start,
        end=part.end,
        channel=channels.index(channel) if several and isinstance(channels, list) else -1,
        language=spec.language_of(optional_text(first.get("language"))),
        speaker_id=optional_text(first.get("speaker")),
        source=Path(spec.dataset).name.partition(".")[0],
        duration=part.end - part.start,
    )
    return with_fault(found, missing, part.fault)


def _start(supervision: Mapping[str, Any]) -> float:
    """When a supervision begins; what names no number keeps its place before the others."""
    start = supervision.get("start")
    return float(start) if isinstance(start, int | float) else 0.0
