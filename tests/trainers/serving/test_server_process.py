"""`slam-asr serve` as a process of its own: its start, its end, and a day's work in small."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.trainers.serving.running import lecture, talk
from trainers.cli import main

pytest.importorskip("fastapi")
openai = pytest.importorskip("openai")
httpx = pytest.importorskip("huggingface_hub.utils").httpx

WORDS = ["en", "to", "tre", "fire", "fem"]


@contextmanager
def process(model: Path, *arguments: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command and the address that it tells."""
    started = subprocess.Popen(
        [sys.executable, "-m", "slam_asr", "serve", str(model), "--port", "0", "--device", "cpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        found = re.search(r"serving (\S+) at (http://\S+)", line)
        assert found, line + started.communicate()[1]
        yield started, found[2]
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def clients_ask(address: str, recordings: list[bytes], clients: int) -> list[str]:
    """Each recording's transcript, asked for by so many clients at a time."""

    def ask(data: bytes) -> str:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=600) as client:
            return client.audio.transcriptions.create(model="tiny", file=("a.wav", data)).text

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, recordings))


def test_a_signal_ends_it_once_the_requests_at_work_are_answered(served_model_dir: Path, server_pipe: Any) -> None:
    data = lecture(8)
    wanted = server_pipe(data, window_seconds=2.0, progress=False)["text"]
    with process(served_model_dir, "--window-seconds", "2", "--max-batch", "1") as (server, address):
        assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "tiny"
        url = f"{address}/v1/audio/transcriptions"
        with httpx.stream("POST", url, data={"stream": "true"}, files={"file": data}, timeout=120) as response:
            lines = (line for line in response.iter_lines() if line.startswith("data: "))
            events = [json.loads(next(lines)[6:])]
            server.send_signal(signal.SIGTERM)
            events += [json.loads(line[6:]) for line in lines]
        assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == wanted
        assert "".join(event["delta"] for event in events[:-1]) == wanted
        assert server.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
        assert server.stderr is not None and "Traceback" not in server.stderr.read()


def test_clients_at_once_get_the_pipeline_s_transcripts(served_model_dir: Path, server_pipe: Any) -> None:
    rng = np.random.default_rng(1)
    recordings = [talk([str(word) for word in rng.choice(WORDS, 1 + i % 6)], seed=i) for i in range(24)]
    wanted = [server_pipe(data, progress=False)["text"] for data in recordings]
    assert len(set(wanted)) > 6
    with process(served_model_dir, "--max-batch", "4") as (server, address):
        assert clients_ask(address, recordings, 8) == wanted
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130


def test_what_cannot_be_served_is_told_before_the_model_is_loaded(
    served_model_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(served_model_dir), "--port", port]) == 2
    assert f"--port {port}: cannot listen there" in " ".join(capsys.readouterr().err.split())
    for arguments, said in (
        (["--port", "70000"], "from 0 to 65535"),
        (["--host", "no.such.host.invalid"], "cannot listen there"),
        (["--max-batch", "0"], "--max-batch (max_batch) must be greater than 0, got 0"),
        (["--max-queue-seconds", "nan"], "must be greater than 0, got nan"),
        (["--num-beams", "0"], "--num-beams 0: it must be 1 or more"),
    ):
        assert main(["serve", str(served_model_dir), *arguments]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    for key in ("", " ", "key\n", "nøgle"):
        monkeypatch.setenv("SLAM_ASR_API_KEY", key)
        assert main(["serve", str(served_model_dir), "--port", "0"]) == 2
        error = capsys.readouterr().err
        assert "SLAM_ASR_API_KEY is set, but empty" in error and (not key.strip() or key not in error)


@pytest.mark.slow
def test_200_requests_of_32_clients(served_model_dir: Path, server_pipe: Any) -> None:
    rng = np.random.default_rng(2)
    kinds = [talk([str(word) for word in rng.choice(WORDS, 1 + i % 6)], seed=i) for i in range(18)]
    kinds += [lecture(n, seed=n) for n in (3, 5)]
    wanted = [server_pipe(data, window_seconds=2.0, progress=False)["text"] for data in kinds]
    with process(served_model_dir, "--window-seconds", "2") as (server, address):
        found = clients_ask(address, kinds * 10, 32)
        assert found == wanted * 10
        figures = httpx.get(f"{address}/metrics").text
        assert 'slam_asr_requests_total{status="200"} 200.0' in figures
        # Memory: after the first 200 it stays where it is.
        memory = psutil.Process(server.pid).memory_info
        before = memory().rss
        for _ in range(3):
            assert clients_ask(address, kinds * 10, 32) == wanted * 10
        assert memory().rss < before + (64 << 20)
        ends = time.monotonic() + 30
        while httpx.get(f"{address}/health").json()["queued_audio_seconds"]:
            assert time.monotonic() < ends
