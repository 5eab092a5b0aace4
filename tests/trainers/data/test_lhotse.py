"""Cuts of Lhotse."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.data.conftest import prepared, write
from trainers.data.sources import load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError


def cut(**changes: Any) -> dict[str, Any]:
    said = [
        {
            "id": "s",
            "recording_id": "r",
            "start": 0.0,
            "duration": 2.0,
            "text": "hej du",
            "speaker": "A",
            "language": "da",
        }
    ]
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "long.wav"}], "duration": 6.0}
    values = {"id": "c1", "start": 1.5, "duration": 2.0, "channel": 0, "supervisions": said, "recording": recording}
    return {**values, "type": "MonoCut", **changes}


def test_cuts_of_lhotse(long: Path) -> None:
    path = long / "cuts.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(cut()) + "\n")
    dataset, _ = prepared(path)
    assert dataset.select_columns(["id", "text", "speaker_id", "language", "seconds"])[0] == {
        "id": "c1", "text": "hej du", "speaker_id": "A", "language": "da", "seconds": 2.0,
    }  # fmt: skip
    assert load_source(DataSpec(str(path), language="nl"))["language"] == ["nl"]  # what is asked for counts
    mixed = [{"text": "du", "start": 1.0}, {"text": "hej", "start": "soon"}]
    (row,) = load_source(DataSpec(str(write(long / "m.jsonl", cut(supervisions=mixed)))))
    assert row["text"] == "hej du"
    changed = {**cut()["recording"], "transforms": [{"name": "Speed"}]}
    for other, says in (({"type": "MixedCut", "tracks": []}, "MixedCut"), ({"recording": changed}, "transforms")):
        with pytest.raises(UserError, match=says):
            load_source(DataSpec(str(write(long / "c.jsonl", cut(**other)))))
