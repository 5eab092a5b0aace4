"""Two replicas under Ray Serve, on this machine's CPUs."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.serving.running import talk

pytest.importorskip("ray.serve", reason='the extra `ray` is not installed: pip install "slam-asr[ray]"')
openai = pytest.importorskip("openai")

pytestmark = pytest.mark.slow
WORDS = ["en", "to", "tre", "fire", "fem"]


@pytest.fixture(scope="module")
def address(served_model_dir: Path) -> Iterator[str]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray
    from ray import serve

    from trainers.serving.ray_deployment import Arguments, app

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 18_765})
        arguments = Arguments(model=str(served_model_dir), model_name="tiny", device="cpu", num_replicas=2, max_batch=4)
        serve.run(app(arguments), name="tiny")
        yield "http://127.0.0.1:18765"
    finally:
        serve.shutdown()
        ray.shutdown()


def test_two_replicas_give_the_pipeline_s_transcripts(address: str, server_pipe: Any) -> None:
    from ray import serve

    recordings = [talk(WORDS[: 1 + i % 5], seed=i) for i in range(20)]
    wanted = [server_pipe(data, progress=False)["text"] for data in recordings]

    def ask(data: bytes) -> str:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=300) as client:
            return client.audio.transcriptions.create(model="tiny", file=("a.wav", data)).text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, recordings)) == wanted
    deployed = serve.status().applications["tiny"].deployments["slam-asr"]
    assert deployed.replica_states == {"RUNNING": 2}


def test_streams_and_errors_pass_through(address: str, server_pipe: Any) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=300) as client:
        data = talk(WORDS)
        events = list(client.audio.transcriptions.create(model="tiny", file=("a.wav", data), stream=True))
        assert events[-1].text == server_pipe(data, progress=False)["text"]
        with pytest.raises(openai.BadRequestError, match="not sound that can be decoded"):
            client.audio.transcriptions.create(model="tiny", file=("a.wav", b"no sound"))
        with pytest.raises(openai.NotFoundError, match="There is no model 'other' here"):
            client.audio.transcriptions.create(model="other", file=("a.wav", data))
