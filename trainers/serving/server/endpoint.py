"""One transcription request from its first byte to its answer's last, whatever comes of it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from types import TracebackType
from typing import Any, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from modeling_slam_asr.recordings_slam_asr import SettledText, WindowItem
from trainers.serving.server.answers import Answers
from trainers.serving.server.backlog import Backlog
from trainers.serving.server.errors import CLIENT_LEFT, ApiError, internal
from trainers.serving.server.form import TranscriptionForm, read_form
from trainers.serving.server.metrics import Metrics
from trainers.serving.server.settings import ServerSettings
from trainers.serving.server.transcription import StepPipeline, Submit, Transcriber
from trainers.serving.server.upload import received

_HEARTBEAT = 15.0  # seconds: proxies close a stream that is silent for long
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold events back
T = TypeVar("T")


class TranscriptionEndpoint:
    """
    `POST /v1/audio/transcriptions`.

    Args:
        speed: seconds of audio that a second of work transcribes, or None.
    """

    def __init__(
        self,
        pipe: StepPipeline,
        settings: ServerSettings,
        submit: Submit,
        metrics: Metrics,
        speed: Callable[[], float | None],
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self.backlog = Backlog(settings, speed)
        self._transcriber = Transcriber(pipe, submit, settings)
        self._answers = Answers(pipe)
        self._times_of_words = has_times_of_words(pipe)

    def close(self) -> None:
        """End the threads that decode."""
        self._transcriber.close()

    async def __call__(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            ApiError, ClientDisconnect: there is no answer.
        """
        async with AsyncExitStack() as held:
            held.push(self._counted())
            held.enter_context(self.backlog.request())
            upload, fields = await held.enter_async_context(received(request, self._settings))
            names = self._settings.model_names
            form = read_form(fields, model_names=names, times_of_words=self._times_of_words)
            share = held.enter_context(self.backlog.recording(upload.seconds))
            windows = await held.enter_async_context(aclosing(self._transcriber.windows(upload, form, share)))
            if not form.stream:
                done = await while_connected(request.receive, _all(windows))
                return await self._transcriber.in_thread(self._answers.write, done, form)
            # The first window tells whether the recording can be read at all: then there is a status to say so.
            first = await while_connected(request.receive, anext(windows))
            return _EventStream(self._events(first, windows, form), held.pop_all(), self._settings.unread_seconds)
        raise AssertionError("the stack swallows no exception")

    def _counted(self) -> Callable[..., None]:
        """The end of a request, as an exit of a context."""
        begun = time.monotonic()

        def count(kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
            if isinstance(error, ApiError):
                status = error.status
            elif isinstance(error, ClientDisconnect | asyncio.CancelledError):
                status = CLIENT_LEFT
            else:
                status = 200 if error is None else 500
            self._metrics.requests.labels(str(status)).inc()
            self._metrics.request_seconds.observe(time.monotonic() - begun)

        return count

    async def _events(
        self, first: WindowItem, rest: AsyncIterator[WindowItem], form: TranscriptionForm
    ) -> AsyncGenerator[bytes, None]:
        """`transcript.text.delta` for what is settled after each window, then `transcript.text.done`."""
        windows, written, text = [first], "", SettledText()
        try:
            while True:
                settled = await self._transcriber.in_thread(text.add, windows[-1]["piece"])
                if settled.startswith(written) and settled != written:
                    yield _event({"type": "transcript.text.delta", "delta": settled[len(written) :]})
                    written = settled
                following = asyncio.ensure_future(anext(rest, None))
                try:
                    while not following.done():
                        await asyncio.wait({following}, timeout=_HEARTBEAT)
                        if not following.done():
                            yield b": still at work\n\n"
                    window = following.result()
                finally:
                    await _ended(following)
                if window is None:
                    break
                windows.append(window)
            content = await self._transcriber.in_thread(self._answers.plain, windows, form)
            if content["text"].startswith(written) and content["text"] != written:
                yield _event({"type": "transcript.text.delta", "delta": content["text"][len(written) :]})
            yield _event({"type": "transcript.text.done", **content})
        except ApiError as error:
            yield _event(error.body())
        except Exception:
            yield _event(internal("a stream").body())


class _EventStream(StreamingResponse):
    """Server-sent events, and what they hold until the last is sent or the client is gone.

    Args:
        unread_seconds: a client that takes nothing for so long is taken for gone.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], held: AsyncExitStack, unread_seconds: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_STREAM_HEADERS)
        self._events, self._held, self._unread_seconds = events, held, unread_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def limited(message: Message) -> None:
            async with asyncio.timeout(self._unread_seconds):
                await send(message)

        with suppress(ClientDisconnect):  # it is counted by what is held, and nobody is there to be told
            async with self._held, aclosing(self._events):
                try:
                    await super().__call__(scope, receive, limited)
                except TimeoutError as error:
                    raise ClientDisconnect from error


def has_times_of_words(pipe: StepPipeline) -> bool:
    """Whether the pipeline can tell when a word was said: by the CTC head, or by the attention that torch shows."""
    config = pipe.model.config
    return bool(config.projector_ctc or (pipe.shows_attention and config.audio_geometry.in_time_order))


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives; when the client leaves before that, `work` is cancelled.

    Raises:
        ClientDisconnect: the client has left.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        await _ended(gone)
        await _ended(task)


async def _ended(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and wait until it is over: what it held must not be closed under it."""
    if not task.done():
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _all(windows: AsyncIterator[WindowItem]) -> list[WindowItem]:
    return [window async for window in windows]


def _event(content: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
