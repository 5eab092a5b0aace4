"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`. What they say is meant for clients: no path is in it."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

logger = logging.getLogger(__name__)

FAILED = "The server failed at this request. Its log says more; try again."
CLIENT_LEFT = 499  # nginx's number for a request whose client went away; nobody gets to see it


class ApiError(Exception):
    """
    What a client is told.

    status: of HTTP.
    param: the form's field that is wrong, if one is.
    code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, dict[str, str | None]]:
        """The answer's JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def internal(doing: str) -> ApiError:
    """The answer to an error of the program, which is being handled: what it is goes to the log alone."""
    logger.exception("%s failed", doing)
    return ApiError(500, FAILED, code="internal_error")


def shape_errors(app: FastAPI) -> None:
    """Let every error of an app leave in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def _(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}."
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        return ApiError(500, FAILED).response()
