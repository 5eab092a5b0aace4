"""Uploads that are too large, broken, slow or given up; clients that leave; more work than there is room for."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.trainers.serving.running import HeldModel, lecture, running, talk

pytest.importorskip("fastapi")
httpx = pytest.importorskip("huggingface_hub.utils").httpx

BOUNDARY = "0123456789"


def form(data: bytes, **fields: str) -> bytes:
    """A multipart body."""
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def head(length: int | None) -> bytes:
    """The request line and headers of a transcription request."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: test\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{size}\r\n\r\n"
    ).encode()


def connect(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname, where.port), timeout=60)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return status, json.loads(file.read(length))


def post(address: str, data: bytes, timeout: float = 60, **fields: str) -> Any:
    return httpx.post(
        f"{address}/v1/audio/transcriptions", data=fields, files={"file": ("talk.wav", data)}, timeout=timeout
    )


def wait_until(true: Any) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends, "it does not come about"
        time.sleep(0.01)


def queued(address: str) -> float:
    return float(httpx.get(f"{address}/health").json()["queued_audio_seconds"])


@pytest.fixture
def held(make_server_pipe: Any) -> Iterator[tuple[str, HeldModel]]:
    """A server with room for 10 s of audio and two windows at a time, and its model, which can be held."""
    pipe = make_server_pipe()
    model = HeldModel(pipe)
    with running(pipe, window_seconds=2.0, max_batch=2, max_queue_seconds=10.0) as address:
        yield address, model
        model.released.set()


def test_an_oversized_upload_is_refused_before_it_is_read(server: str) -> None:
    with connect(server) as connection:
        connection.sendall(head(3_000_000_000))
        status, answer = read_answer(connection)
    assert status == 413 and answer["error"]["code"] == "file_too_large" and "1 MB" in answer["error"]["message"]
    assert post(server, talk(["en"])).status_code == 200


def test_an_upload_without_a_length_is_cut_off_and_not_kept(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled: list[int] = []
    write = tempfile.SpooledTemporaryFile.write

    def counted(file: Any, data: bytes) -> int:
        spooled.append(len(data))
        return write(file, data)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", counted)

    def endless() -> Iterator[bytes]:
        yield form(b"")[: -len(f"\r\n--{BOUNDARY}--\r\n")]
        for _ in range(50):
            yield bytes(1 << 20)

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    response = httpx.post(f"{server}/v1/audio/transcriptions", content=endless(), headers=headers, timeout=60)
    assert response.status_code == 413 and response.json()["error"]["code"] == "file_too_large"
    assert 0 < sum(spooled) <= 1_000_000
    assert post(server, talk(["en"])).status_code == 200


def test_an_upload_lies_on_the_disk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette import formparsers
    from starlette.requests import Request

    from trainers.serving.server.settings import ServerSettings
    from trainers.serving.server.upload import received

    spooled, kept = formparsers.SpooledTemporaryFile, []
    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", lambda **how: kept.append(spooled(**how)) or kept[-1])
    kind = f"multipart/form-data; boundary={BOUNDARY}".encode()

    async def body() -> dict[str, Any]:
        return {"type": "http.request", "body": form(b"sound"), "more_body": False}

    async def held() -> tuple[bytes, list[bool]]:
        request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}, body)
        async with received(request, ServerSettings()) as (upload, _):
            return upload.path.read_bytes(), [file.closed for file in kept]

    assert asyncio.run(held()) == (b"sound", [True])


def test_single_bytes_arrive_as_well(server: str, server_pipe: Any) -> None:
    data = talk(["en"])[:2000] + bytes(2000)
    wanted = post(server, data).json()["text"]
    body = form(data)
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head(None))
        for byte in body:
            connection.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        status, answer = read_answer(connection)
    assert (status, answer["text"]) == (200, wanted)


def test_a_client_that_hangs_is_given_up(make_server_pipe: Any, server: str) -> None:
    body = form(talk(["en"]))
    with running(make_server_pipe(), silent_seconds=1.0) as address, connect(address) as connection:
        connection.sendall(head(len(body)) + body[:1000])
        status, answer = read_answer(connection)
        assert status == 408 and answer["error"]["code"] == "upload_timeout"
    with connect(server) as connection:
        connection.sendall(head(len(body)) + body[:1000])
        assert post(server, talk(["to"])).status_code == 200, "others are served meanwhile"


