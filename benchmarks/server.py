"""How much sound `slam-asr serve` transcribes, and how long clients wait, with many of them at once.

    python -m benchmarks.server MODEL SAMPLE.wav [--requests 200] [--clients 32] [--threads 1] [--output FILE.json]

Each request is a piece of 3 to 7 s of the sample, sent by the `openai` client (extra `test`). One request goes before the clock starts.
"""

import io
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import psutil
import soundfile

from benchmarks.result import figures_parser, publish


def clips(sample: Path, count: int) -> list[tuple[bytes, float]]:
    """WAV files cut from a recording, with their seconds."""
    wave, rate = soundfile.read(sample, dtype="float32")
    found = []
    for number in range(count):
        length = rate * (3 + number % 5)
        file = io.BytesIO()
        soundfile.write(file, np.resize(np.roll(wave, -number * 997), length), rate, format="WAV")
        found.append((file.getvalue(), length / rate))
    return found


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument("sample", type=Path, help="a recording")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    arguments = parser.parse_args()
    sounds = clips(arguments.sample, arguments.requests)
    command = [sys.executable, "-m", "slam_asr", "serve", arguments.model, "--port", "0", "--model-name", "model"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        if found is None:
            return server.wait()
        address, process = found[0], psutil.Process(server.pid)

        def ask(sound: bytes) -> float:
            start = time.monotonic()
            with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=3000) as client:
                client.audio.transcriptions.create(model="model", file=("clip.wav", sound))
            return time.monotonic() - start

        ask(sounds[0][0])
        memory, used, start = process.memory_info().rss, sum(process.cpu_times()[:2]), time.monotonic()
        with ThreadPoolExecutor(arguments.clients) as pool:
            took = list(pool.map(ask, [sound for sound, _ in sounds]))
        wall, cpu = time.monotonic() - start, sum(process.cpu_times()[:2]) - used
        after = process.memory_info().rss
        server.terminate()
    seconds = sum(length for _, length in sounds)
    result = {
        "requests": len(took), "clients": arguments.clients, "threads": arguments.threads, "audio_seconds": seconds,
        "audio_seconds_per_cpu_second": round(seconds / cpu, 1), "audio_seconds_per_wall_second": round(seconds / wall, 1),
        "answer_seconds_median": round(float(np.median(took)), 2), "answer_seconds_percentile_95": round(float(np.percentile(took, 95)), 2),
        "memory_mib": [memory >> 20, after >> 20],
    }  # fmt: skip
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
