"""Settings of the Hub's client, some of which it reads once, when it is imported: this module imports nothing of it."""

import os
from urllib.parse import urlsplit

HUB_TIMEOUT = 30.0
"""seconds of silence of the Hub"""
VERIFY_TIMEOUT = 900.0
"""seconds in which a fresh process loads and uses a model"""


def prepare_environment() -> None:
    """Switch Xet off for a server other than the real Hub. To be called before huggingface_hub is first imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    if endpoint and not is_real_hub(urlsplit(endpoint).hostname or ""):
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def is_real_hub(host: str) -> bool:
    """Whether `host` belongs to the Hugging Face Hub."""
    return host in ("huggingface.co", "hf.co") or host.endswith((".huggingface.co", ".hf.co"))
