"""A table cut by speaker: nobody in two parts, no row lost."""

import argparse
import csv
import datetime
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.commands import split as command
from trainers.data.manifests import load_manifest
from trainers.data.spec import DataSpec
from trainers.data.split import PARTS, split_groups
from trainers.errors import UserError


@given(
    st.lists(st.sampled_from([None, *"abcdefgh"]), min_size=1, max_size=60),
    st.sampled_from(
        [{"validation": 0.1, "test": 0.1}, {"validation": 0.0, "test": 0.3}, {"validation": 0.5, "test": 0.4}]
    ),
    st.integers(0, 5),
)
def test_groups_stay_together_and_no_part_is_empty(
    groups: list[str | None], shares: dict[str, float], seed: int
) -> None:
    wanted = [part for part, share in shares.items() if share]
    speakers = set(groups) - {None}
    if len(speakers) < len(wanted) + (None not in groups):
        with pytest.raises(UserError, match=r"too few .* such as the sound file's"):
            split_groups(groups, shares, seed)
        return
    parts = split_groups(groups, shares, seed)
    assert parts == split_groups(groups, shares, seed)
    assert set(parts) == {"train", *wanted}
    assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
    assert {part for group, part in zip(groups, parts, strict=True) if group is None} <= {"train"}


def test_shares_are_nearly_met() -> None:
    groups = [f"speaker {number % 40}" for number in range(1000)]
    counts = Counter(split_groups(groups, {"validation": 0.1, "test": 0.2}, seed=1))
    assert 100 <= counts["validation"] <= 150 and 200 <= counts["test"] <= 250


def test_a_group_a_row_takes_time_as_the_rows_do() -> None:
    counts = Counter(split_groups([f"{number}.wav" for number in range(200_000)], {"validation": 0.1, "test": 0.1}, 1))
    assert counts == {"train": 160_000, "validation": 20_000, "test": 20_000}


def split(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainers.cli", "split", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    done.stderr = " ".join(done.stderr.split())  # wrapped for people
    return done


def test_the_command_writes_manifests_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    rows = [
        {"wav": f"{who}{number}.wav", "sentence": f"Zin {number}", "client_id": who, "age": "7"}
        for who in "abcdefghij"
        for number in range(4)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = split(str(path))
    assert done.returncode == 0 and "4 of the 4 texts of test are in the training data too" in done.stdout, done.stderr
    parts = {part: tmp_path / f"all-{part}.jsonl" for part in PARTS}
    read = {
        part: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for part, file in parts.items()
    }
    assert sorted(row["wav"] for part in PARTS for row in read[part]) == sorted(row["wav"] for row in rows)
    assert all(row in rows for part in PARTS for row in read[part])
    speakers = [{row["client_id"] for row in read[part]} for part in PARTS]
    assert [len(one) for one in speakers] == [8, 1, 1] and len(set.union(*speakers)) == 10
    assert {row.speaker_id for row in load_manifest(DataSpec(dataset=str(parts["test"])))} == speakers[2]
    before = parts["test"].read_bytes()
    again = split(str(path), "--seed", "7")
    assert again.returncode == 2 and "Add --overwrite" in again.stderr and parts["test"].read_bytes() == before
    assert split(str(path), "--seed", "7", "--overwrite").returncode == 0 and parts["test"].read_bytes() != before


def test_what_cannot_be_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    lines = [f"{number}.wav,ja" for number in range(9)]
    path.write_text("\n".join(["audio,text", *lines, "9.wav,ja,and,more"]), encoding="utf-8")
    done = split(str(path), "--test", "0")
    assert "a voice may be in several parts" in done.stdout and "Left out: line 11" in done.stdout, done.stderr
    assert not (tmp_path / "all-test.jsonl").exists()
    assert "no such column. Columns there: audio, text" in split(str(path), "--by", "who", "--overwrite").stderr
    assert "too few" in split(str(path), "--by", "text", "--overwrite").stderr
    assert "per cent of the rows" in split(str(path), "--test", "100").stderr


def cut(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(each) for each in arguments]))


def read(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_json_does_not_have_is_text_or_null(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    days = [datetime.date(2026, 1, day) for day in range(1, 6)]
    rows = [{"audio": f"{day.day}.wav", "text": "ja", "day": day, "more": {"age": [math.nan]}} for day in days]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert cut(path) == 0
    found = read(*(tmp_path / f"all-{part}.jsonl" for part in PARTS))
    assert sorted(row["day"] for row in found) == [str(day) for day in days]
    assert all(row["more"] == {"age": [None]} for row in found)


def test_sound_inside_a_table_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    rows = [{"audio": {"bytes": b"RIFF" if number == 9 else None, "path": f"{number}.wav"}} for number in range(10)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match=r"Row 10 of .* holds bytes"):
        cut(path)
    assert list(tmp_path.iterdir()) == [path]


def test_no_part_of_an_earlier_split_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["audio,text", *(f"{number}.wav,ja" for number in range(9))]), encoding="utf-8")
    assert cut(path) == 0
    with pytest.raises(UserError, match="of an earlier split"):
        cut(path, "--validation", "0")
    assert cut(path, "--validation", "0", "--overwrite") == 0
    assert not (tmp_path / "all-validation.jsonl").exists() and "all-validation.jsonl of" in capsys.readouterr().out
    assert len(read(tmp_path / "all-train.jsonl", tmp_path / "all-test.jsonl")) == 9


def test_where_mozillas_clips_lie_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "0.mp3").touch()
    path = tmp_path / "validated.tsv"
    path.write_text("\n".join(["client_id\tpath", *(f"{who}\t{who}.mp3" for who in range(5))]), encoding="utf-8")
    assert cut(path) == 0 and f"The sound lies in {tmp_path / 'clips'}: set audio_root" in capsys.readouterr().out
