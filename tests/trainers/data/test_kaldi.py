"""Data folders of Kaldi."""

from pathlib import Path

import pytest

from tests.trainers.data.conftest import prepared
from trainers.data.sources import load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError


def test_the_split_of_a_folder_of_splits(long: Path, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").write_text(f"{name} {long / 'long.wav'}\n")
        (tmp_path / name / "text").write_text(f"{name} hej du\n")
    for split, name in (("train", "train"), ("dev", "dev"), ("validation", "dev")):
        assert load_source(DataSpec(str(tmp_path), split=split))["id"] == [name]
    with pytest.raises(UserError, match=r"has no split 'test'\. Splits there: dev, train\."):
        load_source(DataSpec(str(tmp_path), split="test"))
    assert load_source(DataSpec(str(tmp_path / "dev"), split="validation"))["id"] == ["dev"]


def test_a_folder_of_no_kind_is_told_without_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"text": "x"}\n{"text": ')
    with pytest.raises(UserError, match="of no other known kind") as told:
        load_source(DataSpec(str(tmp_path)))
    assert "hf auth login" not in str(told.value) and "An error occurred" not in str(told.value)


def test_a_kaldi_folder(long: Path, tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text(f"r {long / 'long.wav'}\nq sph2pipe -f wav x.sph |\n")
    (tmp_path / "text").write_text("u1 hej du\nu2 farvel\nu3 nej\n")
    (tmp_path / "segments").write_text("u1 r 1.5 3.5\nu2 r 4.0 -1\nu3 q 0 1\n")
    (tmp_path / "utt2spk").write_text("u1 A\nu2 B\nu3 B\n")
    dataset, report = prepared(tmp_path)
    assert dataset["text"] == ["hej du", "farvel"] and dataset["seconds"] == [2.0, 2.0]
    assert dataset["speaker_id"] == ["A", "B"]
    assert "a command, which is not run" in report.bad_files[0]["error"]
    (tmp_path / "text").write_text("u1 hej\nu4 du\n")
    with pytest.raises(UserError, match=r"1 utterances without a recording, the first 'u4' \(line 2\)"):
        load_source(DataSpec(str(tmp_path)))
