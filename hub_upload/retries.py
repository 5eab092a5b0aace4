"""Which requests to the Hub are sent again, how often, and what is waited in between."""

import json
import time
from collections.abc import Iterator

from huggingface_hub.errors import HfHubHTTPError, HTTPError

RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
DEFAULT_ATTEMPTS = 3
COMMIT_ATTEMPTS = 4  # of a commit that another one came before
VERIFY_ATTEMPTS = 2  # of the check of what was published
FIRST_PAUSE = 1.0  # seconds; each later one is twice as long
LONGEST_PAUSE = 8.0


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed when it is sent again."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in RETRIED_STATUS
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # how an LFS upload reports its failure
        return is_transient(error.__cause__)
    # A reply that is no JSON is an error page or a broken one.
    return isinstance(error, HTTPError | json.JSONDecodeError)


def pauses(most: int = DEFAULT_ATTEMPTS, first: float = FIRST_PAUSE) -> list[float]:
    """The seconds between `most` attempts: `first`, then twice as long each time, `LONGEST_PAUSE` at most."""
    return [min(LONGEST_PAUSE, first * 2**number) for number in range(most - 1)]


def attempts(most: int = DEFAULT_ATTEMPTS, pause: float = FIRST_PAUSE) -> Iterator[bool]:
    """
    Once for each attempt, whether it is the last; between two it waits.

    Args:
        most: how often a thing is tried.
        pause: seconds before the second attempt, see `pauses`.
    """
    for seconds in pauses(most, pause):
        yield False
        time.sleep(seconds)
    yield True
