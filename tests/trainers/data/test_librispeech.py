"""LibriSpeech and MLS in the folders that OpenSLR hands out."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainers.data.rows import read_audio
from trainers.data.sources import detect_format, load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError


def sound(path: Path, length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(length, 0.1), 16_000, format="FLAC")  # what it is its content tells


@pytest.fixture
def english(tmp_path: Path) -> Path:
    for split, speaker in (("train-clean-100", "19"), ("dev-clean", "84")):
        chapter = tmp_path / "LibriSpeech" / split / speaker / "198"
        for number in range(2):
            sound(chapter / f"{speaker}-198-000{number}.flac", 1600)
        lines = [f"{speaker}-198-0000 ONE TWO", f"{speaker}-198-0001 THREE", f"{speaker}-198-../../../../../x OUT"]
        (chapter / f"{speaker}-198.trans.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "LibriSpeech"


@pytest.fixture(params=[".flac", ".opus"])
def dutch(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for split in ("train", "dev"):
        folder = tmp_path / "mls_dutch" / split
        sound(folder / "audio" / "1" / "2" / f"1_2_000000{request.param}", 1600)
        (folder / "transcripts.txt").write_text("1_2_000000\thet is zo\n", encoding="utf-8")
    return tmp_path / "mls_dutch"


def test_librispeech(english: Path) -> None:
    whole = DataSpec(str(english), split="dev-clean", language="en")
    assert detect_format(whole) == "librispeech"
    rows = load_source(whole)
    assert list(rows["id"])[:2] == ["84-198-0000", "84-198-0001"] and list(rows["text"])[:2] == ["ONE TWO", "THREE"]
    assert set(rows["speaker_id"]) == {"84"} and len(read_audio(rows[1])) == 1600
    assert "outside of" in rows[2]["fault"]
    assert load_source(DataSpec(str(english / "train-clean-100")))["id"][0] == "19-198-0000"
    with pytest.raises(UserError, match=r"no split 'train'\. Splits there: dev-clean, train-clean-100\."):
        load_source(DataSpec(str(english)))


def test_mls(dutch: Path) -> None:
    for spec in (DataSpec(str(dutch), split="validation", language="nl"), DataSpec(str(dutch / "dev"), language="nl")):
        rows = load_source(spec)
        assert detect_format(spec) == "librispeech" and list(rows["text"]) == ["het is zo"]
        assert (rows[0]["speaker_id"], rows[0]["language"], len(read_audio(rows[0]))) == ("1", "nl", 1600)
