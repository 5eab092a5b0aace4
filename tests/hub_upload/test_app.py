"""The demo's app as it stands in the Space: limits, errors in clear words, one worker, a stop; with a real Gradio server."""

import importlib.util
import json
import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hub_upload import space
from hub_upload.published import read_json
from trainers.cli import main
from trainers.errors import UserError
from trainers.files import write_json
from trainers.inference.notices import LOW_CONFIDENCE
from trainers.sound import silence, voice_like, write_wav

from ..browser import needs

pytestmark = needs("gradio", browser=False)
VISITORS = 20


@pytest.fixture(scope="module")
def app(finished_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The app's module, for a tiny model; recordings of up to 10 s."""
    folder = tmp_path_factory.mktemp("space")
    config = read_json(finished_model / "config.json", required=True)
    space.write_space(folder, str(finished_model), None, config, ["da", "nl"])
    with app_in(folder) as module:
        yield module


@contextmanager
def app_in(folder: Path) -> Iterator[Any]:
    settings = read_json(folder / "space.json")
    write_json(
        folder / "space.json", {**settings, "limits": {**settings["limits"], "seconds_of_sound": 10, "megabytes": 1}}
    )
    spec = importlib.util.spec_from_file_location("space_app", folder / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("space_app", None)


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return str(write_wav(tmp_path / "recording.wav", voice_like(1.5)))


def test_what_is_too_much_or_no_sound_is_told_in_clear_words(app: Any, tmp_path: Path) -> None:
    (tmp_path / "no-sound.wav").write_bytes(b"hello")
    (tmp_path / "large.wav").write_bytes(bytes(1_100_000))
    write_wav(tmp_path / "long.wav", silence(11))
    write_wav(tmp_path / "empty.wav", silence(0))
    for name, said in (
        ("no-sound.wav", "cannot be read as sound"),
        ("gone.wav", "cannot be read as sound"),
        ("large.wav", "at most 1 MB"),
        ("long.wav", "takes up to"),
        ("empty.wav", "is 0.0 minutes"),
        (None, "no recording yet"),
    ):
        with pytest.raises(app.gr.Error, match=said) as caught:
            next(app.run(name and str(tmp_path / name), app.AS_TRAINED, "none"))
        assert str(tmp_path) not in str(caught.value)


def test_an_error_of_the_program_is_for_the_log_and_not_for_visitors(
    app: Any, recording: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    app.work(recording, {"return_timestamps": "nonsense"}, answers, threading.Event())
    answer = answers.get_nowait()
    assert isinstance(answer, app.gr.Error) and "could not be transcribed" in str(answer)
    assert "nonsense" not in str(answer) and "nonsense" in capfd.readouterr().err


def test_a_visitor_who_leaves_ends_the_work(app: Any, recording: str) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    left = threading.Event()
    left.set()
    app.work(recording, {}, answers, left)
    assert isinstance(answers.get_nowait(), app.gr.Error), "it was ended before its answer"
    with app.one_at_a_time:  # somebody else's turn
        visit = app.run(recording, app.AS_TRAINED, "none")
        assert next(visit) == ("", [], "")
        visit.close()
    assert app.one_at_a_time.acquire(timeout=120), "whoever left must not keep the next one waiting"
    app.one_at_a_time.release()


def test_noise_and_doubt_are_marked(app: Any) -> None:
    assert app.notes({"text": "fine", "confidence": 0.9}) == ""
    assert "no speech" in app.notes({"text": "x", "confidence": 0.9, "chunks": [{"no_speech": True}]})
    unsure = app.notes({"text": "x", "confidence": 0.2, "loop": True})
    assert "unsure" in unsure and "Danish, Dutch" in unsure and "repeated itself" in unsure
    just, below = ({"text": "x", "confidence": LOW_CONFIDENCE + step} for step in (0.01, -0.01))
    assert app.notes(just) == "" and "unsure" in app.notes(below), "where transcribe and the server say so"
    assert "of other languages it makes wrong text" in app.SETTINGS["description"]


def test_twenty_visitors_are_served_one_after_the_other(app: Any, recording: str) -> None:
    from gradio_client import Client, handle_file

    expected = app.transcribe(recording)["text"]
    _, address, _ = app.demo.queue(max_size=VISITORS).launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", max_file_size="1mb"
    )
    try:

        def visit(_: int) -> str:
            client = Client(address, verbose=False, httpx_kwargs={"timeout": 300})
            answer = client.predict(handle_file(recording), app.AS_TRAINED, "segments", api_name="/transcribe")
            return str(answer[0])

        with ThreadPoolExecutor(VISITORS) as pool:
            assert list(pool.map(visit, range(VISITORS))) == [expected] * VISITORS
    finally:
        app.demo.close()


def test_the_draft_of_a_model_with_a_ctc_head_is_shown_until_the_llm_writes(app: Any) -> None:
    pieces: queue.Queue[Any] = queue.Queue()
    streamer = app.QueueStreamer(pieces)
    tokens = streamer.tokenizer("een twee", add_special_tokens=False).input_ids
    streamer.put_draft(tokens)
    draft = pieces.get_nowait()
    assert isinstance(draft, app.Draft) and draft == streamer.tokenizer.decode(tokens)


def test_another_engine_computes_where_the_package_is_installed(
    finished_model: Path, recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("llama_cpp", "onnxruntime", "onnxscript", "gguf"):
        pytest.importorskip(package)
    exported = tmp_path / "exported"
    assert main(["export", str(finished_model), str(exported), "--gguf", "f16"]) == 0
    space.write_space(tmp_path / "space", str(exported), None, {}, [], "llama_cpp")
    with app_in(tmp_path / "space") as app:
        assert type(app.transcribe).__name__ == "ExportedPipeline" and app.WORDS not in app.TIMES
        *_, (text, rows, _) = app.run(recording, app.AS_TRAINED, "segments")
        assert text == app.transcribe(recording, num_beams=1)["text"] and len(rows) == 1
        asked = threading.Event()
        asked.set()
        answers: queue.Queue[Any] = queue.Queue()
        app.work(recording, {}, answers, asked)
        assert isinstance(answers.get_nowait(), app.gr.Error) and answers.empty(), "whoever left is not worked for"
    assert main(["space", "acme/tiny", "--engine", "llama_cpp"]) == 2
    assert "--engine llama_cpp: a Space has the model's own code" in " ".join(capsys.readouterr().err.split())
    assert main(["space", str(finished_model), "--local", "--engine", "llama_cpp"]) == 2
    assert "Make one with `slam-asr export MODEL DIR`" in " ".join(capsys.readouterr().err.split())


def test_what_the_engine_cannot_do_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not to each visitor, as a recording that could not be transcribed."""

    def refuse(options: dict[str, Any]) -> None:
        assert options == {"num_beams": 1}, "as the app decodes"
        raise UserError("repetition_penalty=1.1 is not possible: the engine llama_cpp decodes greedily.")

    model = SimpleNamespace(config=SimpleNamespace(projector_ctc=False))
    monkeypatch.setattr(
        "trainers.engines.load_pipeline", lambda *_, **__: SimpleNamespace(model=model, check_decoding=refuse)
    )
    space.write_space(tmp_path, "exported", None, {}, [], "llama_cpp")
    with pytest.raises(SystemExit) as ended, app_in(tmp_path):
        pass
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("slam-asr space: error: repetition_penalty=1.1 is not possible")


@pytest.mark.parametrize(
    ("options", "installed"), [({}, False), ({"installed": True}, True), ({"engine": "llama_cpp"}, True)]
)
def test_only_a_published_page_runs_its_models_code(tmp_path: Path, options: dict[str, Any], installed: bool) -> None:
    space.write_space(tmp_path, "user/model", None, {}, [], **options)
    assert json.loads((tmp_path / "space.json").read_text())["installed"] is installed
    source = (tmp_path / "app.py").read_text()
    trusting = source[
        source.index('if not SETTINGS["installed"]') : source.index("else:  # a page of one's own machine")
    ]
    assert source.count("trust_remote_code=True") == trusting.count("trust_remote_code=True") == 1


def test_the_end_of_the_work_is_told_where_the_tokens_are(app: Any) -> None:
    """transformers joins what all criteria say, on the device of the tokens."""
    stop = app.StopWhenAsked(threading.Event())
    said = stop(torch.zeros((3, 2), dtype=torch.long, device="meta"), None)
    assert said.shape == (3,) and said.device.type == "meta"
    stop.asked.set()
    with pytest.raises(app.Stopped):
        stop(torch.zeros((1, 2), dtype=torch.long), None)
