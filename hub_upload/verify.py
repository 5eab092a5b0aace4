"""Does it work for somebody else? A fresh process loads the model, from a folder or from the Hub with an empty cache."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from numpy.typing import NDArray

from trainers import sound
from trainers.files import scratch_folder

from .client import PublishError
from .client_environment import VERIFY_TIMEOUT
from .gate import open_gate
from .packages import package_folders
from .snippets import snippets

STRANGER = Path(__file__).with_name("stranger.py")
LOGIT_TOLERANCE = 1e-4
SAMPLE_SECONDS = 2.5
# All that the fresh process keeps of this one's environment: what a machine needs to compute, and nothing of the account.
KEPT_VARIABLES = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT",
)  # fmt: skip


@dataclass(frozen=True)
class Observed:
    """What a fresh process saw of a model: logits `(1, length, vocabulary)` and transcripts of the check's recording."""

    logits: NDArray[Any]
    text: str
    pipeline_text: str
    printed: list[str]


def observe(
    model: str,
    *,
    recording: Path | None = None,
    revision: str | None = None,
    empty_cache: bool = False,
    token_for: Sequence[str] = (),
    timeout: float = VERIFY_TIMEOUT,
) -> Observed:
    """
    Load and use a model, and run the examples of its card, in a fresh process that cannot import this project.

    The process has no token, an environment of its own, and no network but the Hub, through a gate that only reads.

    Args:
        model: folder or repository.
        recording: a sound file of at most 30 s; a synthetic one when None.
        empty_cache: start with no cache at all, as a stranger does.
        token_for: repositories that the gate may read with this account's token: private or gated ones.
        timeout: seconds until the process is ended.
    Raises:
        PublishError: with the process's own error, when it fails or takes too long.
    """
    with scratch_folder("verify") as folder, open_gate(token_for) as address:
        audio = folder / "recording.wav"
        if recording is None:
            sound.write_wav(audio, sound.voice_like(SAMPLE_SECONDS))
        else:
            _copy_recording(recording, audio)
        request = {
            "model": model,
            "revision": revision,
            "audio": str(audio),
            "packages": package_folders(),
            "snippets": snippets(model, revision or "main"),
            "result": str(folder / "result.json"),
            "logits": str(folder / "logits.safetensors"),
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(STRANGER), str(folder / "request.json")],
                cwd=folder,
                env=_environment(folder, address, empty_cache),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PublishError(
                f"Loading {model} in a fresh process took more than {timeout:.0f} s and was ended. Check the connection, or "
                "give it more time with --verify-timeout."
            ) from error
        if done.returncode != 0:
            raise PublishError(f"Loading {model} in a fresh process failed: {last_error(done.stderr)}")
        return _read(folder)


def _read(folder: Path) -> Observed:
    from safetensors.numpy import load_file

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    logits = load_file(folder / "logits.safetensors")["logits"]
    return Observed(logits, result["text"], result["pipeline_text"], result["printed"])


def _copy_recording(recording: Path, target: Path) -> None:
    from modeling_slam_asr.audio_slam_asr import load_audio

    sound.write_wav(target, load_audio(recording, sound.RATE)[: 30 * sound.RATE])


def _environment(folder: Path, address: str, empty_cache: bool) -> dict[str, str]:
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    home, cache = str(folder / "home"), str(folder / "home" / "hub") if empty_cache else constants.HF_HUB_CACHE
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "HF_HOME"), home)
    environment |= dict.fromkeys(
        ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN"), "1"
    )
    (folder / "home").mkdir()
    return {**environment, "HF_HUB_CACHE": cache, "HF_ENDPOINT": address, "NO_PROXY": "*", "no_proxy": "*"}


def last_error(stderr: str) -> str:
    """The last error message in a process's output, on one line."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if not line[0].isspace() and "Error" in line]
    told = lines[starts[-1] if starts else 0 :][:12]
    return " ".join(line.strip() for line in told)[:1500] or "it said nothing"


def differences(expected: Observed, seen: Observed) -> list[str]:
    """In what two observations of the same model differ; empty when they agree."""
    problems = []
    if expected.logits.shape != seen.logits.shape:
        problems.append(f"the logits have the shape {seen.logits.shape}, not {expected.logits.shape}")
    else:
        largest = float(abs(expected.logits - seen.logits).max())
        if not largest <= LOGIT_TOLERANCE:
            problems.append(f"the logits differ by {largest:.2e}, more than {LOGIT_TOLERANCE:g}")
    for name, before, after in (
        ("transcript", expected.text, seen.text),
        ("pipeline's transcript", expected.pipeline_text, seen.pipeline_text),
        ("snippets' output", expected.printed, seen.printed),
    ):
        if before != after:
            problems.append(f"the {name} is {after!r}, not {before!r}")
    return problems
