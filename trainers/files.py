"""Output files that are written whole or not at all, what may be read of them again, and locks between processes."""

import contextlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

_PARTIAL = ".partial"
_PID_DIGITS = 9
_ABANDONED = 24 * 3600.0  # seconds after which another machine's unfinished file counts as left behind
_SCRATCH_LOCK = "owner.lock"
_JUST_MADE = 60.0  # seconds in which a scratch folder's process may not have locked it yet


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], lasting: bool = True) -> Iterator[Path]:
    """
    A path beside `path` to write to, which takes `path`'s place at the end; after an error or a crash the old file is there.

    Args:
        lasting: content and folder entry are on the disk at the end, and what killed processes left half written in the
            folder goes first. False for thousands of small files that are easily made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if lasting:
        sweep(path.parent)
    temporary = path.parent / f".{_machine()}.{os.getpid()}.{secrets.token_hex(4)}{_PARTIAL}"
    try:
        yield temporary
        if lasting:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in `folder`."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError):  # another process may sweep too
            if _is_abandoned(leftover):
                leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Bring the folder's entries to the disk, so that a rename outlives a power cut."""
    if os.name == "nt":  # Windows opens no folder, and needs none of this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot; the file's own content is safe
    finally:
        os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` as UTF-8, atomically."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `value` as indented JSON, atomically. NaN and infinity are errors: they are not JSON."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object a line, atomically."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> Iterator[Any]:
    """What stands on the lines of a file of JSON Lines, one after another."""
    text = path.read_text(encoding="utf-8")
    for line in text.split("\n"):  # not splitlines: a text may hold U+2028, at which that parts
        if line.strip():
            yield json.loads(line)


def is_local_name(name: str) -> bool:
    """Whether a name can be a file's or folder's of this machine alone: none on the Hub is written so."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def scratch_folder(purpose: str, place: Path | None = None) -> Iterator[Path]:
    """An empty folder in `place`, the system's temporary one by default, gone at the end; what killed processes left goes first."""
    prefix = f"{'.' if place else ''}slam-asr-{purpose}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for other in folder.parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # another process may sweep too
                _remove_if_left(other, folder.stat().st_uid)
        with lock_file(folder / _SCRATCH_LOCK, wait=True):
            (folder / "content").mkdir()
            yield folder / "content"


def _remove_if_left(folder: Path, owner: int) -> None:
    """Remove another scratch folder of the same user whose process is gone, and with it the lock."""
    found = folder.lstat()
    if found.st_uid != owner or not stat.S_ISDIR(found.st_mode) or time.time() - found.st_mtime < _JUST_MADE:
        return
    with lock_file(folder / _SCRATCH_LOCK, wait=False) as free:
        if free:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def lock_file(path: Path, wait: bool, patience: float = 0.0) -> Iterator[bool]:
    """An exclusive lock on `path` between processes and threads, which ends with its process; False if another has it.

    Args:
        wait: until it is free, however long that takes.
        patience: seconds that are tried for without `wait`. Who only looks whether a lock is free holds it for a moment.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else patience, poll_interval=0.02)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _machine() -> str:
    """The machine's name, as part of a file's."""
    return re.sub(r"[^a-zA-Z0-9-]", "", platform.node())[:40] or "local"


def _is_abandoned(leftover: Path) -> bool:
    match = re.fullmatch(r"\.([a-zA-Z0-9-]+)\.(\d+)\.[0-9a-f]+" + re.escape(_PARTIAL), leftover.name)
    if match is None:
        return False
    if match[1] == _machine():
        return len(match[2]) > _PID_DIGITS or not psutil.pid_exists(int(match[2]))
    return time.time() - leftover.stat().st_mtime > _ABANDONED
