"""Prediction files: what is read, and what a wrong file is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainers.errors import UserError
from trainers.evaluation import read_predictions
from trainers.evaluation.predictions import pair_predictions
from trainers.files import write_jsonl

GOOD = {"reference": "a b", "prediction": "a c"}


def file_with(tmp_path: Path, *lines: str | bytes | dict[str, Any]) -> Path:
    path = tmp_path / "predictions.jsonl"
    encoded = [
        line if isinstance(line, bytes) else (json.dumps(line) if isinstance(line, dict) else line).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def test_minimal_rows_get_line_numbers_as_ids(tmp_path: Path) -> None:
    rows = read_predictions(file_with(tmp_path, GOOD, "", GOOD))
    assert [row["id"] for row in rows] == ["1", "3"]


def test_round_trip(tmp_path: Path) -> None:
    rows = [{"id": "x", "reference": "å é", "prediction": "", "duration": 1.5, "speaker_id": "7", "extra": [1, None]}]
    assert read_predictions(write_jsonl(tmp_path / "p.jsonl", rows)) == rows


def test_other_tools_names_are_understood(tmp_path: Path) -> None:
    line = {"audio_filepath": "a.wav", "duration": 2, "time": 0.5, "text": "a", "pred_text": "b"}
    (row,) = read_predictions(file_with(tmp_path, line))
    assert (row["reference"], row["prediction"], row["audio"], row["seconds"]) == ("a", "b", "a.wav", 0.5)


def test_byte_order_mark_and_numeric_ids(tmp_path: Path) -> None:
    (row,) = read_predictions(
        file_with(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD | {"id": 7, "speaker_id": 3}).encode())
    )
    assert (row["id"], row["speaker_id"]) == ("7", "3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"reference": "a"}, r"line 2: the field 'prediction' is missing; the row has \['reference'\]"),
        ({"prediction": "a"}, "line 2: the field 'reference' is missing"),
        (GOOD | {"prediction": None}, "line 2: 'prediction' is None; it must be a string"),
        (GOOD | {"reference": 5}, "line 2: 'reference' is 5; it must be a string"),
        (b'{"reference": "\xff", "prediction": ""}', r"line 2: invalid UTF-8 \(invalid start byte at byte 15\)"),
        ("{'reference': 1}", "line 2: not JSON .*, column 2"),
        ('["a", "b"]', "line 2: a list instead of an object"),
        (GOOD | {"id": "1"}, "line 2: the id '1' stands on line 1 already"),
        (GOOD | {"duration": "2 s"}, "line 2: 'duration' is '2 s'; it must be a number of seconds"),
        (GOOD | {"duration": -1}, "line 2: 'duration' is -1"),
        ('{"reference": "a", "prediction": "a", "duration": NaN}', "line 2: NaN is not JSON"),
        (GOOD | {"seconds": True}, "line 2: 'seconds' is True"),
        ('{"reference": "\\ud800", "prediction": ""}', "line 2: 'reference' holds half of a surrogate pair"),
        (GOOD | {"language": ["nl"]}, r"line 2: 'language' is \['nl'\]; it must be a string"),
        (GOOD | {"audio": 3}, "line 2: 'audio' is 3; it must be a string"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = file_with(tmp_path, GOOD | {"id": "1"}, line)
    with pytest.raises(UserError, match=f"predictions.jsonl, {message}"):
        read_predictions(path)


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no prediction file"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        read_predictions(tmp_path)
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(file_with(tmp_path, "", "  "))


def rows(**predictions: str) -> list[dict[str, Any]]:
    return [{"id": key, "reference": f"r {key}", "prediction": value} for key, value in predictions.items()]


def test_pairs_are_matched_by_id() -> None:
    first, second = pair_predictions(rows(a="1", b="2"), rows(b="3", a="4"))
    assert [row["prediction"] for row in first] == ["1", "2"]
    assert [row["prediction"] for row in second] == ["4", "3"]


def test_different_lengths_ids_and_references_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"base has 2 rows and lora has 1: lora lacks 1 id\(s\) .*'b'"):
        pair_predictions(rows(a="1", b="2"), rows(a="1"), ("base", "lora"))
    with pytest.raises(UserError, match=r"base lacks 1 id\(s\) .*'c'"):
        pair_predictions(rows(a="1"), rows(a="1", c="2"), ("base", "lora"))
    other = [{"id": "a", "reference": "something else", "prediction": "1"}]
    with pytest.raises(UserError, match="reference of id 'a' differs: A has 'r a', B has 'something else'"):
        pair_predictions(rows(a="1"), other)
