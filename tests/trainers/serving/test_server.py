"""The server's API over HTTP: the `openai` client and curl against a real uvicorn with a tiny model."""

import itertools
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modeling_slam_asr import recordings_slam_asr, windows_slam_asr
from modeling_slam_asr.recordings_slam_asr import MARKS
from tests.trainers.serving.running import lecture, running, talk
from trainers.engines import ModelSource

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("huggingface_hub.utils").httpx

WORDS = ["en", "tre", "fem", "to"]
REQUEST = {"window_seconds": 2.0, "progress": False}


@pytest.fixture(scope="module")
def client(server: str) -> Any:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="unused", max_retries=0)


def create(client: Any, data: bytes, **options: Any) -> Any:
    return client.audio.transcriptions.create(model="tiny", file=("talk.wav", data), **options)


def test_the_transcript_is_the_pipeline_s(client: Any, server_pipe: Any) -> None:
    for data in (talk(WORDS), lecture(6)):
        wanted = server_pipe(data, **REQUEST)
        answer = create(client, data)
        assert answer.text == wanted["text"] != ""
        assert bool(wanted.get("truncated")) == bool(getattr(answer, "truncated", False))
        assert answer.usage.type == "duration"


def test_text_and_subtitles_are_those_of_the_command(client: Any, server_pipe: Any) -> None:
    from trainers.inference.notices import is_unsure, knows_synthetic_speech_only
    from trainers.inference.transcribe import render

    data = lecture(5)
    wanted = server_pipe(data, return_timestamps="estimate", return_confidence=True, **REQUEST)
    unsure = is_unsure(wanted, knows_synthetic_speech_only(server_pipe))
    assert create(client, data, response_format="text") == wanted["text"] + "\n"
    for form in ("srt", "vtt"):
        assert create(client, data, response_format=form) == render("", wanted, form, unsure)
    raw = client.audio.transcriptions.with_raw_response
    answer = raw.create(model="tiny", file=("talk.wav", data), response_format="srt")
    assert answer.headers["content-type"].startswith("application/x-subrip")


