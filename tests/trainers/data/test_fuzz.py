"""Hundreds of mutated sound files, from one seed: no traceback, and no row that is not accounted for."""

import json
import random
from pathlib import Path

import pytest
import soundfile

from tests.conftest import speak
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec

SEED = 20


@pytest.mark.slow
def test_mutated_sound(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    rows = []
    for number in range(500):
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
        assert report.rows == 500 == len(kept) + sum(report.dropped.values())
        assert report.dropped.get("damaged", 0) > 20 and len(kept) > 50
