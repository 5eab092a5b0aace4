"""What a server is started with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainers.errors import UserError

API_KEY_VARIABLE = "SLAM_ASR_API_KEY"


@dataclass(frozen=True)
class ServerSettings:
    """
    Limits and names of one server.

    model_names: what a request may call the model; the first is the one that answers bear.
    max_batch: windows that go through the model together.
    max_queue_seconds: audio, in seconds, that may be waiting or at work; also the longest recording.
    max_requests: requests that may be at work, uploads included.
    max_upload_bytes: of a request's body.
    silent_seconds: an upload that brings nothing for so long is given up.
    api_key: what clients must send; None: nothing. It is not in the object's text.
    window_seconds, vad, drop_no_speech: as in [`SlamAsrPipeline`], for all requests.
    generate: for the model's `generate`, for all requests.
    """

    model_names: tuple[str, ...] = ("slam-asr",)
    max_batch: int = 8
    max_queue_seconds: float = 3600.0
    max_requests: int = 64
    max_upload_bytes: int = 100_000_000
    silent_seconds: float = 30.0
    api_key: str | None = field(default=None, repr=False)
    window_seconds: float | None = None
    vad: str | None = None
    drop_no_speech: bool = False
    generate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, flag, value in (
            ("max_batch", "--max-batch", self.max_batch),
            ("max_queue_seconds", "--max-queue-seconds", self.max_queue_seconds),
            ("max_requests", "--max-requests", self.max_requests),
            ("max_upload_bytes", "--max-upload-mb", self.max_upload_bytes),
        ):
            if not value > 0:
                raise UserError(f"{flag} ({name}) must be greater than 0, got {value:g}.")

    @property
    def name(self) -> str:
        """The model's name in answers."""
        return self.model_names[0]


def key_from_environment() -> str | None:
    """
    The API key that clients must send, or None.

    Raises:
        UserError: it is set and empty, or holds what no header can carry.
    """
    key = os.environ.get(API_KEY_VARIABLE)
    if key is None:
        return None
    if not key.strip() or not key.isascii() or not key.isprintable() or key != key.strip():
        raise UserError(
            f"{API_KEY_VARIABLE} is set, but empty or with spaces or letters that no header carries. Set a key of plain ASCII "
            f"letters and digits, or unset it for a server without a key."
        )
    return key
