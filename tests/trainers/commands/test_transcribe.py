"""`slam-asr transcribe`: formats, names, errors that do not end the run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.modeling_slam_asr.conftest import talk
from trainers.cli import main
from trainers.inference.subtitles import Cue, clock, cues, to_srt, to_vtt
from trainers.inference.transcribe import output_names, render, timestamps_for

RATE = 16_000
FAST = ["--max-new-tokens", "12", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def model_dir(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, unreadable: list[int], tmp_path_factory: Any
) -> Path:
    """A saved model that writes printable tokens only."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = make_tiny_model()
    model.generation_config.suppress_tokens = unreadable
    model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    soundfile.write(folder / "one.wav", talk(1.0), RATE)
    soundfile.write(folder / "stereo.flac", np.stack([talk(1.0, seed=1)] * 2, axis=1), 48_000)
    soundfile.write(folder / "eight.wav", talk(1.0, seed=2), 8_000)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "text.wav").write_text("not a sound\n" * 20)
    return folder


def test_text_of_one_file(model_dir: Path, sounds: Path, capsys: Any) -> None:
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), *FAST]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(r"[^\n]+\n", output.out)
    assert "one.wav" not in output.out


def test_bad_files_are_told_at_the_end(model_dir: Path, sounds: Path, capsys: Any) -> None:
    names = ["text.wav", "one.wav", "empty.wav", "nan.wav", "gone.wav", "eight.wav", "stereo.flac", "silent.wav"]
    files = [str(sounds / name) for name in names]
    assert main(["transcribe", str(model_dir), *files, *FAST]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [Path(line.split(": ")[0].rstrip(":")).name for line in lines] == [
        "one.wav", "eight.wav", "stereo.flac", "silent.wav"
    ]  # fmt: skip
    assert "4 of 8 files could not be transcribed" in output.err
    for name, reason in (("text", "decoded"), ("empty", "no samples"), ("nan", "1 NaN"), ("gone", "does not exist")):
        assert re.search(rf"- .*{name}\.wav' .*{reason}", output.err)
    assert "Traceback" not in output.err


def test_json(model_dir: Path, sounds: Path, capsys: Any) -> None:
    files = [str(sounds / "one.wav"), str(sounds / "silent.wav")]
    arguments = ["transcribe", str(model_dir), *files, "--json", "--confidence", "--word-timestamps", *FAST]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files
    assert 0 < rows[0]["confidence"] < 1
    assert [chunk["text"] for chunk in rows[0]["chunks"]] == rows[0]["text"].split()
    assert rows[0]["approximate_timestamps"] is True
    assert rows[1] == {"file": files[1], "text": "", "chunks": [], "confidence": None, "no_speech": True,
                       "approximate_timestamps": True}  # fmt: skip


def test_files_of_every_format(model_dir: Path, sounds: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "one.ogg", talk(1.0, seed=3), RATE)
    files = [str(sounds / "one.wav"), str(other / "one.ogg"), str(sounds / "text.wav")]
    arguments = [
        "transcribe",
        str(model_dir),
        *files,
        "--json",
        "--srt",
        "--vtt",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, *FAST]) == 1
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{stem}.{form}" for stem in ("one", "one-2") for form in ("json", "srt", "vtt")] or written == [
        "one-2.json", "one-2.srt", "one-2.vtt", "one.json", "one.srt", "one.vtt"
    ]  # fmt: skip
    srt = (tmp_path / "out/one.srt").read_text()
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n.+\n", srt)
    assert (tmp_path / "out/one.vtt").read_text().startswith("WEBVTT\n\n00:00:0")
    assert str(tmp_path / "out/one.srt") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--srt"], "Several formats (json, srt) need --output-dir"),
        (["--confidence"], "no place in plain text"),
        (["--batch-size", "0"], "--batch-size 0: it must be 1 or more"),
        (["--window-seconds", "90"], "window_seconds must lie between 1 and 30"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "gramophone"], "--device gramophone: torch cannot compute there"),
        (["--device", "meta"], "--device meta: torch cannot compute there"),
        (["--output-dir", __file__], "is a file; name a folder"),
    ],
)
def test_mistakes(model_dir: Path, sounds: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), *arguments]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2_000])


def spoil(path: Path) -> None:
    path.write_text("{oops")


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (cut, "model.safetensors", "model.safetensors' is damaged or cut off"),
        (spoil, "config.json", "config.json' is not a valid JSON file"),
        (spoil, "generation_config.json", "generation_config.json' is not a valid JSON file"),
        (Path.unlink, "tokenizer.json", "The processor of"),
        (spoil, "tokenizer.json", "The processor of"),
        (Path.unlink, "processor_config.json", "The processor of"),
    ],
)
def test_a_damaged_model_is_told_in_a_paragraph(
    model_dir: Path,
    sounds: Path,
    tmp_path: Path,
    capsys: Any,
    change: Callable[[Path], Any],
    name: str,
    message: str,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_dir, broken)
    change(broken / name)
    assert main(["transcribe", str(broken), str(sounds / "one.wav"), *FAST]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and str(broken) in error
    assert "Traceback" not in error


def test_no_file_at_all_is_noticed_before_the_model_is_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainers.cli", "transcribe", "no/model", str(tmp_path / "gone.wav")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=120)
    assert done.returncode == 2
    assert "No such file" in done.stderr
    assert "gone.wav" in done.stderr


def word(text: str, start: float, end: float) -> dict[str, Any]:
    return {"text": text, "timestamp": (start, end)}


def test_cues_are_short_and_end_with_sentences() -> None:
    words = [word(f"woord{i}", 0.4 * i, 0.4 * i + 0.3) for i in range(60)]
    words[30]["text"] = "einde."
    made = cues(words)
    assert " ".join(cue.text.replace("\n", " ") for cue in made).split() == [w["text"] for w in words]
    for cue in made:
        assert cue.end - cue.start <= 6.0
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= 42
    assert any(cue.text.endswith("einde.") for cue in made)
    assert all(a.end <= b.start for a, b in pairwise(made))


def test_cues_break_at_pauses_and_never_overlap() -> None:
    made = cues([word("a", 0.0, 0.5), word("b", 2.0, 2.0), word("c", 2.1, 2.4)])
    assert made == [Cue(0.0, 0.5, "a"), Cue(2.0, 2.4, "b c")]
    assert cues([word("a", 1.0, 1.0)]) == [Cue(1.0, 1.3, "a")]
    assert cues([]) == []
    assert len(cues([word("x" * 100, 0.0, 1.0)])) == 1


def test_subtitle_formats() -> None:
    items = [Cue(0.0, 1.5, "a < b & c"), Cue(3661.0, 3662.0004, "d")]
    assert to_srt(items) == ("1\n00:00:00,000 --> 00:00:01,500\na < b & c\n\n2\n01:01:01,000 --> 01:01:02,000\nd\n\n")
    assert to_vtt(items).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b &amp; c\n\n")
    assert clock(59.9996, ",") == "00:01:00,000"


def test_names_and_needs() -> None:
    names = output_names(["a/x.wav", "b/x.mp3", "c/X.ogg", "https://h/x.wav?key=1"], Path("out"))
    assert [name.name for name in names] == ["x", "x-2", "X-3", "x-4"]
    assert timestamps_for(["txt"], False) is False
    assert timestamps_for(["json"], False) is True
    assert timestamps_for(["json", "srt"], False) == "estimate"
    assert timestamps_for(["vtt"], True) == "word"
    assert render("f", {"text": "é"}, "json") == '{"file": "f", "text": "é"}\n'
