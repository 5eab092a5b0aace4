"""The real-speech benchmark's synthetic sentences, and its table of systems."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.real_speech import speed_copies
from benchmarks.real_speech.baselines import table
from benchmarks.real_speech.curve import Curves, draw
from benchmarks.real_speech.speak import held_back_transcripts, plan
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.evaluation import evaluate_rows


def test_transcripts_of_other_splits_are_not_spoken(tmp_path: Path) -> None:
    folder = tmp_path / "nl" / "source"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"metadata\.csv"):
        held_back_transcripts(tmp_path)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [
                ("file_name", "transcription", "split"),
                ("a.ogg", "Zo\u2019n huis wil ik!", "dev"),
                ("b.ogg", "De kat.", "train"),
            ]
        )
    excluded = held_back_transcripts(tmp_path)
    assert excluded == {"zo'n huis wil ik"}
    text = tmp_path / "nl.txt"
    text.write_text(
        "Zo'n huis wil ik.\n" + "".join(f"zin nummer {n} over het weer\n" for n in range(210)), encoding="utf-8"
    )
    spoken = plan(text, train=10, test=200, seed=1, language="nl", excluded=frozenset(excluded))
    assert {item.language for item in spoken} == {"nl"}
    assert not excluded & {item.text for item in spoken} and len({item.text for item in spoken}) == 210


def test_no_sentence_is_in_both_splits(tmp_path: Path) -> None:
    text = tmp_path / "da.txt"
    text.write_text("".join(f"s\u00e6tning nummer {n} om vejret\n" for n in range(300)), encoding="utf-8")
    spoken = plan(text, train=50, test=20, seed=3)
    assert len({item.text for item in spoken}) == 70
    assert plan(text, train=50, test=20, seed=3) == spoken
    with pytest.raises(UserError, match="ask for fewer"):
        plan(text, train=101, test=20, seed=3)


def test_table_of_systems() -> None:
    rows = [{"id": "a", "reference": "een twee drie vier", "prediction": "een twee vier", "source": "set"}]
    found = {name: evaluate_rows(rows, language="nl", bootstrap=10) for name in ("prior", "prior-2")}
    lines = table(found).splitlines()
    assert len(lines) == 4 and lines[0].count("|") == lines[2].count("|") == lines[1].count("|")
    assert "25.0 %" in lines[2] and "| 0 | 1 | 0 | 25.0 % |" in lines[2]


def test_speed_copies_are_an_audio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    (tmp_path / "metadata.csv").write_text("file_name,transcription,split\na.wav,Hello world,train\n")
    monkeypatch.setattr("sys.argv", ["speed_copies", str(tmp_path), "--output-dir", str(tmp_path / "more/copies")])
    speed_copies.main()
    rows, _ = prepare([DataSpec(str(tmp_path / "more/copies"))], "train", quiet=True)
    assert [row["transcript"] for row in rows] == ["hello world"] * 2
    assert sorted(len(read_audio(row)) for row in rows) == pytest.approx([32_000 / 1.1, 32_000 / 0.9], abs=2)


def test_the_curve_names_its_series(tmp_path: Path) -> None:
    curves: Curves = {
        "hours": [
            {"series": "two voices", "hours": 0.9, "steps": 600, "wer": 0.4, "wer_ci": [0.3, 0.5]},
            {"series": "two voices", "hours": 1.8, "steps": 600, "wer": 0.3},
        ],
        "steps": {"more voices": [(500, 0.21), (1000, 0.18)]},
        "whisper": 0.06,
    }
    draw(curves, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in drawn for name in ("two voices", "more voices", "whisper-base itself", "1"))
