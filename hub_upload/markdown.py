"""Text from files and from the Hub as it may stand in a card: on one line, and never as Markdown or HTML of its own."""

import re
from typing import Any

ESCAPED = {"<": "&lt;", ">": "&gt;", "`": "'", "|": "\\|", "[": "\\[", "]": "\\]"}
_FENCE = re.compile(r"[ >]*(`{3,}|~{3,})(.*)", re.DOTALL)


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
    """
    The lines of `text` that open or close a block of code. As in CommonMark, a fence closes one of the same character that is not
    longer, and stands alone on its line.
    """
    found: list[str] = []
    opened = ""
    for line in re.split(r"\r\n?|\n", text):
        fence = _FENCE.match(line)
        if fence is None or (opened and not (fence[1].startswith(opened) and not fence[2].strip())):
            continue
        if not opened and fence[1][0] == "`" and "`" in fence[2]:
            continue  # code within a sentence
        opened = "" if opened else fence[1]
        found.append(line)
    return found
