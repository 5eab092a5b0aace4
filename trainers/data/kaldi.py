"""Data folders of Kaldi, ESPnet and Icefall."""

from pathlib import Path

from trainers.data.folders import named_split
from trainers.data.places import Place
from trainers.data.rows import Utterance, with_fault
from trainers.data.segments import Part, part_of
from trainers.data.spec import DataSpec
from trainers.data.tables import read_text
from trainers.errors import UserError


def is_kaldi(spec: DataSpec) -> bool:
    """True for a data folder of Kaldi, ESPnet or Icefall, `wav.scp` with `text`, or a folder of such splits."""
    folder = spec.path
    return (folder / "wav.scp").is_file() or next(folder.glob("*/wav.scp"), None) is not None


def load_kaldi(spec: DataSpec) -> list[Utterance]:
    """The utterances of a Kaldi data folder: `wav.scp` and `text`, with `segments`, `utt2spk` and `utt2lang` where they are."""
    folder = _folder(spec)
    place = Place(spec, Path(), root=None)
    recordings, texts = entries(folder / "wav.scp"), entries(folder / "text")
    segments = entries(folder / "segments") if (folder / "segments").is_file() else None
    speakers, languages = (
        entries(folder / name) if (folder / name).is_file() else {} for name in ("utt2spk", "utt2lang")
    )
    found = []
    named = segments if segments is not None else recordings
    for name, (line, value) in named.items():
        where = f"Line {line} of {folder / ('segments' if segments is not None else 'wav.scp')}"
        part, fault, recording = Part(), None, name
        if segments is not None:
            cells = value.split()
            if len(cells) != 3:
                fault = f"{where} has {len(cells) + 1} of 4 columns (utterance, recording, start, end). Complete it."
            else:
                recording, start, end = cells
                times = {"start": start, "end": None if end.startswith("-") else end}  # -1: up to the end
                part = part_of(times, {"start": ("start", 1.0), "end": ("end", 1.0)}, where, lengths=False)
        if fault is None and recording not in recordings:
            fault = f"{where} names the recording {recording!r}, which wav.scp lacks. Add or remove it."
        file = recordings[recording][1] if recording in recordings else ""
        if file.endswith("|") and fault is None:
            fault = (
                f"{where}: the recording {recording!r} is a command, which is not run. Write its sound to a file first."
            )
        path, missing = place.find(file, where)
        utterance = Utterance(
            id=name,
            audio=path,
            text=texts[name][1] if name in texts else None,
            start=part.start,
            end=part.end,
            language=spec.language_of(languages[name][1] if name in languages else None),
            speaker_id=speakers[name][1] if name in speakers else None,
            source=folder.name,
            duration=part.end - part.start,
        )
        found.append(with_fault(utterance, fault, part.fault, missing))
    lost = [name for name in texts if name not in named]
    if lost:
        raise UserError(
            f"{folder / 'text'} has {len(lost)} utterances without a recording, the first {lost[0]!r} "
            f"(line {texts[lost[0]][0]}). Run utils/fix_data_dir.sh on the folder."
        )
    if not found:
        raise UserError(f"{folder / 'wav.scp'} has no lines to read. Name a folder with recordings.")
    return found


def _folder(spec: DataSpec) -> Path:
    """The split's folder, or the one that is named where it is no folder of splits.

    Raises:
        UserError: the split is not there.
    """
    folder = spec.path
    splits = sorted(path.parent.name for path in folder.glob("*/wav.scp"))
    found = named_split(spec.split, splits)
    if found is None and splits and not (folder / "wav.scp").is_file():
        raise UserError(f"{folder} has no split {spec.split!r}. Splits there: {', '.join(splits)}.")
    return folder if found is None else folder / found


def entries(path: Path) -> dict[str, tuple[int, str]]:
    """The lines of a Kaldi file, or one like it: by their first word, the line's number and what follows."""
    if not path.is_file():
        raise UserError(f"{path} does not exist. A Kaldi data folder has wav.scp and text.")
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            name, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
            if name in found:
                raise UserError(f"Line {number} of {path} names {name!r} again. Keep one of the two lines.")
            found[name] = (number, rest.strip())
    return found
