"""What a user names to be transcribed: files, folders, addresses, the standard input; and names that a terminal can show."""

import mimetypes
import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modeling_slam_asr.audio_slam_asr import is_address
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.errors import UserError

STDIN = "-"
_LONGEST_STEM = 180  # bytes: a name may have 255, with suffix and number


@dataclass(frozen=True)
class Recording:
    """One recording. name: what people see, always valid Unicode. sound: what the pipeline reads."""

    name: str
    sound: str | bytes


def find_recordings(named: Sequence[str]) -> list[Recording]:
    """
    The recordings behind a command's arguments, in order; those of a folder and its folders sorted by name.

    Raises:
        UserError: a folder without sound files; nothing there at all; the standard input twice, or empty.
    """
    found: list[Recording] = []
    for name in named:
        if name == STDIN:
            found.append(_standard_input(named))
        elif not is_address(name) and Path(name).is_dir():
            found += _in_folder(Path(name))
        else:
            found.append(Recording(shown(name), name))
    local = [one for one in found if isinstance(one.sound, str) and not is_address(one.sound)]
    if len(local) == len(found) and not any(os.path.exists(one.sound) for one in local):
        raise UserError(f"No such file: {', '.join(one.name for one in local[:5])}. Check the path.")
    return found


def shown(name: str) -> str:
    """A file's name for messages, tables and JSON: bytes that are not UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if os.name == "posix" else name


def output_names(names: Sequence[str], folder: Path) -> list[Path]:
    """Where each recording's results go, without suffix; equal names in different folders get a number."""
    used: set[str] = set()
    paths = []
    for name in names:
        stem = Path(unquote(urlsplit(name).path) if is_address(name) else name).stem
        stem = "stdin" if name == STDIN else _shortened(stem.replace("\0", ""))
        if not stem.strip("."):  # nothing, or the name of a folder: "..", of "...wav"
            stem = "recording"
        unique, number = stem, 2
        while (key := unicodedata.normalize("NFC", unique).casefold()) in used:
            unique, number = f"{stem}-{number}", number + 1
        used.add(key)
        paths.append(folder / unique)
    return paths


def _shortened(stem: str) -> str:
    return stem.encode("utf-8", "surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")


def _in_folder(folder: Path) -> list[Recording]:
    files = sorted(path for path in folder.rglob("*") if _may_be_sound(path) and path.is_file())
    if not files:
        known = ", ".join(SOUND_SUFFIXES)
        raise UserError(f"The folder {shown(str(folder))!r} holds no sound files ({known}). Name another, or files.")
    return [Recording(shown(str(path)), str(path)) for path in files]


def _may_be_sound(path: Path) -> bool:
    """Also kinds that cannot be decoded: they are told at the end, and do not vanish. Hidden files are no recordings."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return not path.name.startswith(".") and (
        path.suffix.lower() in SOUND_SUFFIXES or kind.startswith(("audio/", "video/"))
    )


def _standard_input(named: Sequence[str]) -> Recording:
    if list(named).count(STDIN) > 1:
        raise UserError("The standard input, `-`, can be read once only. Name it once.")
    data = sys.stdin.buffer.read()
    if not data:
        raise UserError("The standard input, `-`, is empty. Pipe a sound file into it: `cat talk.wav | ... -`.")
    return Recording(STDIN, data)
