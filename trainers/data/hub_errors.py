"""What goes wrong between this machine and the Hub."""

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

# Without a network the client raises its HTTP library's own errors, which are no OSError.
HUB_ERRORS = (OSError, HfHubHTTPError, httpx.HTTPError)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
