"""A scan that is kept: whatever has happened to the files since, it says what a fresh one would."""

import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.rows import Utterance, from_rows
from trainers.data.scan import Scanned, scan

CHANGES = ["none", "longer", "gone", "broken", "touched", "swapped"]


def change(path: Path, kind: str, number: int) -> None:
    if kind == "longer":
        soundfile.write(path, np.full(1600 * (number + 2), 0.1), 16_000)
    elif kind == "gone":
        path.unlink(missing_ok=True)
    elif kind == "broken":
        path.write_bytes(b"RIFF" + bytes(number))
    elif kind == "touched" and path.exists():
        os.utime(path)
    elif kind == "swapped" and path.exists():  # other sound of the same size, with the old times
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(CHANGES)), max_size=6))
def test_a_kept_scan_is_a_fresh_one(changes: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.wav" for number in range(3)]
        for number, path in enumerate(paths):
            change(path, "longer", number)
        rows = from_rows([Utterance(id=path.name, audio=path, text="") for path in paths])

        def found(known: list[Scanned]) -> list[Scanned]:
            return scan(rows, quiet=True, known=known)

        kept = found([])
        for number, (which, kind) in enumerate(changes):
            change(paths[which], kind, number)
            kept = found(kept)
            assert kept == found([])
