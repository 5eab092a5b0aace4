"""A scan that is kept: whatever has happened to the files since, it says what a fresh one would."""

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data import prepare as preparing
from trainers.data import scan as scanning
from trainers.data.rows import Utterance, from_rows, read_audio
from trainers.data.scan import Scanned, scan
from trainers.data.spec import DataSpec

COUNT = 150  # more than two blocks

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


@pytest.mark.parametrize("seconds", [preparing.KEEP_SECONDS, 0.0])
def test_an_interrupted_scan_goes_on(seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Ctrl-C at the 100th recording what was read is kept; it is from time to time before, too."""
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16_000)
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "\n".join(["id,audio,text", *(f"{number},a.wav,ja" for number in range(COUNT))]), encoding="utf-8"
    )
    output, lock = tmp_path / "run", threading.Lock()
    calls: list[str] = []
    there: list[bool] = []

    def read(row: Any, *rest: Any) -> np.ndarray:
        with lock:
            calls.append(row["id"])
            last = len(calls) == 100
        if last:
            there.append((output / "scan-train.jsonl").exists())
            raise KeyboardInterrupt
        return read_audio(row, *rest)

    def scanned() -> None:
        spec = DataSpec(str(manifest), min_duration=0.0)
        preparing.prepare([spec], "train", output_dir=output, quiet=True)

    monkeypatch.setattr(scanning, "read_audio", read)
    monkeypatch.setattr(preparing, "KEEP_SECONDS", seconds)
    with pytest.raises(KeyboardInterrupt):
        scanned()
    assert there == [seconds == 0]
    calls.clear()
    calls += ["none"] * 100
    scanned()
    assert sorted(calls[100:], key=int) == [str(number) for number in range(64, COUNT)]
