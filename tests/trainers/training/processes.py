"""Training runs in processes of their own, for tests that kill them."""

import multiprocessing
import os
import random
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# The server imports the libraries once; each run is then a fresh process forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["trainers.train"])


def train(values: dict[str, Any], log: str, environment: dict[str, str]) -> None:
    """Run the recipe with `--resume`; its output goes to the file `log`."""
    import torch

    from trainers.recipe import from_dict
    from trainers.train import run_training

    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    run_training(from_dict(values), resume=True)


def start(values: dict[str, Any], log: Path, **environment: str) -> BaseProcess:
    """A process that trains."""
    process = CONTEXT.Process(target=train, args=(values, str(log), environment))
    process.start()
    return process


def start_together(values: dict[str, Any], folder: Path, count: int) -> list[BaseProcess]:
    """`count` processes of one distributed run on this machine; process r logs to `folder`/log-r."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start(values, folder / f"log-{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(count)
    ]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_step(process: BaseProcess, log: Path, step: int, seconds: float = 240) -> bool:
    """Wait until the log tells of `step`; False when the process has ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if log.is_file() and f"step {step}/" in log.read_text(encoding="utf-8"):
            return True
        if not process.is_alive():
            return False
        time.sleep(0.005)
    raise TimeoutError(f"The run did not come to step {step} within {seconds} s.")


def kill_at(values: dict[str, Any], log: Path, step: int, rng: random.Random) -> int | None:
    """Start the run, kill it (SIGKILL) a random moment after `step`, and return its exit code."""
    log.unlink(missing_ok=True)
    process = start(values, log)
    if wait_for_step(process, log, step):
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
    process.join(240)
    return process.exitcode