def test_verbose_json_has_segments_with_marks_and_words(client: Any, server_pipe: Any) -> None:
    data = lecture(6)
    wanted = server_pipe(data, return_timestamps=True, return_confidence=True, **REQUEST)
    answer = create(client, data, response_format="verbose_json")
    assert [(s.text, s.start, s.end) for s in answer.segments] == [
        (chunk["text"], *chunk["timestamp"]) for chunk in wanted["chunks"]
    ]
    assert len(answer.segments) > 2
    for segment, chunk in zip(answer.segments, wanted["chunks"], strict=True):
        assert segment.confidence == pytest.approx(chunk["confidence"], rel=1e-4)
        assert segment.low_confidence == (chunk["confidence"] < 0.6)
        assert {mark for mark in MARKS if getattr(segment, mark, False)} == {mark for mark in MARKS if chunk.get(mark)}
    assert answer.duration == pytest.approx(6 * 1.75, abs=0.01)
    words = create(client, data, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    timed = server_pipe(data, return_timestamps="word", return_confidence=True, **REQUEST)
    assert [(w.word, w.start, w.end) for w in words.words] == [(c["text"], *c["timestamp"]) for c in timed["chunks"]]
    sure = [chunk["confidence"] for chunk in timed["chunks"]]
    assert [word.confidence for word in words.words] == pytest.approx(sure, rel=1e-3) and len(set(sure)) > 1
    assert words.segments and words.text == timed["text"]
    assert create(client, data, response_format="verbose_json", timestamp_granularities=["word"]).segments is None


def test_silence_is_marked_and_not_transcribed(client: Any) -> None:
    from tests.trainers.serving.running import wav_bytes
    from trainers.sound import noise, silence

    quiet = create(client, wav_bytes(silence(2)), response_format="verbose_json")
    assert quiet.text == "" and quiet.no_speech and "no speech" in quiet.notices[0]
    steady = create(client, wav_bytes(noise(1.5)), response_format="verbose_json")
    assert steady.no_speech and all(segment.no_speech_prob == 1.0 for segment in steady.segments)


def test_an_upload_without_its_end_is_marked(client: Any) -> None:
    from tests.trainers.serving.running import wav_bytes
    from trainers.sound import noise

    data = wav_bytes(noise(2.0))
    assert create(client, data[: len(data) // 2]).incomplete is True
    answer = create(client, data[: len(data) // 2], response_format="verbose_json")
    assert answer.incomplete and answer.segments[-1].incomplete and "cut short" in answer.notices[0]
    assert not hasattr(create(client, data), "incomplete")


def test_seconds_are_the_recording_s_whatever_a_detector_leaves(
    make_server_pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FirstHalf:
        def __init__(self, vad: str) -> None:
            pass

        def speech_range(self, samples: Any, sampling_rate: int) -> tuple[int, int]:
            return 0, len(samples) // 2

    monkeypatch.setattr(recordings_slam_asr, "VoiceDetector", FirstHalf)
    monkeypatch.setattr(windows_slam_asr, "webrtcvad", FirstHalf)
    data = talk(WORDS * 2)
    seconds = (len(data) - 44) / 32_000
    with running(make_server_pipe(), vad="webrtc") as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0)
        answer = create(client, data, response_format="verbose_json")
        assert answer.duration == pytest.approx(seconds, abs=1e-3) and answer.usage.seconds == math.ceil(seconds)
        figures = httpx.get(f"{address}/metrics").text
        assert float(figures.split("\nslam_asr_audio_seconds_total ")[1].split()[0]) == pytest.approx(seconds)


def test_a_stream_brings_deltas_in_order_and_the_whole_text(client: Any, server_pipe: Any) -> None:
    data = lecture(8)
    told: list[str] = []
    wanted = server_pipe(data, on_window=told.append, **REQUEST)["text"]
    events = list(create(client, data, stream=True))
    deltas = [event.delta for event in events[:-1]]
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text == wanted
    settled = ["", *told, wanted]
    wanted_deltas = [text[len(before) :] for before, text in itertools.pairwise(settled)]
    assert deltas == [delta for delta in wanted_deltas if delta] and len(deltas) > 2


def test_what_the_model_cannot_do_is_refused_before_a_request_comes(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    for settings, said in (
        ({"window_seconds": 60.0}, "window_seconds must lie between 1 and 30"),
        ({"vad": "ears"}, "vad='ears' is unknown"),
        ({"generate": {"ctc_weight": 0.3}}, "this model has no CTC head"),
    ):
        with pytest.raises(ValueError, match=said), running(pipe, **settings):
            pass


def test_a_stream_of_a_broken_file_is_an_error_before_it_begins(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="not sound that can be decoded"):
        list(create(client, b"no sound" * 10, stream=True))


def test_temperature_samples_and_nought_does_not(client: Any) -> None:
    data = talk(WORDS * 2)
    plain = {create(client, data).text for _ in range(2)}
    sampled = {create(client, data, temperature=1.0).text for _ in range(3)}
    assert len(plain) == 1 and len(sampled | plain) > 1
    assert {create(client, data, temperature=1e-300).text} == plain


def test_log_probabilities_of_tokens(client: Any, server_pipe: Any) -> None:
    data = talk(WORDS)
    wanted = server_pipe(data, return_confidence="tokens", **REQUEST)["tokens"]
    found = create(client, data, include=["logprobs"]).logprobs
    assert [token.token for token in found] == [token["text"] for token in wanted]
    assert [token.logprob for token in found] == pytest.approx([token["log_prob"] for token in wanted], rel=1e-3)


def test_language_and_prompt_reach_the_model(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    before = pipe.processor.language_prompt
    pipe.processor.language_prompt = "Transcribe {language} speech to text.\n"
    try:
        data = talk(WORDS)
        texts = {
            options: pipe(data, progress=False, **dict(options))["text"]
            for options in ((), (("language", "da"),), (("context", "sju fugle"),))
        }
        assert len(set(texts.values())) == 3, "they must differ for this test to tell anything"
        with running(pipe) as address:
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0)
            assert create(client, data, language="Danish").text == texts[(("language", "da"),)]
            assert create(client, data, language="da").text == texts[(("language", "da"),)]
            assert create(client, data, prompt="sju fugle").text == texts[(("context", "sju fugle"),)]
            assert create(client, data, language="", prompt=" ").text == texts[()]
    finally:
        pipe.processor.language_prompt = before


@pytest.mark.parametrize(
    ("fields", "status", "param", "said"),
    [
        ({"language": "klingon"}, 400, "language", "Known are af, am, ar"),
        ({"response_format": "docx"}, 400, "response_format", "'verbose_json'"),
        ({"response_format": "diarized_json"}, 400, "response_format", "got 'diarized_json'"),
        ({"temperature": "warm"}, 400, "temperature", "got 'warm'"),
        ({"temperature": "1.5"}, 400, "temperature", "less than or equal to 1"),
        ({"temperature": "nan"}, 400, "temperature", "got 'nan'"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities", "needs response_format=verbose_json"),
        ({"timestamp_granularities[]": "letter", "response_format": "verbose_json"}, 400, "timestamp_granularities", "got"),
        ({"stream": "true", "response_format": "srt"}, 400, "stream", "json or text"),
        ({"include[]": "logprobs", "response_format": "text"}, 400, "include", "needs response_format=json"),
        ({"prompt": "x" * 3000}, 400, "prompt", "2000"),
        ({"langauge": "da"}, 400, "langauge", "Did you mean 'language'?"),
        ({"file": "talk.wav"}, 400, "file", "twice"),
        ({"model": "whisper-1"}, 404, "model", "this server has 'tiny'"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(server: str, fields: dict[str, str], status: int, param: str, said: str) -> None:
    response = httpx.post(
        f"{server}/v1/audio/transcriptions", data={"model": "tiny", **fields}, files={"file": ("a.wav", talk(["en"]))}
    )
    error = response.json()["error"]
    assert response.status_code == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param and said in error["message"]


def test_requests_that_are_no_form(server: str) -> None:
    address = f"{server}/v1/audio/transcriptions"
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    for response, said in (
        (httpx.post(address, json={"file": "talk.wav"}), "must be multipart/form-data"),
        (httpx.post(address, content=b"--y\r\nnonsense", headers=broken), "cannot be read"),
        (httpx.post(address, content=b"", headers={"Content-Type": "multipart/form-data"}), "boundary"),
        (httpx.post(address, data={"model": "tiny"}, files={"audio": ("a.wav", b"x")}), "'file' is missing"),
        (httpx.post(address, files=[("file", ("a.wav", b"x")), ("file", ("b.wav", b"x"))]), "Too many files"),
        (httpx.get(address), "Method Not Allowed"),
        (httpx.get(f"{server}/v1/nothing"), "Not Found"),
    ):
        assert 400 <= response.status_code < 500
        assert said in response.json()["error"]["message"]


def test_models_health_metrics_and_schema(client: Any, server: str) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "slam-asr"
    with pytest.raises(openai.NotFoundError, match="no model 'other' here"):
        client.models.retrieve("other")
    create(client, talk(["en"]))
    assert httpx.get(f"{server}/health").json() == {"status": "ok", "queued_audio_seconds": 0.0}
    figures = httpx.get(f"{server}/metrics").text
    for name in (
        'slam_asr_requests_total{status="200"}',
        "slam_asr_wait_seconds_count",
        "slam_asr_queued_audio_seconds 0.0",
    ):
        assert name in figures
    form = httpx.get(f"{server}/openapi.json").json()["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    assert "timestamp_granularities" in form["content"]["multipart/form-data"]["schema"]["properties"]


def test_models_are_given_with_their_commit(client: Any, server_pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.models.retrieve("tiny").commit is None
    monkeypatch.setattr(server_pipe, "source", ModelSource("acme/tiny", "5" * 40))
    with running(server_pipe, model_names=("one", "two")) as address:
        models = httpx.get(f"{address}/v1/models").json()["data"]
    assert [(model["id"], model["commit"]) for model in models] == [("one", "5" * 40), ("two", "5" * 40)]


def test_the_page_needs_nothing_from_elsewhere(server: str) -> None:
    response = httpx.get(server)
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    page = response.text
    assert "://" not in page and 'src="' not in page
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    for element in ("file", "language", "kind", "key", "go", "stop", "text"):
        assert f'id="{element}"' in page


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: str, tmp_path: Path, server_pipe: Any) -> None:
    (tmp_path / "talk.wav").write_bytes(talk(WORDS))
    command = ["curl", "-sS", f"{server}/v1/audio/transcriptions", "-F", f"file=@{tmp_path / 'talk.wav'}"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(answer)["text"] == server_pipe(str(tmp_path / "talk.wav"), **REQUEST)["text"]
    stream = subprocess.run([*command, "-N", "-F", "stream=true"], capture_output=True, check=True, timeout=60).stdout
    events = [json.loads(line.removeprefix("data: ")) for line in stream.decode().splitlines() if line]
    assert events[-1]["type"] == "transcript.text.done"


def test_an_api_key_guards_all_but_page_and_health(server_pipe: Any) -> None:
    with running(server_pipe, api_key="sæcret".encode().hex()) as address:
        key = "sæcret".encode().hex()
        for sent in ("", "wrong", key[:-1], key + "x"):
            client = openai.OpenAI(base_url=f"{address}/v1", api_key=sent or "-", max_retries=0)
            with pytest.raises(openai.AuthenticationError) as caught:
                create(client, talk(["en"]))
            assert caught.value.code == "invalid_api_key" and key not in str(caught.value)
        assert httpx.get(f"{address}/metrics").status_code == 401
        assert httpx.get(f"{address}/v1/models", headers={"Authorization": f"Basic {key}"}).status_code == 401
        assert httpx.get(address).status_code == httpx.get(f"{address}/health").status_code == 200
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
        assert create(client, talk(["en"])).text
