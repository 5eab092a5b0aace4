"""How much sound `slam-asr serve` transcribes, how long clients wait, and whether its words are those of an evaluation.

    python -m benchmarks.server MODEL SAMPLE.wav [--requests 200] [--clients 32] [--threads 1] [--output FILE.json]
    python -m benchmarks.server MODEL EVALUATION/predictions.jsonl [--clients 8] [--threads 2] [--output FILE.json]

Of a recording, each request is a piece of 3 to 7 s. Of the predictions of `slam-asr evaluate` (in the folder it ran in, for the paths of
their `audio`), each request is one recording whole, and its transcript is compared with the prediction. The `openai` client sends
them (extra `test`). One request goes before the clock starts.
"""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import psutil
import soundfile

from benchmarks.result import figures_parser, publish
from trainers.evaluation import read_predictions
from trainers.evaluation.scoring import score_rows
from trainers.results import PredictionRow


def clips(sample: Path, count: int) -> list[tuple[str, bytes, float]]:
    """WAV files cut from a recording: name, content, seconds."""
    wave, rate = soundfile.read(sample, dtype="float32")
    found = []
    for number in range(count):
        length = rate * (3 + number % 5)
        file = io.BytesIO()
        soundfile.write(file, np.resize(np.roll(wave, -number * 997), length), rate, format="WAV")
        found.append(("clip.wav", file.getvalue(), length / rate))
    return found


def same_words(rows: Sequence[PredictionRow], texts: Sequence[str]) -> dict[str, Any]:
    """How far the server's `texts` are from the predictions, and the word error rate of both."""
    served: list[Any] = [{**row, "prediction": text} for row, text in zip(rows, texts, strict=True)]
    rates = [score_rows(each, bootstrap=0)["wer"] for each in (rows, served)]
    same = sum(row["prediction"] == text for row, text in zip(rows, texts, strict=True))
    return {"transcripts_the_same": same, "wer_of_the_predictions": rates[0], "wer_of_the_server": rates[1]}


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument("sample", type=Path, help="a recording, or predictions (.jsonl)")
    parser.add_argument("--requests", type=int, default=200, help="of a recording")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument(
        "--dtype", default="auto", help="as of `slam-asr serve`: that of the predictions, to compare them"
    )
    arguments = parser.parse_args()
    rows = read_predictions(arguments.sample) if arguments.sample.suffix == ".jsonl" else []
    files = [Path(row["audio"]) for row in rows]
    sounds = [(file.name, file.read_bytes(), row["duration"]) for file, row in zip(files, rows, strict=True)]
    sounds = sounds or clips(arguments.sample, arguments.requests)
    command = [
        sys.executable,
        "-m",
        "slam_asr",
        "serve",
        arguments.model,
        "--port",
        "0",
        "--model-name",
        "model",
        "--dtype",
        arguments.dtype,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        if found is None:
            return server.wait()
        address, process = found[0], psutil.Process(server.pid)

        def ask(sound: tuple[str, bytes, float]) -> tuple[str, float]:
            start = time.monotonic()
            with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=3000) as client:
                text = client.audio.transcriptions.create(model="model", file=sound[:2]).text
            return text, time.monotonic() - start

        ask(sounds[0])
        memory, used, start = process.memory_info().rss, sum(process.cpu_times()[:2]), time.monotonic()
        with ThreadPoolExecutor(arguments.clients) as pool:
            answers = list(pool.map(ask, sounds))
        wall, cpu = time.monotonic() - start, sum(process.cpu_times()[:2]) - used
        after = process.memory_info().rss
        server.terminate()
    seconds, took = sum(length for *_, length in sounds), [length for _, length in answers]
    result = {
        "requests": len(took), "clients": arguments.clients, "threads": arguments.threads, "audio_seconds": seconds,
        "audio_seconds_per_cpu_second": round(seconds / cpu, 1), "audio_seconds_per_wall_second": round(seconds / wall, 1),
        "answer_seconds_median": round(float(np.median(took)), 2), "answer_seconds_percentile_95": round(float(np.percentile(took, 95)), 2),
        "memory_mib": [memory >> 20, after >> 20], **(same_words(rows, [text for text, _ in answers]) if rows else {}),
    }  # fmt: skip
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
