"""Start the server in this process."""

import logging
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from trainers.errors import UserError
from trainers.serving.server.app import create_app
from trainers.serving.server.settings import ServerSettings
from trainers.serving.server.transcription import StepPipeline


def bound(host: str, port: int) -> socket.socket:
    """
    A socket that has its address and does not listen yet.

    Raises:
        UserError: the address cannot be had.
    """
    if not 0 <= port <= 65_535:  # the system would take the rest of a division
        raise UserError(f"--port {port}: a port is a number from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}). Choose another.") from error
    return made


def uvicorn_server(app: FastAPI, settings: ServerSettings) -> uvicorn.Server:
    """uvicorn around an application, without a log of requests: figures are in /metrics."""
    # h11 and asyncio whatever else is installed: one behaviour everywhere.
    return uvicorn.Server(
        uvicorn.Config(
            app, http="h11", loop="asyncio", ws="none", access_log=False, server_header=False, log_level="warning",
            log_config=None, timeout_graceful_shutdown=settings.closing_seconds,
        )
    )  # fmt: skip


def serve(pipe: StepPipeline, settings: ServerSettings, listening: socket.socket, say: Callable[[str], None]) -> None:
    """
    Answer requests until SIGTERM or Ctrl-C, and finish those at work then, for `closing_seconds` at most.

    Args:
        say: told when requests can come.
    """
    # uvicorn raises a signal again once its work is done; an end that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let programs in the background ignore it
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    server = uvicorn_server(create_app(pipe, settings), settings)
    listening.listen(server.config.backlog)
    say(f"serving {settings.name} at http://{shown}:{port} (Ctrl-C ends it)")
    server.run(sockets=[listening])
