"""Tokens, e-mail addresses and absolute paths in text: what must not leave this machine with a model."""

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

# Shapes of credentials. The name is shown in messages; of the match itself only the first characters are.
_SHAPES = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{16,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{30,}",
    "an API key": r"\bsk-(?:[A-Za-z]+-)*[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abposr]-[A-Za-z0-9-]{10,}",
    "a package registry's token": r"\b(?:npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,})",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a bearer token": r"\b[Bb]earer\s+(?=[A-Za-z0-9._-]*\d)[A-Za-z0-9._-]{20,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/@\"']+@",
    "a credential": (
        r"(?i)(?<![a-z0-9])(?:api[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|(?:access|auth|hf|wandb|hub)[_-]?(?:token|key))\b"
        r"[\"']?\s*[:=]\s*[\"']?(?=[A-Za-z0-9_/+.-]*\d)(?=[A-Za-z0-9_/+.-]*[A-Za-z])[A-Za-z0-9_/+.-]{16,}"
    ),
}
# ASCII: in binary data read as latin-1, letters such as y-umlaut would else count as part of a word.
TOKEN_SHAPES = {kind: re.compile(shape, re.ASCII) for kind, shape in _SHAPES.items()}
EMAIL = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b")
# In compressed data short e-mail addresses turn up by chance; long ones do not.
EMAIL_IN_BINARY = re.compile(
    r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{2,}@[A-Za-z0-9-]{3,}(?:\.[a-z0-9-]{2,})*\.[a-z]{2,}\b", re.ASCII
)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./~:<\\+-])(?:file://)?/(?!/)(?:[\w.@-]+/)+[\w.@-]*"  # /home/alice/data
    r"|(?<![\w./~:<\\+-])/(?:home|Users|root|mnt|tmp|data|scratch|workspace|content)\b(?!/)"
    r"|(?<![\w])[A-Za-z]:[\\/]{1,2}[\w.-]+[\\/]"  # C:\Users\
    r"|\bfile://[\w./~-]+"
    r"|(?<![\\\w])\\\\[\w.-]+\\[\w$.-]+"  # \\server\share
)
EMBEDDED_DATA = re.compile(r"data:[\w/.+-]+;base64,[A-Za-z0-9+/=]+")
HARMLESS_PATHS = ("/dev/null", "/bin/sh", "/bin/bash", "/usr/bin/env")


@dataclass(frozen=True)
class Leak:
    """Something that must not be published: what it is, a shortened form of it, and the line (from 1; 0 in binary data)."""

    kind: str
    shown: str
    line: int = 0


def find_tokens(text: str, own_token: str | None = None) -> Iterator[Leak]:
    """Credentials in `text`, by shape; and the token in use, whatever its shape."""
    if own_token and len(own_token) >= 6 and own_token in text:
        yield Leak("the Hugging Face token in use", redacted(own_token), line_of(text, text.index(own_token)))
    for kind, shape in TOKEN_SHAPES.items():
        for match in shape.finditer(text):
            yield Leak(kind, redacted(match[0]), line_of(text, match.start()))


def find_emails(text: str) -> Iterator[Leak]:
    """E-mail addresses in `text`."""
    for match in EMAIL.finditer(text):
        yield Leak("an e-mail address", redacted(match[0]), line_of(text, match.start()))


def find_paths(text: str) -> Iterator[Leak]:
    """Absolute paths in `text`."""
    text = EMBEDDED_DATA.sub("data:", text)
    for match in ABSOLUTE_PATH.finditer(text):
        if match[0] not in HARMLESS_PATHS:
            yield Leak("an absolute path", match[0][:80], line_of(text, match.start()))


def find_in_binary(data: bytes, own_token: str | None = None) -> Iterator[Leak]:
    """Credentials and e-mail addresses in data that is no text."""
    text = data.decode("latin-1")
    for leak in find_tokens(text, own_token):
        yield Leak(leak.kind, leak.shown)
    for match in EMAIL_IN_BINARY.finditer(text):
        yield Leak("an e-mail address", redacted(match[0]))


def python_words(source: str) -> str:
    """Comments and strings of Python source, each on its own line; `a@b.t` in its code is a matrix product."""
    lines = [""] * (source.count("\n") + 2)
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if (
                token.type == tokenize.COMMENT
                or token.type == tokenize.STRING
                or "STRING" in tokenize.tok_name[token.type]
            ):
                for offset, piece in enumerate(token.string.split("\n")):
                    lines[token.start[0] - 1 + offset] += " " + piece
    except (tokenize.TokenError, SyntaxError):
        return source
    return "\n".join(lines)


def redacted(secret: str) -> str:
    """The first characters of a secret, enough to find it and not to use it."""
    return f"{secret[:4]}... ({len(secret)} characters)"


def line_of(text: str, position: int) -> int:
    """The line, counted from 1, of a position in `text`."""
    return text.count("\n", 0, position) + 1
