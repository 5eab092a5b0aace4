"""A real server for tests: uvicorn in a thread of this process, on a free port."""

import io
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.conftest import SAMPLING_RATE, speak


def wav_bytes(samples: np.ndarray) -> bytes:
    """Samples as a 16-bit wav file."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return held.getvalue()


def talk(words: list[str], seed: int = 0) -> bytes:
    """A recording of the tiny corpus's words."""
    return wav_bytes(speak(words, seed=seed))


def lecture(sentences: int, seed: int = 0) -> bytes:
    """Sentences of 1.25 s with pauses of 0.5 s: a recording that is cut into windows."""
    rng = np.random.default_rng(seed)
    pause = 1e-4 * rng.standard_normal(SAMPLING_RATE // 2)
    words = ["en", "to", "tre", "fire", "fem"]
    parts = [np.concatenate([speak(list(rng.permutation(words)), seed=i), pause]) for i in range(sentences)]
    return wav_bytes(np.concatenate(parts))


class HeldModel:
    """A pipeline whose real `forward` waits until it is released; what goes through it is counted."""

    def __init__(self, pipe: Any) -> None:
        self.released = threading.Event()
        self.released.set()
        self.begun = threading.Semaphore(0)
        self.batches: list[int] = []
        self._forward = pipe.forward
        pipe.forward = self

    def __call__(self, inputs: dict[str, Any], **options: Any) -> Any:
        self.batches.append(len(inputs["windows"]))
        self.begun.release()
        assert self.released.wait(60), "the test did not release the model"
        return self._forward(inputs, **options)

    def hold(self) -> None:
        """From now on batches wait."""
        self.released.clear()


@contextmanager
def running(pipe: Any, **settings: Any) -> Iterator[str]:
    """The address of a server around `pipe`; `settings` are those of `ServerSettings`."""
    from trainers.serving.server.app import create_app
    from trainers.serving.server.run import bound, uvicorn_server
    from trainers.serving.server.settings import ServerSettings

    listening = bound("127.0.0.1", 0)
    chosen = ServerSettings(**{"model_names": ("tiny",), **settings})
    server = uvicorn_server(create_app(pipe, chosen), chosen)
    listening.listen(server.config.backlog)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server does not end"


Serve = Callable[..., Any]
