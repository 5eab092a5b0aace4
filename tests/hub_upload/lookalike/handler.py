"""HTTP of the look-alike Hub: requests, replies, faults, and the table of routes.

A fault is a dictionary in `Store.faults`: `method` and `path` (a regular expression) say which requests it meets,
`times` how often (default once), and one of these what happens: `status` (an error reply), `drop_after` (the connection
breaks after so many bytes of the request's body), `drop_before_reply` (the request is carried out, its reply is lost;
with `move_head_after`, a repository, somebody else moves its main at that moment),
`delay` (seconds of silence before the request is carried out), `move_head` (repository whose main somebody else moves
just before the request is carried out).
"""

import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import repos, transfers
from .store import HubError, Store, User

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


class Handler(BaseHTTPRequestHandler):
    """One connection. The store is set on the subclass that `serve` makes."""

    protocol_version = "HTTP/1.1"
    store: Store
    user: User | None
    kind: str
    repo_id: str
    status: int | None

    def log_message(self, format: str, *args: Any) -> None:
        """No access log on stderr: `Store.log` has it."""

    def body_pieces(self) -> Iterator[bytes]:
        """The request's body, chunked or by length; a fault may cut it."""
        cut = (self.fault or {}).get("drop_after")
        seen = 0
        for piece in self._chunked() if self._is_chunked() else self._by_length():
            seen += len(piece)
            if cut is not None and seen >= cut:
                raise ConnectionAbortedError("fault: the connection breaks")
            yield piece
        self.body_was_read = True

    def _is_chunked(self) -> bool:
        return (self.headers.get("Transfer-Encoding") or "").lower() == "chunked"

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, 1 << 16))
            if not piece:
                raise ConnectionAbortedError("the client went away")
            size -= len(piece)
            yield piece

    def _by_length(self) -> Iterator[bytes]:
        yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0].strip() or b"0", 16):
            yield from self._exactly(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def body(self) -> bytes:
        return b"".join(self.body_pieces())

    def json_body(self) -> dict[str, Any]:
        return json.loads(self.body() or b"{}")

    def reply(
        self,
        status: int,
        data: bytes | dict[str, Any] | list[Any] = b"",
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send a reply, unless a fault loses it. `length` is the body's size where a HEAD request leaves it out."""
        if not self.body_was_read and self.command in ("POST", "PUT", "DELETE", "PATCH"):
            self.body()
        if isinstance(data, (dict, list)):
            data = json.dumps(data).encode()
        if self.fault and self.fault.get("drop_before_reply"):
            if "move_head_after" in self.fault:
                self.store.move_head(self.fault["move_head_after"], "moved.txt", b"somebody else was here\n")
            raise ConnectionAbortedError("fault: the reply is lost")
        self.status = status
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": content_type}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self) -> None:
        self.status = None
        self.body_was_read = False
        self.fault: dict[str, Any] | None = None
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        note = None
        try:
            self._meet_fault(url.path)
            if self.fault and "status" in self.fault:
                self.reply(self.fault["status"], {"error": "injected fault"}, headers=self.fault.get("headers"))
            else:
                self._route(url.path)
        except HubError as error:
            headers = {"X-Error-Message": error.message, **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self.reply(error.status, error.body or {"error": error.message}, headers=headers)
        except (ConnectionError, TimeoutError) as error:
            note = str(error)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            self.store.log.append({
                "method": self.command, "path": url.path, "status": self.status, "note": note,
                "authenticated": bool(self.headers.get("Authorization")),
            })  # fmt: skip

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def _meet_fault(self, path: str) -> None:
        with self.store.lock:
            for fault in self.store.faults:
                if fault.get("method", self.command) == self.command and re.search(fault["path"], path):
                    fault["times"] = fault.get("times", 1) - 1
                    if fault["times"] <= 0:
                        self.store.faults.remove(fault)
                    self.fault = fault
                    break
        if self.fault and "delay" in self.fault:
            time.sleep(self.fault["delay"])
        if self.fault and "move_head" in self.fault:
            self.store.move_head(self.fault["move_head"], "moved.txt", b"somebody else was here\n")

    def _route(self, path: str) -> None:
        if path.startswith("/lfs/"):  # signed storage: no authorisation
            return transfers.lfs_transfer(self, path)
        self.user = self.store.user(self.headers.get("Authorization"))
        plain = {
            ("GET", "/api/whoami-v2"): repos.whoami,
            ("POST", "/api/validate-yaml"): repos.validate_yaml,
            ("POST", "/api/repos/create"): repos.create,
            ("DELETE", "/api/repos/delete"): repos.delete,
        }
        if route := plain.get((self.command, path)):
            return route(self)
        if path == "/api/collections" or path.startswith("/api/collections/"):
            return repos.collections(self, [unquote(part) for part in path.split("/")[3:]])
        if match := re.match(r"^/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch$", path):
            self._set_repo(match[1], match[2])
            return transfers.lfs_batch(self)
        if match := re.match(r"^/(?:(datasets|spaces)/)?([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)$", path):
            self._set_repo(match[1], match[2])
            return transfers.resolve_file(self, unquote(match[3]), unquote(match[4]))
        if match := re.match(r"^/api/resolve-cache/(models|datasets|spaces)/([^/]+/[^/]+)/([^/]+)/(.+)$", path):
            self._set_repo(match[1], match[2])
            return transfers.resolve_cached(self, match[3], unquote(match[4]))
        if match := re.match(r"^/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(.*))?$", path):
            self._set_repo(match[1], match[2])
            return repos.repo_api(self, [unquote(part) for part in (match[3] or "").split("/") if part])
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def _set_repo(self, kinds: str | None, repo_id: str) -> None:
        self.kind, self.repo_id = KINDS[kinds or "models"], repo_id

    def base_url(self) -> str:
        return f"http://{self.headers.get('Host')}"

    def repo_url(self) -> str:
        return f"{self.base_url()}/{'' if self.kind == 'model' else self.kind + 's/'}{self.repo_id}"


class Server(ThreadingHTTPServer):
    """The running look-alike: `url` for HF_ENDPOINT, `store` for the test's own eyes."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        super().__init__(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"store": self.store}))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()


def serve(root: Path) -> Server:
    """Start a server in a thread; `shutdown()` and `server_close()` end it."""
    server = Server(root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
