"""What an interrupted evaluation had transcribed: the next one of the same model, data and settings goes on from there."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from trainers.files import lock_file, read_jsonl, write_jsonl
from trainers.results import PredictionRow

JOURNAL = "unfinished.jsonl"


class Journal:
    """
    Prediction rows by their position in the data set.

    rows: those that an earlier process wrote. wall_seconds: what it took for them.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.rows: dict[int, PredictionRow] = {}
        self.wall_seconds = 0.0
        self._file = file
        self._last = time.perf_counter()

    def start(self) -> None:
        """Decoding begins now: the next row's seconds are counted from here."""
        self._last = time.perf_counter()

    def add(self, position: int, row: PredictionRow) -> None:
        """Write a row down."""
        now = time.perf_counter()
        if self._file is not None:
            entry = {"position": position, "wall_seconds": round(now - self._last, 4), "row": row}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
        self._last = now


@contextlib.contextmanager
def open_journal(folder: Path, key: str) -> Iterator[Journal]:
    """
    The journal of `folder`, with what it has of the same `key`; gone when the block ends without an exception.

    Of two processes in one folder at once only the first keeps one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    with lock_file(folder / "unfinished.lock", wait=False) as mine:
        if not mine:
            yield Journal()
            return
        entries = _entries(path, key)
        write_jsonl(path, [{"key": key}, *entries])
        with path.open("a", encoding="utf-8") as file:
            journal = Journal(file)
            journal.rows = {entry["position"]: cast(PredictionRow, entry["row"]) for entry in entries}
            journal.wall_seconds = sum(entry["wall_seconds"] for entry in entries)
            yield journal
        path.unlink()


def _entries(path: Path, key: str) -> list[dict[str, Any]]:
    """The lines of an earlier process; the last one may be cut short."""
    lines: list[Any] = []
    with contextlib.suppress(OSError, ValueError):
        for line in read_jsonl(path):
            lines.append(line)
    return lines[1:] if lines and lines[0] == {"key": key} else []
