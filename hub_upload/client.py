"""The way to the Hub: one client with time limits, and errors that a user can act on."""

import json
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, get_session, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trainers.errors import UserError

from .client_environment import HUB_TIMEOUT, is_real_hub
from .retries import DEFAULT_ATTEMPTS, attempts, is_transient

T = TypeVar("T")


class PublishError(UserError):
    """Publishing failed; the message says at which step, what stands on the Hub now, and what to do."""


class ConflictError(PublishError):
    """The repository is not in the state that this push was made for."""


class TransientError(PublishError):
    """The Hub or the network failed in a way that may pass; all attempts were used up."""


def connect(timeout: float = HUB_TIMEOUT) -> HfApi:
    """
    An `HfApi` whose requests give up after `timeout` seconds of silence (huggingface_hub's own client never does).

    The token is found by huggingface_hub's usual means: `HF_TOKEN` or `hf auth login`.

    Raises:
        PublishError: when Xet is on for a server that is not the real Hub, where uploads then fail.
    """
    host = urlsplit(constants.ENDPOINT).hostname or ""
    if not constants.HF_HUB_DISABLE_XET and not is_real_hub(host):
        raise PublishError(
            f"HF_ENDPOINT is {host!r}, not the Hugging Face Hub, and Xet is on, with which uploads to other servers "
            "fail. Set HF_HUB_DISABLE_XET=1 before Python starts."
        )
    standard = get_session()
    client_class, hooks = type(standard), standard.event_hooks
    set_client_factory(lambda: client_class(event_hooks=hooks, follow_redirects=True, timeout=timeout))
    return HfApi()


def request_timeout() -> float | None:
    """Seconds of silence after which requests give up, for the calls of `HfApi` that would set their own limit or none."""
    return get_session().timeout.read


def call(step: str, request: Callable[[], T], *, most: int = DEFAULT_ATTEMPTS) -> T:
    """
    Carry out one request to the Hub.

    Args:
        step: what is being done, for messages: "reading acme/model".
        request: the call; it must be safe to repeat.
        most: how often it is tried.
    Raises:
        TransientError: when the last attempt failed by a time-out, a broken connection or a 5xx reply.
        PublishError: for refusals, with the remedy.
        RepositoryNotFoundError, RevisionNotFoundError: as they are, for the caller to tell what it means.
    """
    for last in attempts(most):
        try:
            return request()
        except GatedRepoError as error:
            raise refusal(step, error) from error
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            if not is_transient(error):
                raise refusal(step, error) from error
            if last:
                raise TransientError(
                    f"{sentence(step)} failed {most} times; the last reason: {reason(error)}. Check the "
                    "connection and the Hub's status, then run the same command again: it goes on where it stopped."
                ) from error
    raise AssertionError("unreachable")


def sentence(step: str) -> str:
    """A step's name as the start of a sentence."""
    return step[:1].upper() + step[1:]


def reason(error: BaseException) -> str:
    """One line that says what went wrong, without the request's headers."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return f"{error} {reason(error.__cause__)}"
    if isinstance(error, HfHubHTTPError):
        text = error.server_message or str(error).strip().splitlines()[0]
        return f"the server replied {error.response.status_code} ({text.strip()})"
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no further word"
    return f"{type(error).__name__} ({text})"


def refusal(step: str, error: BaseException) -> PublishError:
    """The error to show for a request that is not worth repeating."""
    opening = f"{sentence(step)} failed: "
    if isinstance(error, LocalTokenNotFoundError):
        return PublishError(f"{opening}there is no token. Run `hf auth login` or set HF_TOKEN.")
    if isinstance(error, OfflineModeIsEnabled):
        return PublishError(f"{opening}HF_HUB_OFFLINE is set. Unset it to reach the Hub.")
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    remedy = ""
    if status == 401:
        remedy = " The token is wrong or missing: run `hf auth login` or set HF_TOKEN."
    elif isinstance(error, GatedRepoError):
        remedy = " Ask for access on the repository's page first."
    elif status == 403:
        remedy = " The token may not write there: make one with write access to this namespace."
    return PublishError(f"{opening}{reason(error)}.{remedy}")
