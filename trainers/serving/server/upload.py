"""From a request's body to a file on this machine, within limits that hold while it is read."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from modeling_slam_asr.audio_slam_asr import UNKNOWN_FRAMES
from trainers.files import scratch_folder
from trainers.serving.server.errors import ApiError
from trainers.serving.server.settings import ServerSettings

_MOST_FIELDS = 32
_LONGEST_FIELD = 64 << 10
_LONGEST_NAME = 100
_SLOWEST = 1_000  # bytes a second that an upload brings at least, beside the seconds of silence that it may have
_BYTES_PER_SECOND = 32_000  # 16-bit samples at 16 kHz: for a file whose header says nothing


@dataclass(frozen=True)
class Upload:
    """
    A recording as it came.

    path: where it lies. name: what the client calls it, for messages. seconds: its length, as its header says it.
    """

    path: Path
    name: str
    seconds: float

    def told(self, message: str) -> str:
        """A message of the pipeline with the client's name for the file in place of the path."""
        return message.replace(str(self.path), self.name)


@asynccontextmanager
async def received(request: Request, settings: ServerSettings) -> AsyncIterator[tuple[Upload, list[tuple[str, str]]]]:
    """
    The recording and the other fields of a multipart request. The file is gone afterwards.

    Raises:
        ApiError: 413 for a body that is too large, 408 for one that does not go on, 400 for what is no such form.
    """
    limit = settings.max_upload_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError(
            400, f"The request's body must be multipart/form-data with a field 'file', not {kind[:50] or 'untyped'!r}."
        )
    limited = Request(request.scope, _limited(request.receive, limit, settings.silent_seconds))
    try:
        form = await limited.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD)
    except HTTPException as error:
        raise ApiError(400, f"The request's form cannot be read: {error.detail}", code="invalid_form") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(
                400,
                "The field 'file' is missing: send the recording there, as a file.",
                param="file",
                code="missing_file",
            )
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        if len(form.getlist("file")) > 1:
            raise ApiError(400, "The field 'file' is there twice. Give it once.", param="file", code="invalid_form")
        others = [name for name, value in form.multi_items() if isinstance(value, UploadFile) and name != "file"]
        if others:
            raise ApiError(
                400, f"The field {others[0][:50]!r} is a file. Only 'file' may be one.", param=others[0][:50]
            )
        # By its path long sound is read block by block; a name without an ending leaves its kind to its content.
        with scratch_folder("upload") as folder:
            path = folder / "recording"
            seconds = await asyncio.to_thread(_stored, file, path)
            await file.close()  # what the form kept of it: the disk holds an upload once
            yield Upload(path, _shown(file.filename), seconds), fields
    finally:
        await form.close()


def too_large(limit: float) -> ApiError:
    """The answer to a body of more than `limit` bytes."""
    return ApiError(
        413,
        f"The upload is too large: this server takes {limit / 1e6:g} MB. Send flac or mp3, or the recording in parts.",
        param="file",
        code="file_too_large",
    )


def _limited(receive: Receive, limit: float, silent_seconds: float) -> Receive:
    held, begun = 0, time.monotonic()

    async def receive_within_limits() -> Message:
        nonlocal held
        try:
            message = await asyncio.wait_for(receive(), silent_seconds)
            if time.monotonic() - begun > silent_seconds + held / _SLOWEST:
                raise TimeoutError
        except TimeoutError:
            raise ApiError(
                408,
                f"The upload brought nothing for {silent_seconds:g} s, or next to nothing, and was given up. Send it again.",
                code="upload_timeout",
                headers={"Connection": "close"},
            ) from None
        held += len(message.get("body", b""))
        if held > limit:
            raise too_large(limit)
        return message

    return receive_within_limits


def _stored(file: UploadFile, path: Path) -> float:
    with path.open("wb") as stored:
        shutil.copyfileobj(file.file, stored, 1 << 20)
    return announced_seconds(path)


def announced_seconds(path: Path) -> float:
    """The length of a recording, in seconds, as its header says it; from the file's size where it says nothing."""
    size = path.stat().st_size
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        return size / _BYTES_PER_SECOND
    if not 0 <= info.frames < UNKNOWN_FRAMES:
        return size / (2 * info.samplerate * info.channels)
    return float(info.duration)


def _shown(name: str | None) -> str:
    """A file's name without folders, for messages."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_LONGEST_NAME] or "file"
