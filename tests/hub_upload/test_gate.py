"""The gate to the Hub serves one process, and leads to the Hub alone."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from hub_upload.gate import open_gate


class _Recorder(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Recorder

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Recorder, _Recorder]]:
    """A Hub, and a stranger's server."""
    found = _Recorder(), _Recorder()
    for server in found:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{found[0].server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 20)
    yield found
    for server in found:
        server.shutdown()
        server.server_close()


def test_only_who_knows_the_address_is_served_and_only_by_the_hub(servers: tuple[_Recorder, _Recorder]) -> None:
    hub, stranger = servers
    with open_gate(["user/tiny"]) as address:
        place = urlsplit(address)

        def ask(target: str) -> int:
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
            connection.request("GET", target)
            return connection.getresponse().status

        away = f"127.0.0.1:{stranger.server_address[1]}"
        refused = ["/user/tiny/x", f"http://{away}/user/tiny/x", f"{place.path}//{away}/user/tiny/x", place.path]
        refused += [f"{place.path}@{away}/user/tiny/x", f"{place.path}http://{away}/user/tiny/x"]
        assert [ask(target) for target in refused] == [403] * len(refused)
        assert not hub.asked and not stranger.asked
        assert ask(f"{place.path}/user/tiny/x") == ask(f"{place.path}/user/other/x") == 200
    asked = [(path, bool(token)) for path, token in hub.asked if path.startswith("/user/")]
    assert asked == [("/user/tiny/x", True), ("/user/other/x", False)]
    assert not stranger.asked
