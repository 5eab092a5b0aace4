"""`slam-asr transcribe`: formats, names, errors that do not end the run."""

import argparse
import errno
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_slam_asr.windows_slam_asr import VADS
from tests.modeling_slam_asr.conftest import talk
from trainers.cli import main
from trainers.commands.transcribe import configure
from trainers.errors import UserError
from trainers.inference.notices import answer_notices, request_notices
from trainers.inference.recordings import Recording, find_recordings, output_names, shown
from trainers.inference.subtitles import FORMATS, NO_SPEECH_MARK, Cue, SubtitleFormat
from trainers.inference.torch_engine import load_pipeline
from trainers.inference.transcribe import StreamWriter, render, timestamps_for

RATE = 16_000
FAST = ["--max-new-tokens", "12", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def model_dir(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, unreadable: list[int], tmp_path_factory: Any
) -> Path:
    """A saved model that writes printable tokens only."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = make_tiny_model()
    model.generation_config.suppress_tokens = unreadable
    model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    soundfile.write(folder / "one.wav", talk(1.0), RATE)
    soundfile.write(folder / "stereo.flac", np.stack([talk(1.0, seed=1)] * 2, axis=1), 48_000)
    soundfile.write(folder / "eight.wav", talk(1.0, seed=2), 8_000)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "text.wav").write_text("not a sound\n" * 20)
    return folder


def test_text_of_one_file(model_dir: Path, sounds: Path, capsys: Any) -> None:
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), *FAST]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(r"[^\n]+\n", output.out)
    assert "one.wav" not in output.out


def test_bad_files_are_told_at_the_end(model_dir: Path, sounds: Path, capsys: Any) -> None:
    names = ["text.wav", "one.wav", "empty.wav", "nan.wav", "gone.wav", "eight.wav", "stereo.flac", "silent.wav"]
    files = [str(sounds / name) for name in names]
    assert main(["transcribe", str(model_dir), *files, *FAST]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [Path(line.split(": ")[0].rstrip(":")).name for line in lines] == [
        "one.wav", "eight.wav", "stereo.flac", "silent.wav"
    ]  # fmt: skip
    assert "4 of 8 files could not be transcribed" in output.err
    for name, reason in (("text", "decoded"), ("empty", "no samples"), ("nan", "1 NaN"), ("gone", "does not exist")):
        assert re.search(rf"- .*{name}\.wav' .*{reason}", output.err)
    assert "Traceback" not in output.err


def test_json(model_dir: Path, sounds: Path, capsys: Any) -> None:
    files = [str(sounds / "one.wav"), str(sounds / "silent.wav")]
    arguments = ["transcribe", str(model_dir), *files, "--json", "--confidence", "--word-timestamps", *FAST]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files
    assert 0 < rows[0]["confidence"] < 1
    assert [chunk["text"] for chunk in rows[0]["chunks"]] == rows[0]["text"].split()
    assert rows[0]["approximate_timestamps"] is True
    assert rows[1] == {"file": files[1], "text": "", "chunks": [], "confidence": None, "no_speech": True,
                       "approximate_timestamps": True}  # fmt: skip


def test_files_of_every_format(model_dir: Path, sounds: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "one.ogg", talk(1.0, seed=3), RATE)
    files = [str(sounds / "one.wav"), str(other / "one.ogg"), str(sounds / "text.wav")]
    arguments = [
        "transcribe",
        str(model_dir),
        *files,
        "--json",
        "--srt",
        "--vtt",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, *FAST]) == 1
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{stem}.{form}" for stem in ("one", "one-2") for form in ("json", "srt", "vtt")] or written == [
        "one-2.json", "one-2.srt", "one-2.vtt", "one.json", "one.srt", "one.vtt"
    ]  # fmt: skip
    srt = (tmp_path / "out/one.srt").read_text()
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n.+\n", srt)
    assert (tmp_path / "out/one.vtt").read_text().startswith("WEBVTT\n\n00:00:0")
    assert str(tmp_path / "out/one.srt") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--srt"], "Several formats (json, srt) need --output-dir"),
        (["--confidence"], "no place in plain text"),
        (["--batch-size", "0"], "--batch-size 0: it must be 1 or more"),
        (["--window-seconds", "90"], "window_seconds must lie between 1 and 30"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "gramophone"], "--device gramophone: torch cannot compute there"),
        (["--device", "meta"], "--device meta: torch cannot compute there"),
        (["--output-dir", __file__], "is a file; name a folder"),
        (["--ctc-weight", "0.3"], "this model has no CTC head"),
    ],
)
def test_mistakes(model_dir: Path, sounds: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), *arguments]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", [["transcribe"], ["serve", "--port", "0"]])
def test_an_unknown_voice_detector_is_refused_before_a_model_is_looked_for(
    command: list[str], sounds: Path, capsys: Any
) -> None:
    if command[0] == "serve":
        pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    files = [str(sounds / "one.wav")] if command[0] == "transcribe" else []
    assert main([*command, "./no-model-here", *files, "--vad", "ears"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "vad='ears' is unknown" in error and all(repr(name) in error for name in VADS)
    assert "no-model-here" not in error


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2_000])


def spoil(path: Path) -> None:
    path.write_text("{oops")


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (cut, "model.safetensors", "model.safetensors' is damaged or cut off"),
        (spoil, "config.json", "config.json' is not a valid JSON file"),
        (spoil, "generation_config.json", "no JSON object of at most"),
        (Path.unlink, "tokenizer.json", "The processor of"),
        (spoil, "tokenizer.json", "The processor of"),
        (Path.unlink, "processor_config.json", "The processor of"),
    ],
)
def test_a_damaged_model_is_told_in_a_paragraph(
    model_dir: Path,
    sounds: Path,
    tmp_path: Path,
    capsys: Any,
    change: Callable[[Path], Any],
    name: str,
    message: str,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_dir, broken)
    change(broken / name)
    assert main(["transcribe", str(broken), str(sounds / "one.wav"), *FAST]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and str(broken) in error
    assert "Traceback" not in error


def test_no_file_at_all_is_noticed_before_the_model_is_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainers.cli", "transcribe", "no/model", str(tmp_path / "gone.wav")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=120)
    assert done.returncode == 2
    assert "No such file" in done.stderr
    assert "gone.wav" in done.stderr


def test_names_and_needs() -> None:
    names = output_names(["a/x.wav", "b/x.mp3", "c/X.ogg", "https://h/x.wav?key=1"], Path("out"))
    assert [name.name for name in names] == ["x", "x-2", "X-3", "x-4"]
    assert timestamps_for(["txt"], False) is False
    assert timestamps_for(["json"], False) is True
    assert timestamps_for(["json", "srt"], False) == "estimate"
    assert timestamps_for(["vtt"], True) == "word"
    assert render("f", {"text": "é"}, "json") == '{"file": "f", "text": "é"}\n'
    with pytest.raises(UserError, match="no output format 'sub'; choose one of txt, json, srt, vtt"):
        render("f", {"text": "", "chunks": []}, "sub")


def test_a_new_subtitle_format_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_lrc(items: Sequence[Cue]) -> str:
        return "".join(f"[{cue.start:.1f}]{cue.text}\n" for cue in items)

    monkeypatch.setitem(FORMATS, "lrc", SubtitleFormat("LRC", "text/plain", to_lrc))
    assert timestamps_for(["lrc"], False) == "estimate"
    assert render("f", {"chunks": [{"text": "hej", "timestamp": (0.5, 1.0)}]}, "lrc") == "[0.5]hej\n"
    parser = argparse.ArgumentParser()
    configure(parser)
    assert parser.parse_args(["model", "a.wav", "--lrc"]).lrc is True
    told = " ".join(parser.format_help().split())
    assert " ".join(f"--{name} {form.title} subtitles" for name, form in FORMATS.items()) in told
    assert f"write NAME.txt, NAME.json, {', '.join(f'NAME.{name}' for name in FORMATS)} there" in told
    app = pytest.importorskip("trainers.serving.server.app", reason="the extra `serve` is not installed")
    assert '<option value="lrc">LRC subtitles</option>' in app.page_text()
    form = runpy.run_path(app.PAGE.with_name("form.py"))  # anew: the field is made when the module is read
    asked = form["read_form"]([("response_format", "lrc")], model_names=(), times_of_words=False)
    assert asked.response_format == "lrc" and asked.confidence


def test_help_does_without_torch() -> None:
    code = "import sys, trainers.cli as cli\ntry: cli.main(['transcribe', '--help'])\nfinally: sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "--vtt" in done.stdout, done.stderr


def test_names_of_results() -> None:
    names = [
        "what?.wav",
        "HTTP://h/a%20b.wav?key=1",
        "-",
        "caf\udce9.wav",
        "x" * 250 + ".wav",
        "a [1].wav",
        ".wav",
        "A [1].ogg",
        "..wav",
        "...wav",
        "http://h/%2e%2e",
    ]
    stems = [path.name for path in output_names(names, Path("out"))]
    rest = ["recording", "recording-2", "recording-3"]
    assert stems == ["what?", "a b", "stdin", "caf", "x" * 180, "a [1]", ".wav", "A [1]-2", *rest]


@settings(max_examples=200, deadline=None)
@example(["."])
@example(["..", "."])
@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=40).map(os.fsdecode)), max_size=8))
def test_every_recording_has_a_file_of_its_own(names: list[str]) -> None:
    paths = output_names([f"{name}.wav" for name in names], Path("out"))
    assert len({unicodedata.normalize("NFC", path.name).casefold() for path in paths}) == len(names)
    assert all(0 < len(os.fsencode(path.name)) < 200 and path.parent == Path("out") for path in paths)
    for name in names:
        shown(name).encode("utf-8")


def run_cli(
    *arguments: str | bytes, sound: bytes = b"", encoding: str = "utf-8", options: Sequence[str] = FAST
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "trainers.cli", "transcribe", *arguments, *options]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, input=sound, capture_output=True, cwd=Path(__file__).parents[3], env=environment, timeout=300
    )


def test_odd_names_a_narrow_terminal_and_the_standard_input(model_dir: Path, sounds: Path, tmp_path: Path) -> None:
    odd = [b"caf\xe9.wav", "日本 [1] what?.wav".encode()]
    for name in odd:
        shutil.copy(sounds / "one.wav", os.fsencode(tmp_path) + b"/" + name)
    out = tmp_path / "out"
    files = [os.fsencode(tmp_path) + b"/" + name for name in odd]
    done = run_cli(
        str(model_dir), *files, "-", "--output-dir", str(out), sound=(sounds / "one.wav").read_bytes(), encoding="ascii"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(path.name for path in out.iterdir()) == ["caf.txt", "stdin.txt", "日本 [1] what?.txt"]
    assert len({path.read_text(encoding="utf-8") for path in out.iterdir()}) == 1
    assert b"\\u65e5" in done.stdout
    done = run_cli(str(model_dir), *files, "--json", encoding="cp1252")
    assert [Path(json.loads(line)["file"]).name for line in done.stdout.decode("cp1252").splitlines()] == [
        "caf\\xe9.wav", "日本 [1] what?.wav"
    ]  # fmt: skip


def test_folders(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.wav", "sub/c.flac", "A.WAV", "film.mp4", "notes.txt", "._b.wav"):
        (tmp_path / name).write_bytes((sounds / "one.wav").read_bytes())
    found = [Path(recording.name).name for recording in find_recordings([str(tmp_path), str(sounds / "one.wav")])]
    assert found == ["A.WAV", "b.wav", "film.mp4", "c.flac", "one.wav"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no sound files"):
        find_recordings([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="once only"):
        find_recordings(["-", "-"])


def test_subtitles_of_several_files_need_a_folder(model_dir: Path, sounds: Path, capsys: Any) -> None:
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), str(sounds / "eight.wav"), "--srt"]) == 2
    assert "--srt of 2 files needs --output-dir" in " ".join(capsys.readouterr().err.split())


def test_a_long_recording_is_written_window_by_window(model_dir: Path, tmp_path: Path) -> None:
    pipe = load_pipeline(model_dir, device="cpu")
    sound = np.concatenate([np.concatenate([talk(1.5, seed=i), np.zeros(8_000)]) for i in range(6)]).astype(np.float32)
    settled: list[str] = []
    (answer,) = pipe(iter([sound]), batch_size=1, window_seconds=3.0, max_new_tokens=6, on_window=settled.append)
    assert len(settled) > 2 and settled[0] == "" and settled[-1]
    assert all(answer["text"].startswith(text) for text in settled)
    written: list[str] = []
    writer = StreamWriter([Recording("a", b""), Recording("b", b"")], "txt", written.append)
    for text in settled:
        writer.on_window(text)
    assert written[0].startswith("a: ") and "".join(written) == f"a: {settled[-1]}"
    writer.on_answer(answer)
    writer.on_answer({"text": "", "error": "broken"})
    assert "".join(written) == f"a: {answer['text']}\n"


@pytest.mark.parametrize(
    ("form", "line"), [("txt", "b: text of b\n"), ("json", '{"file": "b", "text": "text of b"}\n')]
)
def test_a_result_that_cannot_be_written_leaves_the_others_their_names(form: str, line: str) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        if "text of a" in text:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(text)

    writer = StreamWriter([Recording("a", b""), Recording("b", b"")], form, write)
    with pytest.raises(OSError, match="No space"):
        writer.on_answer({"text": "text of a"})
    writer.on_answer({"text": "text of b"})
    assert written == [line]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_windows_are_merged_as_they_finish_for_plain_text_alone(
    model_dir: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(StreamWriter, "on_window", lambda _, settled: told.append(settled))
    assert main(["transcribe", str(model_dir), str(sounds / "one.wav"), *flags, *FAST]) == 0
    assert bool(told) == (not flags)


def test_doubts_are_told_where_people_see_them(model_dir: Path, sounds: Path, tmp_path: Path, capsys: Any) -> None:
    hiss = np.random.default_rng(0).normal(size=3 * RATE) * 0.05
    soundfile.write(tmp_path / "hiss.wav", hiss, RATE)
    arguments = [
        "transcribe",
        str(model_dir),
        str(tmp_path / "hiss.wav"),
        "--srt",
        "--max-new-tokens",
        "6",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--language", "xx", "--context", "names"]) == 0
    output = capsys.readouterr()
    assert NO_SPEECH_MARK in output.out
    error = " ".join(output.err.split())
    for told in (
        "no speech was found",
        "--language xx: no language of this code",
        "changes nothing",
        "--context: nothing says",
    ):
        assert told in error
    assert main([*arguments, "--language", "xx", "--context", "names", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_doubts(model_dir: Path) -> None:
    assert answer_notices({"text": "a", "confidence": 0.9}, synthetic=False) == []
    assert "another language" in answer_notices({"text": "a", "confidence": 0.4}, synthetic=False)[0]
    assert "SYNTHETIC VOICES ONLY" in answer_notices({"text": "a", "confidence": 0.7}, synthetic=True)[0]
    assert answer_notices({"text": "a", "confidence": 0.7}, synthetic=False) == []
    assert "nothing was transcribed" in answer_notices({"text": "", "no_speech": True}, synthetic=False)[0]
    pipe = load_pipeline(model_dir, device="cpu")
    pipe.processor.language_prompt = "In {language}: "
    pipe.processor.context_prompt = "About {context}: "
    assert request_notices(pipe, "nld", "names") == []
    assert len(request_notices(pipe, "xx", None)) == 1


def test_quiet_is_quiet_and_a_pipe_gets_no_bars(model_dir: Path, sounds: Path) -> None:
    asked = (str(model_dir), str(sounds / "one.wav"), "--language", "xx")
    told = run_cli(*asked, options=[option for option in FAST if option != "--quiet"])
    assert told.returncode == 0 and b"slam-asr transcribe:" in told.stderr  # the language changes nothing
    for mark in (b"Loading weights", b"it/s", b"%|"):
        assert mark not in told.stderr
    silent = run_cli(*asked)
    assert (silent.returncode, silent.stderr, silent.stdout) == (0, b"", told.stdout)
