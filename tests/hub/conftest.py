"""Fixtures for publishing: a running look-alike of the Hub, and processes that talk to it with a token and a cache of
their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .lookalike import Server, serve

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    """A look-alike Hub of this test's own, at `hub.url`; its content is `hub.store`."""
    server = serve(tmp_path / "hub-content")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub_environment(hub: Server, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that uses the look-alike: its address, a token, an empty cache, no Xet."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
    }
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_TOKEN": "hf_write",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "10",
        "HF_HUB_ETAG_TIMEOUT": "10",
    }


@pytest.fixture
def run_python(hub_environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs `python ...` against the look-alike: `run_python("-c", code)`; keyword arguments go to the environment."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            env={**hub_environment, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
