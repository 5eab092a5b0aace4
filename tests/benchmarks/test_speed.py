"""The benchmark of speed, whole, on a tiny model and a few clips; its arithmetic."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.__main__ import main
from benchmarks.speed.ceilings import Ceilings, Work
from benchmarks.speed.clips import make_clips
from tests.conftest import speak
from trainers.errors import UserError
from trainers.sound import write_wav


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of 0.75 to 1.25 s, as a manifest."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, words in enumerate((["en", "to", "tre"], ["fire", "fem", "en"], ["tre", "to", "fem", "fire", "en"])):
        write_wav(folder / f"{number}.wav", speak(words, seed=number))
        rows.append(json.dumps({"audio": f"{number}.wav", "text": " ".join(words)}) + "\n")
    (folder / "rows.jsonl").write_text("".join(rows))
    return folder / "rows.jsonl"


def test_clips_are_whole_utterances_with_their_texts(data: Path) -> None:
    clips = make_clips([str(data)], "test", "da", 2.25, 3)
    assert len(clips) == 3 and all(1.8 <= clip.seconds <= 2.25 for clip in clips)
    for clip in clips:
        assert clip.seconds == pytest.approx(0.25 * len(clip.text.split()), rel=0.05)
    assert [clip.text for clip in make_clips([str(data)], "test", "da", 2.25, 3)] == [clip.text for clip in clips]
    with pytest.raises(UserError, match=r"no 3 clips of 0\.4 to 0\.5 s"):
        make_clips([str(data)], "test", "da", 0.5, 3)


def test_the_least_time_is_that_of_the_products_or_of_the_memory() -> None:
    ceilings = Ceilings(bandwidth=100.0, products={"float32": 1000.0})
    work = Work(encoder_size=10, llm_size=5, head_size=20, llm_bytes=100, precision="float32")
    assert work.least_seconds(ceilings) == 0
    work.encoder_frames = 50
    work.passes = [(400, 1), (1, 1)]
    assert work.least_seconds(ceilings) == pytest.approx(1.0 + (2 * (5 * 400 + 20) / 1000) + 1.0)


def test_the_whole_table(
    make_tiny_model: Callable[..., Any],
    tiny_processor: Any,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model"
    make_tiny_model(lora={"r": 4, "lora_alpha": 8}).save_pretrained(model)
    tiny_processor.save_pretrained(model)
    llama_cpp = all(importlib.util.find_spec(name) for name in ("llama_cpp", "onnxruntime", "onnxscript", "gguf"))
    systems = ["torch-float32", "plain-float32", "whisper", *(["llama_cpp-q8_0"] if llama_cpp else [])]
    grid = [
        "--seconds",
        "1.25",
        "--batch",
        "1",
        "2",
        "--beams",
        "1",
        "2",
        "--clips",
        "2",
        "--rounds",
        "1",
        "--threads",
        "1",
    ]
    place = ["--model", str(model), "--dataset", str(data), "--language", "da", "--output-dir", str(tmp_path / "out")]
    assert main([*place, *grid, "--systems", *systems]) == 0
    result = json.loads((tmp_path / "out" / "speed.json").read_text())
    rows = {(row["system"], row["batch"], row["beams"]): row for row in result["rows"]}
    assert len(rows) == len(systems) * 4 and result["machine"]["bandwidth"] > 0
    assert rows["whisper", 1, 1]["refused"] == "not measured: --whisper was not given"
    for system in ("torch-float32", "plain-float32"):
        for batch in (1, 2):
            row = rows[system, batch, 2]
            assert row["rtfx"] > 0 and row["peak_gib"] > 0.05 and 0 < row["share"] < 1 and row["first_token"] > 0
            assert row["encoder_calls"] == 2 // batch, "each batch goes through the encoder once"
            assert row["wer"] == rows[system, 1, 2]["wer"]
    if llama_cpp:
        assert rows["llama_cpp-q8_0", 2, 1]["encoder_calls"] == 1 and rows["llama_cpp-q8_0", 1, 1]["share"] > 0
        assert "num_beams=2 is not possible" in rows["llama_cpp-q8_0", 1, 2]["refused"]
    shown = capsys.readouterr().out
    assert shown.count("torch-float32") == 2 and "- whisper: not measured" in shown
    assert (tmp_path / "out" / "table.md").read_text().strip() in shown
