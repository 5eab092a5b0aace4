"""What is sent to the Hub again, and the waits in between. Whole pushes over faulty HTTP are in test_commit.py."""

import importlib
import inspect
import json

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from hub_upload.remote import commit_folder
from hub_upload.retries import (
    DEFAULT_ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    RETRIED_STATUS,
    attempts,
    is_transient,
    pauses,
)

httpx = importlib.import_module(HTTPError.__module__)  # httpx or httpx2, as huggingface_hub's version has it


def reply(status: int) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "http://localhost/api"))
    return HfHubHTTPError(f"status {status}", response=response)


def test_waits_double_up_to_the_longest() -> None:
    assert pauses() == [1.0, 2.0]
    assert pauses(1) == []
    assert pauses(6) == [1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE]
    assert pauses(3, 0.25) == [0.25, 0.5]


def test_only_the_last_attempt_is_called_the_last() -> None:
    assert list(attempts(1)) == [True]
    assert list(attempts(4, 0.001)) == [False, False, False, True]
    assert len(list(attempts(pause=0.001))) == DEFAULT_ATTEMPTS


def test_a_commit_waits_as_every_other_request() -> None:
    assert inspect.signature(commit_folder).parameters["pause"].default == FIRST_PAUSE


@pytest.mark.parametrize("status", RETRIED_STATUS)
def test_busy_servers_are_asked_again(status: int) -> None:
    assert is_transient(reply(status))
    wrapped = RuntimeError("Error while uploading to the Hub.")
    wrapped.__cause__ = reply(status)
    assert is_transient(wrapped)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 501])
def test_refusals_are_final(status: int) -> None:
    assert not is_transient(reply(status))
    wrapped = RuntimeError("Error while uploading to the Hub.")
    wrapped.__cause__ = reply(status)
    assert not is_transient(wrapped)


def test_broken_connections_and_replies_pass_and_faults_of_ours_do_not() -> None:
    assert is_transient(httpx.ReadTimeout("no word")) and is_transient(httpx.ConnectError("no route"))
    assert is_transient(json.JSONDecodeError("no JSON", "<html>", 0))
    assert not is_transient(OSError("no space left")) and not is_transient(RuntimeError("by itself"))
