"""A look-alike of the Hugging Face Hub for the tests: real HTTP, atomic commits, faults on request."""

from .handler import Server, serve
from .store import Store

__all__ = ["Server", "Store", "serve"]