def test_a_client_that_leaves_in_the_middle_of_its_upload(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    body = form(talk(["en"]))
    for size in (0, 10, 1000, len(body) - 1):
        with connect(server) as connection:
            connection.sendall(head(len(body)) + body[:size])
    assert post(server, talk(["en"])).status_code == 200
    wait_until(lambda: "slam_asr_queued_audio_seconds 0.0" in httpx.get(f"{server}/metrics").text)
    assert not list(tmp_path.iterdir())


def test_broken_files_get_clear_answers(server: str) -> None:
    rng = np.random.default_rng(5)
    whole = talk(["en"])
    cut = [whole[: int(size)] for size in rng.integers(1, 44, 15)]
    noise = [rng.bytes(int(size)) for size in rng.integers(1, 5000, 15)]
    kinds = [magic + rng.bytes(400) for magic in (b"OggS", b"fLaC", b"ID3\x04", b"RIFF", b"\xff\xfb\x90", b"ftypM4A ")]
    claims = [whole[:24] + rng.bytes(20) + whole[44:] for _ in range(13)]
    files = [b"", *cut, *noise, *kinds, *claims]
    assert len(files) == 50
    temporary = tempfile.gettempdir()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda data: post(server, data), files))
    for data, answer in zip(files, answers, strict=True):
        assert answer.status_code in (200, 400), (data[:50], answer.text)  # libsndfile makes sense of some
        if answer.status_code == 400:
            error = answer.json()["error"]
            assert error["code"] == "invalid_audio" and error["param"] == "file" and "'talk.wav'" in error["message"]
            assert temporary not in answer.text and "Traceback" not in answer.text
    assert sum(answer.status_code == 400 for answer in answers) >= 30
    assert post(server, whole).status_code == 200


def test_a_file_s_name_is_shown_without_what_it_could_do(server: str) -> None:
    name = "../../etc/\x1b[31mpasswd"
    response = httpx.post(f"{server}/v1/audio/transcriptions", files={"file": (name, b"no sound")})
    message = response.json()["error"]["message"]
    assert response.status_code == 400 and "passwd" in message
    assert "etc" not in message and "\x1b" not in message


def test_an_error_of_the_program_stays_in_the_log(make_server_pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipe = make_server_pipe()
    pipe.model.generation_config.max_new_tokens = -5
    with running(pipe) as address:
        answer = post(address, talk(["en"]))
        assert answer.status_code == 500
        assert answer.json()["error"] == {
            "message": "The server failed at this request. Its log says more; try again.",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
        pipe.model.generation_config.max_new_tokens = 8
        assert post(address, talk(["en"])).status_code == 200
    assert "max_new_tokens" in caplog.text


def test_a_full_queue_refuses_and_says_when_to_come_back(held: tuple[str, HeldModel]) -> None:
    address, model = held
    assert post(address, talk(["en"])).status_code == 200, "a first figure of the speed"
    model.hold()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, address, lecture(2, seed=i)) for i in range(2)]
        wait_until(lambda: queued(address) == 7.0)
        refused = post(address, lecture(2))
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "queue_full"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        small = pool.submit(post, address, talk(["en", "to"]))
        wait_until(lambda: queued(address) > 7.0)
        model.released.set()
        assert [one.result(60).status_code for one in [*waiting, small]] == [200, 200, 200]
    assert post(address, lecture(2)).status_code == 200
    too_long = post(address, lecture(6))
    assert too_long.status_code == 413 and too_long.json()["error"]["code"] == "audio_too_long"
    assert queued(address) == 0


def test_the_windows_of_a_client_that_left_are_dropped(held: tuple[str, HeldModel]) -> None:
    address, model = held
    model.hold()
    for fields in ({}, {"stream": "true"}):
        model.batches.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, address, talk(["en"]))
            assert model.begun.acquire(timeout=30)
            body = form(lecture(5), **fields)
            with connect(address) as connection:
                connection.sendall(head(len(body)) + body)
                wait_until(lambda: "slam_asr_waiting_windows 4.0" in httpx.get(f"{address}/metrics").text)
            wait_until(lambda: queued(address) < 1)
            model.released.set()
            assert first.result(60).status_code == 200
        assert post(address, talk(["to"])).status_code == 200
        assert model.batches == [1, 1], "nothing of the recording went through the model"
        while model.begun.acquire(blocking=False):
            pass
        model.hold()
    assert 'slam_asr_requests_total{status="499"} 2.0' in httpx.get(f"{address}/metrics").text


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_client_that_is_killed_takes_its_windows_along(held: tuple[str, HeldModel], tmp_path: Path) -> None:
    address, model = held
    (tmp_path / "talk.wav").write_bytes(lecture(5))
    model.hold()
    command = ["curl", "-sS", f"{address}/v1/audio/transcriptions", "-F", f"file=@{tmp_path / 'talk.wav'}"]
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert model.begun.acquire(timeout=30)
    # Four are cut; one or two of them are at work.
    wait_until(lambda: re.search("slam_asr_waiting_windows [23]", httpx.get(f"{address}/metrics").text))
    client.kill()
    client.wait(30)
    wait_until(lambda: queued(address) == 0)
    model.released.set()
    assert post(address, talk(["to"])).status_code == 200
    assert len(model.batches) == 2, "the batch at work, and the next request's"


