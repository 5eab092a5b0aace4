"""
A gate to the Hub for a process that is to have no token and no other network: it reads (GET and HEAD alone), and adds the token
only to requests for the repositories that the process is to load.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers

PASSED_ON = ("accept", "accept-encoding", "range", "if-none-match", "if-range")
# Of one connection only, or no longer true once the gate has followed a redirect.
NOT_RETURNED = ("connection", "keep-alive", "transfer-encoding", "location", "set-cookie", "content-length")
REDIRECTS = 5


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Gate"

    def log_message(self, *_: Any) -> None:
        """The gate is silent."""

    def do_GET(self) -> None:
        try:
            self._forward()
        except HTTPError as error:
            self.send_error(502, f"the Hub cannot be reached: {type(error).__name__}")
        except OSError:  # the reader went away
            self.close_connection = True

    do_HEAD = do_GET

    def _forward(self) -> None:
        path = self.path.removeprefix(self.server.prefix)
        if path == self.path or not path.startswith("/") or path.startswith("//"):
            return self.send_error(403, "this gate is for another process")
        headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
        if self.server.may_use_token(path):
            headers |= build_hf_headers()
        url = constants.ENDPOINT.rstrip("/") + path
        for _ in range(REDIRECTS):
            # Of a HEAD request the Hub's own reply counts, not that of the storage behind it.
            with get_session().stream(self.command, url, headers=headers, follow_redirects=False) as reply:
                target = urljoin(url, reply.headers.get("location", ""))
                elsewhere = urlsplit(target).netloc != urlsplit(url).netloc
                if not reply.is_redirect or (self.command == "HEAD" and elsewhere):
                    return self._answer(reply)
            url = target
            if elsewhere:
                headers.pop("authorization", None)
        self.send_error(502, "the Hub redirects in a circle")

    def _answer(self, reply: Any) -> None:
        linked = self.command == "HEAD" and reply.is_redirect
        self.send_response(200 if linked else reply.status_code)
        for name, value in reply.headers.items():
            if name.lower() not in NOT_RETURNED:
                self.send_header(name, value)
        length = reply.headers.get("x-linked-size" if linked else "content-length")
        whole = b"" if length is not None else b"".join(reply.iter_raw())  # sent in chunks of unknown number
        self.send_header("Content-Length", length if length is not None else str(len(whole)))
        self.end_headers()
        if self.command == "GET":
            for piece in (whole,) if length is None else reply.iter_raw():
                self.wfile.write(piece)


class _Gate(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, repositories: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        # Known to the process alone: others on this machine can reach the port.
        self.prefix = f"/{secrets.token_urlsafe(16)}"

    def may_use_token(self, path: str) -> bool:
        """Whether a request is for a repository that the process is to load."""
        plain = unquote(urlsplit(path).path)
        if ".." in plain.split("/"):
            return False
        return any(f"{plain}/".startswith((f"/{name}/", f"/api/models/{name}/")) for name in self.repositories)


@contextmanager
def open_gate(repositories: Sequence[str] = ()) -> Iterator[str]:
    """
    The address of a running gate, for `HF_ENDPOINT` of another process.

    Args:
        repositories: models that may be read with this account's token; all others are read as a stranger reads them.
    """
    gate = _Gate(repositories)
    thread = threading.Thread(target=gate.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{gate.server_address[1]}{gate.prefix}"
    finally:
        gate.shutdown()
        gate.server_close()
        thread.join()
