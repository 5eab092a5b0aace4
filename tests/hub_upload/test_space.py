"""The demo: its files, its publication, and the page itself in a browser."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from hub_upload.published import read_json
from hub_upload.space import write_space
from trainers.cli import main
from trainers.embedded.base_models import base_model
from trainers.inference.notices import LOW_CONFIDENCE, LOW_CONFIDENCE_OF_MINIATURE

from ..browser import CHROMIUM, needs
from .conftest import REPOSITORY, Run
from .lookalike import Server

PUBLISH_FILES = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("acme/tiny")
api.upload_folder(repo_id="acme/tiny", folder_path=sys.argv[1], ignore_patterns=["predictions*"])
"""


def test_the_space_is_published_with_the_models_commit(hub: Server, run_python: Run, model_folder: Path) -> None:
    missing = run_python("-m", "trainers.cli", "space", "acme/tiny")
    assert missing.returncode == 2 and "is not on the Hub" in " ".join(missing.stderr.split())
    (model_folder / "README.md").write_text("---\nlanguage: [da, nl]\n---\n# tiny\n")
    assert run_python("-c", PUBLISH_FILES, str(model_folder)).returncode == 0
    state = hub.store.load("model", "acme/tiny")
    assert state is not None
    hub.store.faults.append({"method": "POST", "path": "/api/spaces/.*/commit/main", "drop_before_reply": True})
    for _ in range(2):
        done = run_python("-m", "trainers.cli", "space", "acme/tiny")
        assert done.returncode == 0, done.stderr
    assert hub.store.commits("acme/tiny-demo", kind="space") == ["Demo of acme/tiny", "initial commit"]
    settings = json.loads(hub.store.read("acme/tiny-demo", "space.json", kind="space"))
    assert settings["revision"] == state["refs"]["refs/heads/main"] and settings["languages"] == ["da", "nl"]
    card = SpaceCard(hub.store.read("acme/tiny-demo", "README.md", kind="space").decode()).data.to_dict()
    assert card["sdk"] == "gradio" and card["app_file"] == "app.py" and card["models"] == ["acme/tiny"]
    lines = hub.store.read("acme/tiny-demo", "requirements.txt", kind="space").decode().splitlines()
    assert {Requirement(line).name for line in lines} == {"torch", "transformers", "soundfile", "soxr", "peft"}
    assert all(Requirement(line).specifier for line in lines), "the package's own ranges"
    space = hub.store.load("space", "acme/tiny-demo")
    assert space is not None and space["sdk"] == "gradio"


def test_a_text_is_doubtful_where_transcribe_says_so(tmp_path: Path) -> None:
    miniature = read_json(Path(base_model("embedded/encoder")) / "config.json", required=True)
    for audio, limit in ((miniature, LOW_CONFIDENCE_OF_MINIATURE), ({"d_model": 512}, LOW_CONFIDENCE)):
        write_space(tmp_path, "acme/tiny", None, {"audio_config": audio}, ["da"])
        assert read_json(tmp_path / "space.json")["low_confidence"] == limit


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def page_address(model_folder: Path, hub_environment: dict[str, str]) -> Iterator[str]:
    """The address of the app as `slam-asr space DIR --local` runs it."""
    port = free_port()
    command = [sys.executable, "-m", "trainers.cli", "space", str(model_folder), "--local", "--port", str(port)]
    environment = {**hub_environment, "HF_HUB_OFFLINE": "1", "no_proxy": "*"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the app ended: {process.stderr.read()[-2000:]}")
        if _answers(address):
            break
        time.sleep(0.3)
    yield address
    process.kill()  # the command alone; its app has to end by itself
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _answers(address):
            time.sleep(0.3)
        assert not _answers(address), "the app outlived its command"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@needs("gradio", "playwright")
def test_the_page_transcribes_a_file_and_the_microphone(page_address: str, model_folder: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
    from trainers.sound import voice_like, write_wav

    real = sorted((REPOSITORY.parent / "shared" / "speech").glob("*/*/*.flac"))
    recording = real[0] if real else write_wav(tmp_path / "recording.wav", voice_like(2.0, seed=5))
    model = SlamAsrForConditionalGeneration.from_pretrained(model_folder)
    processor = SlamAsrProcessor.from_pretrained(model_folder)
    inputs = processor.apply_transcription_request(recording)
    wanted = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0]

    options: dict[str, Any] = {
        "executable_path": CHROMIUM,
        "args": ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"],
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        page = browser.new_context(permissions=["microphone"]).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_address, timeout=120_000)
        text = page.locator("#text textarea")
        expect(page.locator("#transcribe")).to_be_visible(timeout=120_000)
        page.get_by_role("button", name="Transcribe").click()
        expect(page.get_by_text("There is no recording yet")).to_be_visible(timeout=60_000)

        page.locator("#recording input[type=file]").set_input_files(str(recording), timeout=60_000)
        expect(page.locator("#recording").get_by_label("Download")).to_be_visible(timeout=60_000)
        page.get_by_label("segments").check()
        page.get_by_role("button", name="Transcribe").click()
        shown = wanted.replace("\r\n", "\n").replace("\r", "\n")  # as every text field does
        expect(text).to_have_value(shown, timeout=120_000)
        expect(page.locator("#times")).to_contain_text(re.compile(r"0:00\.\d\d"), timeout=60_000)

        box = page.locator("#recording")
        box.get_by_label("Clear").click()
        box.get_by_label("Record audio").click()
        box.locator("button.record-button").click()
        page.wait_for_timeout(1500)  # what is recorded
        box.locator("button.stop-button").first.click()
        expect(box.get_by_label("Download")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Transcribe").click()
        expect(text).not_to_have_value(shown, timeout=120_000)
        expect(text).not_to_have_value("", timeout=120_000)
        browser.close()
    assert not problems, problems


def test_an_engine_that_cannot_run_the_app_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "exported", "--local", "--engine", "vllm"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "processes that import the app once more" in said and "`slam-asr serve exported --engine vllm`" in said


def test_without_gradio_the_local_app_says_what_to_install(run_python: Run, model_folder: Path) -> None:
    code = "import sys; sys.modules['gradio'] = None\nfrom trainers.cli import main\nsys.exit(main(sys.argv[1:]))"
    failed = run_python("-c", code, "space", str(model_folder), "--local")
    assert failed.returncode == 2 and "pip install" in failed.stderr and "Traceback" not in failed.stderr