def test_a_stream_that_is_left_ends_the_work(held: tuple[str, HeldModel]) -> None:
    address, model = held
    url = f"{address}/v1/audio/transcriptions"
    with httpx.stream("POST", url, data={"stream": "true"}, files={"file": lecture(5)}, timeout=60) as response:
        lines = response.iter_lines()
        assert "delta" in next(lines)
        model.hold()
        while model.begun.acquire(blocking=False):
            pass
    wait_until(lambda: queued(address) == 0)
    model.released.set()
    assert post(address, talk(["to"])).status_code == 200


def test_a_client_that_takes_no_answer_holds_no_place_and_no_server(make_server_pipe: Any) -> None:
    """It asks for a stream, and reads nothing of an answer that no buffer holds."""
    pipe = make_server_pipe()
    model, written = HeldModel(pipe), pipe.postprocess
    texts = iter(["word " * 3_000_000])
    pipe.postprocess = lambda *windows, **options: {**written(*windows, **options), "text": next(texts, "short")}
    body = form(talk(["en"]), stream="true")
    with socket.socket() as deaf:
        with running(pipe, max_requests=1, unread_seconds=1.0, closing_seconds=1) as address:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((urlsplit(address).hostname, urlsplit(address).port))
            deaf.sendall(head(len(body)) + body)
            assert model.begun.acquire(timeout=30)
            assert post(address, talk(["en"])).status_code == 429
            wait_until(lambda: post(address, talk(["en"])).status_code == 200)
            assert 'slam_asr_requests_total{status="499"} 1.0' in httpx.get(f"{address}/metrics").text
        assert deaf.recv(1000).startswith(b"HTTP/1.1 200"), "it was there all the while"


def test_requests_are_limited_before_their_bodies_are_read(make_server_pipe: Any) -> None:
    with running(make_server_pipe(), max_requests=1, silent_seconds=20.0) as address:
        body = form(talk(["en"]))
        with connect(address) as slow:
            slow.sendall(head(len(body)) + body[:-1])
            wait_until(lambda: post(address, b"x").status_code == 429)
            slow.sendall(body[-1:])
            assert read_answer(slow)[0] == 200
        assert post(address, talk(["en"])).status_code == 200


def test_a_short_recording_does_not_wait_for_the_whole_of_a_long_one(make_server_pipe: Any) -> None:
    pipe = make_server_pipe()
    model = HeldModel(pipe)
    order: list[str] = []

    def ask(name: str, data: bytes) -> None:
        assert post(address, data).status_code == 200
        order.append(name)

    with running(pipe, window_seconds=2.0, max_batch=1) as address:
        model.hold()
        long = threading.Thread(target=ask, args=("long", lecture(8)))
        long.start()
        wait_until(lambda: "slam_asr_waiting_windows 1.0" in httpx.get(f"{address}/metrics").text)
        short = threading.Thread(target=ask, args=("short", talk(["en", "to", "tre", "fire", "fem"])))
        short.start()
        wait_until(lambda: "slam_asr_waiting_windows 2.0" in httpx.get(f"{address}/metrics").text)
        model.released.set()
        for thread in (long, short):
            thread.join(60)
    assert order == ["short", "long"]


def test_a_form_without_a_boundary(server: str) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\xff"):
        answer = httpx.post(
            f"{server}/v1/audio/transcriptions", content=form(b"x"), headers={"Content-Type": kind.encode("latin-1")}
        )
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_an_upload_of_next_to_nothing_is_given_up(make_server_pipe: Any) -> None:
    with running(make_server_pipe(), silent_seconds=1.0) as address, connect(address) as connection:
        connection.sendall(head(100_000))
        begun = time.monotonic()
        for byte in form(b"x" * 100_000)[:100]:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            if time.monotonic() - begun > 4:
                break
            time.sleep(0.3)
        status, content = read_answer(connection)
    assert status == 408 and content["error"]["code"] == "upload_timeout"
