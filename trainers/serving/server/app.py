"""The server as an ASGI application: OpenAI's transcription API, a page for browsers, figures for Prometheus."""

import functools
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from modeling_slam_asr.windows_slam_asr import check_vad, window_sizes
from trainers.engines import check_decoding
from trainers.inference import subtitles
from trainers.serving.server.batching import Batcher
from trainers.serving.server.endpoint import TranscriptionEndpoint
from trainers.serving.server.errors import ApiError, shape_errors
from trainers.serving.server.form import TranscriptionForm
from trainers.serving.server.metrics import Metrics
from trainers.serving.server.settings import ServerSettings
from trainers.serving.server.transcription import StepPipeline, Submit

PAGE = Path(__file__).with_name("page.html")
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class ModelDescription(BaseModel):
    """An entry of `/v1/models`; `commit` is that of a model on the Hub."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "slam-asr"
    commit: str | None


class ModelList(BaseModel):
    """The body of `/v1/models`."""

    object: str = "list"
    data: list[ModelDescription]


def create_app(
    pipe: StepPipeline, settings: ServerSettings, around: Callable[[Submit], Submit] = lambda submit: submit
) -> FastAPI:
    """
    The application around one model. Its lifespan's end finishes what waits.

    Args:
        around: what a framework puts around the function that gives a window to the model.
    Raises:
        ValueError: the model, or its engine, cannot do what the settings say for all requests.
    """
    window_sizes(settings.window_seconds, None, pipe.processor.max_seconds)
    check_vad(settings.vad)
    check_decoding(pipe, settings.generate)
    metrics = Metrics()
    batcher = Batcher(functools.partial(pipe.forward, **settings.generate), settings.max_batch, metrics)
    endpoint = TranscriptionEndpoint(pipe, settings, around(batcher.transcribe), metrics, speed=lambda: batcher.speed)
    metrics.watch(batcher.waiting, lambda: endpoint.backlog.seconds)
    started = int(time.time())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()
        endpoint.close()

    # The interactive pages of FastAPI load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="SLAM-ASR transcription server", lifespan=lifespan, docs_url=None, redoc_url=None)
    shape_errors(app)
    guarded = [Depends(_guard(settings.api_key))]

    @app.post("/v1/audio/transcriptions", dependencies=guarded, openapi_extra=_described(), response_model=None)
    async def transcriptions(request: Request) -> Response:
        """Transcribe a recording."""
        return await endpoint(request)

    def described(name: str) -> ModelDescription:
        return ModelDescription(id=name, created=started, commit=pipe.source.commit if pipe.source else None)

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> ModelList:
        """The model, under each of its names."""
        return ModelList(data=[described(name) for name in settings.model_names])

    @app.get("/v1/models/{name:path}", dependencies=guarded)
    async def model(name: str) -> ModelDescription:
        """One model."""
        if name not in settings.model_names:
            raise ApiError(404, f"There is no model {name[:100]!r} here.", param="model", code="model_not_found")
        return described(name)

    @app.get("/health")
    async def health() -> Response:
        """Whether requests will be answered."""
        alive = batcher.alive
        content = {
            "status": "ok" if alive else "unavailable",
            "queued_audio_seconds": round(endpoint.backlog.seconds, 1),
        }
        return JSONResponse(content, 200 if alive else 503)

    @app.get("/metrics", dependencies=guarded)
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(page_text(), headers=PAGE_HEADERS)

    return app


def page_text() -> str:
    """The page for browsers, with the formats that there are."""
    return jinja2.Template(PAGE.read_text(encoding="utf-8"), autoescape=True).render(subtitles=subtitles.FORMATS)


def _guard(key: str | None) -> Any:
    async def check(
        sent: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        if key is None:
            return
        if sent is None or not hmac.compare_digest(sent.credentials.encode(), key.encode()):
            raise ApiError(
                401,
                "The API key is missing or wrong. Send `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def _described() -> dict[str, Any]:
    """The form for /openapi.json."""
    schema = TranscriptionForm.model_json_schema()
    schema["properties"] = {"file": {"type": "string", "format": "binary"}, **schema["properties"]}
    schema["required"] = ["file"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
