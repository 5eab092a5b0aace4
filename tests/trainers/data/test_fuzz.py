"""Hundreds of bad tables and sound files, from one seed: nothing but one line, and no row that is not accounted for.

The first few run each time, all 500 among the slow tests.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.conftest import speak
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec
from trainers.errors import UserError

SEED = 20
SOME_AND_ALL = pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
CELLS = ['"', '""', "", "nan", "a.wav", "../a.wav", "/etc/passwd", "http://x/a.wav", "~nobody/a.wav", "hej, du", "x\ty", "\ufeff", "1e999",
         "\u2028", "-1", "é", "{", "NULL", "a.wav\x01", "a" * 300]  # fmt: skip
KEYS = [
    "audio",
    "text",
    "start",
    "end",
    "duration",
    "offset",
    "channel",
    "id",
    "speaker_id",
    "start_ms",
    "language",
    "split",
]
VALUES: list[Any] = [
    None,
    float("nan"),
    1,
    -1,
    0.3,
    1e308,
    True,
    [],
    {},
    [0.1, 0.2],
    {"path": "a.wav"},
    "a.wav",
    "",
    "0.1",
    "hej",
    "00:00:01",
]
NAMES = ["m.csv", "m.tsv", "m.jsonl", "metadata.csv", "metadata.jsonl"]


def bad_table(rng: random.Random, name: str) -> bytes:
    """A table of a few rows, some of them whole, with cells and bytes that do not belong."""
    lines = []
    if name.endswith("jsonl"):
        for _ in range(rng.randint(0, 5)):
            row = {"audio": "a.wav", "file_name": "a.wav", "text": "hej"}
            row |= {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randint(0, 2))}
            lines.append(json.dumps(row, ensure_ascii=rng.random() < 0.5))
    else:
        mark = "\t" if name.endswith("tsv") else rng.choice(",,;")
        lines.append(mark.join(["file_name", "text", *rng.sample(KEYS[2:], 1)]))
        for _ in range(rng.randint(0, 5)):
            cells = ["a.wav", "hej", ""]
            for _ in range(rng.randint(0, 2)):
                cells[rng.randrange(3)] = rng.choice(CELLS)
            lines.append(mark.join(cells[: rng.choice([3, 3, 3, 2, 1])]))
    data = bytearray(
        rng.choice(["\n", "\r\n", "\r"])
        .join(lines)
        .encode(rng.choice(["utf-8"] * 4 + ["utf-16", "utf-16-le", "utf-8-sig"]))
    )
    for _ in range(rng.choice([0, 0, 1, 3])):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.2 else data)


def account(place: Path) -> str:
    """What became of a data set: its rows, all of them, or one line."""
    try:
        rows, report = prepare([DataSpec(str(place), min_duration=0.0)], "train", quiet=True, max_bad_fraction=1.0)
    except UserError as error:
        assert "\n" not in str(error), str(error)
        return "refused"
    assert len(rows) + sum(report.dropped.values()) == report.rows
    assert all(text and text != "nan" for text in rows["transcript"])
    return "read"


@SOME_AND_ALL
def test_bad_tables(tmp_path: Path, count: int) -> None:
    soundfile.write(tmp_path / "a.wav", speak(["en"]), 16_000)
    rng = random.Random(SEED)
    found = []
    for _ in range(count):
        for name in NAMES:
            (tmp_path / name).unlink(missing_ok=True)
        name = rng.choice(NAMES)
        (tmp_path / name).write_bytes(bad_table(rng, name))
        found.append(account(tmp_path if name.startswith("metadata") else tmp_path / name))
    assert min(found.count("read"), found.count("refused")) > count // 10


@SOME_AND_ALL
def test_mutated_sound(tmp_path: Path, count: int) -> None:
    rng = random.Random(SEED)
    rows = []
    for number in range(count):
        kind = rng.choice(["wav", "flac", "mp3", "ogg"])
        path = tmp_path / f"{number}.{kind}"
        soundfile.write(path, speak(["en", "to"]), 16_000)
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), rng.choice([64, len(data)])))] = rng.randrange(256)
        path.write_bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data)
        part = {"start": 0.1, "end": 0.3} if rng.random() < 0.3 else {}
        rows.append({"audio": path.name, "text": "hej", **part})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for verify in ("decode", "header"):
        spec = DataSpec(str(tmp_path / "m.jsonl"), min_duration=0.0, verify=verify)  # type: ignore[arg-type]
        kept, report = prepare([spec], "train", quiet=True, max_bad_fraction=1.0)
        assert report.rows == count == len(kept) + sum(report.dropped.values())
        assert report.dropped.get("damaged", 0) > count // 25 and len(kept) > count // 10
