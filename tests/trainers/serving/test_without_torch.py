"""The commands with an engine that needs no torch do not import it, with or without an exception caught."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainers.serving.running import lecture, talk

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="the extra `llama-cpp` is not installed"
)

# torch is installed, as everywhere, and an attempt to import it is written down.
PROGRAM = """
import importlib.machinery, sys, traceback

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torch" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        traceback.print_stack()
        print("torch was imported", file=sys.stderr)
        raise ImportError("torch is not there", name="torch")

sys.meta_path.insert(0, NoTorch())
from trainers.cli import program
sys.exit(program())
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "torch was imported" not in done.stderr, done.stderr
    return done


def test_transcribe(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(talk(["en", "to", "tre"]))
    (tmp_path / "lecture.wav").write_bytes(lecture(3))
    sounds = [str(tmp_path / name) for name in ("talk.wav", "lecture.wav")]
    marks = [
        "--json",
        "--word-timestamps",
        "--confidence",
        "--window-seconds",
        "2",
        "--language",
        "en",
        "--context",
        "x",
    ]
    done = run("transcribe", str(exported), *sounds, "--engine", "llama_cpp", *marks)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == ["talk.wav", "lecture.wav"]
    assert all(answer["chunks"] and 0 < answer["confidence"] <= 1 for answer in answers)
    assert "changes nothing" in done.stderr  # the notices


def test_evaluate(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(talk(["en", "to"]))
    (tmp_path / "rows.jsonl").write_text('{"audio": "talk.wav", "text": "en to", "language": "da"}\n')
    out = tmp_path / "scores"
    run("evaluate", str(exported), "--dataset", str(tmp_path / "rows.jsonl"), "--output-dir", str(out), "--engine", "llama_cpp")  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["reference_words"] == 2 and metrics["speed"]["rtfx"] > 0
    assert metrics["hardware"]["torch"] is None and metrics["hardware"]["cores"] >= 1
    assert "torch" not in metrics["speed"]["versions"] and metrics["speed"]["versions"]["llama_cpp"]


def test_serve(exported: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from huggingface_hub.utils import httpx

    command = [sys.executable, "-c", PROGRAM, "serve", str(exported), "--port", "0", "--engine", "llama_cpp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        if address is not None:
            asked = {"response_format": "verbose_json", "timestamp_granularities[]": "word", "language": "da"}
            url = f"{address[0]}/v1/audio/transcriptions"
            response = httpx.post(url, data=asked, files={"file": ("talk.wav", talk(["en", "to"]))}, timeout=120)
            server.terminate()
        errors = server.stderr.read()
        assert address is not None and "torch was imported" not in errors, errors
        assert response.status_code == 200 and response.json()["words"], response.text
        assert server.wait(60) == 0
