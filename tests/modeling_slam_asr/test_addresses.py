"""Sound at addresses on the web: what is fetched, within which limits, and what on a private net is left alone."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling_slam_asr import audio_slam_asr
from modeling_slam_asr.audio_slam_asr import PRIVATE_HOSTS, load_audio
from tests.modeling_slam_asr.conftest import encoded, talk

TALK = talk(1.0)
MOVED = {
    "/moved.wav": "/talk.wav",
    "/round.wav": "/round.wav",
    "/metadata.wav": "http://169.254.169.254/latest/meta-data",
    "/back.wav": "http://localhost:{port}/talk.wav",
    "/file.wav": "file:///etc/passwd",
    "/nonsense.wav": "http://[/",
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Host"])  # type: ignore[attr-defined]
        if self.path in MOVED:
            self.send_response(302)
            self.send_header("Location", MOVED[self.path].format(port=self.server.server_port))  # type: ignore[attr-defined]
            self.end_headers()
            return
        found = self.path in ("/talk.wav", "/endless.wav")
        self.send_response(200 if found else 404)
        self.end_headers()
        if self.path == "/talk.wav":
            self.wfile.write(encoded(TALK))
        elif found:
            try:
                for _ in range(1_000):
                    self.wfile.write(b"\0" * 65_536)
            except OSError:
                pass  # the client hung up, as it should

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv(PRIVATE_HOSTS, "127.0.0.1 talks.example")
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def server(http: Any) -> str:
    return f"http://127.0.0.1:{http.server_port}"


def test_addresses(server: str, pipe: Any) -> None:
    for name in ("talk.wav", "moved.wav"):
        assert np.abs(load_audio(f"{server}/{name}") - TALK).max() < 0.01
    assert pipe(f"{server}/talk.wav", max_new_tokens=4) == pipe(encoded(TALK), max_new_tokens=4)


def test_addresses_that_fail(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="cannot be fetched: the server answers 404"):
        load_audio(f"{server}/none.wav")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_audio("http://127.0.0.1:9/talk.wav")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_audio("http://[/talk.wav")
    monkeypatch.setattr(audio_slam_asr, "DOWNLOAD_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="longer than 1 MiB"):
        load_audio(f"{server}/endless.wav")
    monkeypatch.setattr(audio_slam_asr, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(ValueError, match="is not here after"):
        load_audio(f"{server}/talk.wav")


PRIVATE = [
    "127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "10.0.0.8", "192.168.1.1:8080", "172.16.0.1",
    "169.254.169.254", "100.64.0.1", "224.0.0.1", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:10.0.0.1]",
    "[64:ff9b::a00:1]", "[2002:a00:1::]", "user:word@10.0.0.8",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("proxy", [False, True])
def test_private_addresses_in_any_spelling(host: str, proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRIVATE_HOSTS, "intranet.example 10.0.0.9")
    if proxy and host != "localhost":  # a proxy looks names up itself
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ValueError, match="not on the public internet") as told:
        load_audio(f"http://{host}/a.wav")
    assert PRIVATE_HOSTS in str(told.value) and "\n" not in str(told.value)


def test_public_addresses() -> None:
    for place in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e", "2002:5db8:d70e::"):
        assert audio_slam_asr._is_public(place)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metadata", "'169.254.169.254' has the address 169.254.169.254, which is not on the public internet"),
        ("back", "'localhost' has the address"),
        ("round", "redirected more than 10 times"),
        ("file", "cannot be fetched"),
        ("nonsense", "cannot be fetched"),
    ],
)
def test_every_address_on_the_way_is_checked(server: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_audio(f"{server}/{name}.wav")


def test_the_address_that_was_checked_is_the_one_that_is_asked(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose second look-up gives another address gains nothing: there is none."""
    real, asked = socket.getaddrinfo, []

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host != "talks.example":
            return real(host, *args, **kwargs)
        return [*real("127.0.0.2", *args, **kwargs), *real("127.0.0.1", *args, **kwargs)]  # nobody listens at the first

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert np.abs(load_audio(f"http://talks.example:{http.server_port}/talk.wav") - TALK).max() < 0.01
    assert asked.count("talks.example") == 1 and http.asked == [f"talks.example:{http.server_port}"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl, which makes the certificate")
def test_a_certificate_is_of_the_name_not_of_the_address(
    http: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at its IP address, a server shows the certificate of the name that was typed, and another's is refused."""
    certificate, key, names = tmp_path / "certificate.pem", tmp_path / "key.pem", []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=talks.example", "-addext",
         "subjectAltName=DNS:talks.example", "-days", "2", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda connection, name, own: names.append(name)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv(PRIVATE_HOSTS, "talks.example other.example")
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kwargs: real("127.0.0.1", *args, **kwargs))
    assert np.abs(load_audio(f"https://talks.example:{http.server_port}/talk.wav") - TALK).max() < 0.01
    with pytest.raises(ValueError, match=r"cannot be fetched: .*certificate verify failed"):
        load_audio(f"https://other.example:{http.server_port}/talk.wav")
    assert names == ["talks.example", "other.example"] and http.asked == [f"talks.example:{http.server_port}"]


@pytest.mark.parametrize(
    "address", ["http://none.invalid/a", "http://", "http://ex ample/a", f"http://{'a' * 300}.com/"]
)
def test_hosts_that_are_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ValueError, match=r"cannot be fetched: the host .* is not known"):
        load_audio(address)
