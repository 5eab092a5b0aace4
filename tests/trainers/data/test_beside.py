"""Folders of sound files with a text file or subtitles beside each."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainers.cli import main
from trainers.data.rows import read_audio
from trainers.data.sources import detect_format, load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError


def sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(int(16_000 * seconds), 0.1), 16_000, format="WAV")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "talks"
    for name in ("Ane/a.wav", "Ane/æ 2.wav", "Bo/long.WAV", "Bo/film.wav", "Bo/alone.wav", "Bo/broken.wav"):
        sound(root / name, 9.0)
    (root / "Ane" / "a.txt").write_text("\ufeffGoddag,\r\nkære venner.\r\n", encoding="utf-8")
    (root / "Ane" / "æ 2.txt").write_bytes("på gensyn".encode("utf-16"))
    (root / "Bo" / "broken.txt").write_bytes("på".encode("latin-1"))
    (root / "Bo" / "long.SRT").write_text(
        "1\r\n00:00:00,500 --> 00:00:02,000\r\n{\\an8}<i>Hej</i>\r\nmed dig\r\n\r\n2\r\n00:00:03,000 --> 00:00:03,000\r\nIntet\r\n",
        encoding="utf-8",
    )
    (root / "Bo" / "film.vtt").write_text(
        "WEBVTT - en film\n\nNOTE intet\n\nSTYLE\n::cue {}\n\nid\n00:01.000 --> 00:04.250 align:start\n<v Bo>Kaffe &amp; te\n\n"
        "01:00:00.000 --> 01:00:02.000\nefter\n",
        encoding="utf-8",
    )
    (root / "Bo" / "film.txt").write_text("subtitles come first", encoding="utf-8")
    (root / "notes.txt").write_text("of no sound", encoding="utf-8")
    return root


def test_one_row_a_text_and_one_a_cue(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = DataSpec(str(folder), language="da")
    assert detect_format(spec) == "beside"
    rows = {row["id"]: row for row in load_source(spec)}
    assert rows["Ane/a.wav"]["text"] == "Goddag, kære venner." and rows["Ane/æ 2.wav"]["text"] == "på gensyn"
    assert "latin-1" in rows["Bo/broken.wav"]["fault"] or "UTF-8" in rows["Bo/broken.wav"]["fault"]
    cue = rows["Bo/long.WAV:0.500-2.000"]
    assert (cue["text"], cue["start"], cue["end"], cue["duration"]) == ("Hej med dig", 0.5, 2.0, 1.5)
    assert len(read_audio(cue)) == 24_000 and len(read_audio(rows["Ane/a.wav"])) == 9 * 16_000
    assert rows["Bo/film.wav:1.000-4.250"]["text"] == "Kaffe & te" and rows["Bo/film.wav:3600.000-3602.000"]["text"]
    assert sum(row["fault"] is not None and "Mend the cue's times" in row["fault"] for row in rows.values()) == 1
    assert len(rows) == 7 and {row["language"] for row in rows.values() if not row["fault"]} == {"da"}
    assert (
        "1 sound files have no .srt, .vtt, .txt of their name and are left out, the first 'Bo/alone.wav'" in caplog.text
    )


def test_splits_are_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of the split 'test'.*everything is train.*slam-asr split"):
        load_source(DataSpec(str(folder), split="test"))
    parts = tmp_path / "parts"
    for split in ("train", "dev"):
        sound(parts / split / f"{split}.wav", 1.0)
        (parts / split / f"{split}.txt").write_text(split, encoding="utf-8")
    assert load_source(DataSpec(str(parts), split="validation"))["text"] == ["dev"]
    assert load_source(DataSpec(str(parts)))["text"] == ["train"]
    with pytest.raises(UserError, match="Splits there: dev, train"):
        load_source(DataSpec(str(parts), split="test"))


def test_such_a_folder_is_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        sound(folder / "more" / f"{number}.wav", 1.0)
        (folder / "more" / f"{number}.txt").write_text(f"nummer {number}", encoding="utf-8")
    assert main(["split", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Left out: " in said and "a voice may be in several parts" in said
    files = {part: folder.with_name(f"talks-{part}.jsonl") for part in ("train", "validation", "test")}
    read = {part: [json.loads(line) for line in path.read_text().splitlines()] for part, path in files.items()}
    names = {part: {row["audio"] for row in rows} for part, rows in read.items()}
    assert sum(map(len, read.values())) == 25 and all(names.values())
    assert not names["train"] & names["test"] and not names["train"] & names["validation"]
    rows = [row for path in files.values() for row in load_source(DataSpec(str(path)))]
    assert len(rows) == 25 and all(row["fault"] is None for row in rows)
    lengths = {row["text"]: len(read_audio(row)) for row in rows if row["text"] != "efter"}
    assert lengths["Hej med dig"] == 24_000 and lengths["nummer 3"] == 16_000
    assert main(["split", str(folder / "nothing.d")]) == 2
    (folder / "empty").mkdir()
    assert main(["split", str(folder / "empty")]) == 2 and "Name a table" in capsys.readouterr().err
