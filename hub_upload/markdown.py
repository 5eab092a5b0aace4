"""Text from files and from the Hub as it may stand in a card: on one line, and never as Markdown or HTML of its own."""

from typing import Any

ESCAPED = {"<": "&lt;", ">": "&gt;", "`": "'", "|": "\\|", "[": "\\[", "]": "\\]"}


def one_line(text: Any) -> str:
    """`text` without line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def plain(text: Any) -> str:
    """`text` for a sentence or a table cell."""
    return "".join(ESCAPED.get(letter, letter) for letter in one_line(text))


def code(text: Any) -> str:
    """`text` as code in a sentence or a table cell, with its backticks."""
    return f"`{one_line(text).replace('`', '?').replace('|', '?').replace('<!--', '<! --')}`"


def fences(text: str) -> list[str]:
    """The lines of `text` that open or close a block of code."""
    return [line for line in text.splitlines() if line.lstrip(" >").startswith(("```", "~~~"))]
