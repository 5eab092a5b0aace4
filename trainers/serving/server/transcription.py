"""From an upload to an answer: the pipeline's own steps, with the model's turn shared among requests."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from modeling_slam_asr.recordings_slam_asr import WindowItem
from trainers.engines import AsrPipeline
from trainers.errors import UserError
from trainers.serving.server.backlog import Share
from trainers.serving.server.errors import ApiError, internal
from trainers.serving.server.form import Options, TranscriptionForm
from trainers.serving.server.settings import ServerSettings
from trainers.serving.server.upload import Upload

Submit = Callable[[WindowItem, Options], Awaitable[WindowItem]]
"""Takes a window and the options of `forward`; gives the window back with its transcript."""
T = TypeVar("T")
_CUTTERS = 4  # threads that decode and cut; a recording holds one for a window at a time
_AHEAD = 2  # batches' worth of windows of one recording that may be cut and waiting


class StepPipeline(AsrPipeline, Protocol):
    """A pipeline of any engine, by its three steps."""

    shows_attention: bool

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """The windows of a recording, one after another."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Windows with their transcripts."""

    def postprocess(self, *args: Any, **kwargs: Any) -> Any:
        """The answer for a recording."""


class Transcriber:
    """
    The pipeline behind a server.

    Args:
        submit: gives a window to the model.
    """

    def __init__(self, pipe: StepPipeline, submit: Submit, settings: ServerSettings) -> None:
        self.pipe, self._submit, self._settings = pipe, submit, settings
        self._threads: Executor = ThreadPoolExecutor(_CUTTERS, thread_name_prefix="slam-asr-cut")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True)

    async def windows(self, upload: Upload, form: TranscriptionForm, share: Share) -> AsyncGenerator[WindowItem, None]:
        """
        A recording's windows with their transcripts, in order, as they are finished. Left early, those that wait are dropped.

        Raises:
            ApiError: 400 when the recording cannot be read, 500 when the model fails at it.
        """
        settings = self._settings
        cut = self.pipe.preprocess(
            str(upload.path),
            language=form.language,
            context=form.prompt,
            window_seconds=settings.window_seconds,
            vad=settings.vad,
            drop_no_speech=settings.drop_no_speech,
            progress=False,
        )
        waiting: deque[asyncio.Future[WindowItem]] = deque()
        more = True
        try:
            while more or waiting:
                while more and len(waiting) < _AHEAD * settings.max_batch:
                    window = await self._cut_next(cut, upload)
                    more = window is not None
                    if window is not None:
                        share.heard(window["piece"].window[1])
                        waiting.append(asyncio.ensure_future(self._submit(window, form.options())))
                if waiting:
                    window = await self._transcribed(waiting.popleft())
                    share.done = window["piece"].window[1]
                    yield window
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _cut_next(self, cut: Any, upload: Upload) -> WindowItem | None:
        try:
            return await self.in_thread(next, cut, None)
        except ValueError as error:
            raise ApiError(
                400, upload.told(" ".join(str(error).split())), param="file", code="invalid_audio"
            ) from error
        except Exception as error:
            raise internal("cutting a recording") from error

    async def _transcribed(self, window: Awaitable[WindowItem]) -> WindowItem:
        try:
            return await window
        except UserError as error:  # an engine says what it cannot do
            raise ApiError(400, str(error), code="not_supported") from error
        except Exception as error:
            raise internal("transcribing a window") from error

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` gives, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
