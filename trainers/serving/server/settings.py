"""What a server is started with."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainers.errors import UserError

API_KEY_VARIABLE = "SLAM_ASR_API_KEY"
LIMITS = {
    "max_batch": "windows that go through the model together",
    "max_queue_seconds": "seconds of audio waiting or at work; the longest recording too",
    "max_requests": "requests at work, uploads included",
    "max_upload_mb": "megabytes (a million bytes) of a request's body",
}
"""the fields of `ServerSettings` that are limits, each greater than 0, and what they limit; options of `slam-asr serve`"""


@dataclass(frozen=True)
class ServerSettings:
    """
    Limits and names of one server. The limits are those of `LIMITS`.

    model_names: what a request may call the model; the first is the one that answers bear.
    silent_seconds: an upload that brings nothing for so long is given up.
    unread_seconds: a stream of which the client takes nothing for so long is given up: it holds a place of `max_requests`.
    closing_seconds: after so long the server ends, whatever is still at work or not taken.
    api_key: what clients must send; None: nothing. It is not in the object's text.
    window_seconds, vad, drop_no_speech: as in [`SlamAsrPipeline`], for all requests.
    generate: for the model's `generate`, for all requests.
    """

    model_names: tuple[str, ...] = ("slam-asr",)
    max_batch: int = 8
    max_queue_seconds: float = 3600.0
    max_requests: int = 64
    max_upload_mb: float = 100.0
    silent_seconds: float = 30.0
    unread_seconds: float = 60.0
    closing_seconds: int = 600  # 3,600 s of audio at six times real time
    api_key: str | None = field(default=None, repr=False)
    window_seconds: float | None = None
    vad: str | None = None
    drop_no_speech: bool = False
    generate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            if not value > 0:
                raise UserError(f"{_flag(name)} ({name}) must be greater than 0, got {value:g}.")

    @property
    def max_upload_bytes(self) -> float:
        return self.max_upload_mb * 1e6

    @property
    def name(self) -> str:
        """The model's name in answers."""
        return self.model_names[0]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_limit_arguments(parser: Any) -> None:
    """The options for `LIMITS`, with the defaults of `ServerSettings`."""
    for name, text in LIMITS.items():
        default = getattr(ServerSettings, name)
        parser.add_argument(
            _flag(name), type=type(default), default=default, metavar="N", help=f"{text} (default: {default:g})"
        )


def limits_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `ServerSettings` that `add_limit_arguments` asked for."""
    return {name: getattr(args, name) for name in LIMITS}


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
