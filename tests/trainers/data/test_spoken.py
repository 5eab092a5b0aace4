"""Text that is spoken: once, the same each time, each sentence in one split."""

from pathlib import Path

import numpy as np
import pytest

from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.sources import detect_format
from trainers.data.spec import DataSpec
from trainers.data.spoken import SOURCE, sentences_of
from trainers.embedded import espeak
from trainers.errors import UserError

pytest.importorskip("espeakng_loader")
LINES = [f"Sætning nummer {number} handler om vejret i dag." for number in range(30)]


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLAM_ASR_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "da.txt"
    path.write_text(
        "\n".join([*LINES, LINES[0], "kort", "x" * 200, "-" * 21, ". . . . . . . . . . . a"]), encoding="utf-8"
    )
    return path


def test_sentences_are_spoken_once_and_each_has_one_split(text: Path, tmp_path: Path) -> None:
    splits = {
        split: prepare([DataSpec(str(text), split=split, language="da")], split)[0]
        for split in ("train", "validation", "test")
    }
    said = [row["transcript"] for rows in splits.values() for row in rows]
    assert sorted(said) == sorted(line.lower().rstrip(".") for line in LINES) and len(splits["train"]) > 15
    row = splits["train"][0]
    assert row["source"] == SOURCE and row["speaker_id"].startswith("da+") and row["language"] == "da"
    samples = read_audio(row)
    assert 16_000 < len(samples) < 160_000 and np.abs(samples).max() > 0.05
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.wav")}
    again, _ = prepare([DataSpec(str(text), language="da", max_samples=5)], "train")
    assert len(made) == 30 and len(again) == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.wav")} == made
    assert set(again["transcript"]) < set(splits["train"]["transcript"])


def test_a_language_of_espeaks_own_and_mistakes(text: Path, tmp_path: Path) -> None:
    assert detect_format(DataSpec(str(text))) == "spoken"
    rows, _ = prepare([DataSpec(str(text), language="sv", max_samples=1)], "train")
    assert rows[0]["speaker_id"].startswith("sv+")
    for values, message in (
        ({}, "say in which language"),
        ({"language": "da", "split": "dev"}, "has train, validation and test"),
        ({"language": "qqq"}, "in the voice 'qqq.*one of its languages"),
    ):
        with pytest.raises(UserError, match=message):
            prepare([DataSpec(str(text), **values)], "train")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="does not exist"):
        prepare([DataSpec(str(tmp_path / "none.txt"), language="da")], "train")


def test_what_is_no_text_is_refused(text: Path, tmp_path: Path) -> None:
    for name, line in (
        ("19-198.trans.txt", "19-198-000{} THIS LITTLE WORK WAS FINISHED"),
        ("transcripts.txt", "1_2_00000{}\thet is zo en niet anders"),
        ("table.txt", "clip{}.wav\tDette er en sætning."),
    ):
        path = tmp_path / name
        path.write_text("\n".join(line.format(number) for number in range(5)), encoding="utf-8")
        with pytest.raises(UserError, match="is no text to be spoken, but a table or a corpus's transcripts"):
            prepare([DataSpec(str(path), language="en")], "train")


def test_signs_without_words_are_no_sentence(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    fair = ["हिन्दी में एक छोटा सा वाक्य है।", "In 1990-2000, så: 2-3 år (ca.)", "Een gewone zin, met 3 komma's."]
    path.write_text(
        "\n".join([*fair, "-" * 20, "_ . _ . _ . _ . _ a", "\N{HORIZONTAL ELLIPSIS}" * 16]), encoding="utf-8"
    )
    assert list(sentences_of(path)) == fair


def test_silence_is_no_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "_speak_in_fork", lambda *_: bytes(800))
    monkeypatch.setattr(espeak, "_speak_in_new_process", lambda *_: bytes(800))
    with pytest.raises(UserError, match="could not speak 'aha'"):
        espeak.synthesize("aha", "da")
