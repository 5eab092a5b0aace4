"""Tokens, e-mail addresses and absolute paths in text: what must not leave this machine with a model, or stand in a recipe."""

import bisect
import io
import math
import re
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from trainers.errors import UserError

# Shapes of credentials. The name is shown in messages; of the match itself only the first characters are.
_SHAPES = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{16,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\b(?:AIza[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{20,})",
    "an Azure key": r"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/=]{40,}|[?&]sig=[A-Za-z0-9%+/=]{40,}",
    "a payment service's key": r"\b(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}|\bshp(?:at|ss|ca)_[a-f0-9]{32}\b",
    "a mail or phone service's key": r"\bSG\.[\w-]{16,}\.[\w-]{16,}|\bkey-[a-f0-9]{32}\b|\b(?:SK|AC)[a-f0-9]{32}\b",
    "a cloud host's token": (
        r"\bdo[opr]_v1_[a-f0-9]{64}\b|\bdapi[a-f0-9]{32}\b|\bhv[sb]\.[\w-]{24,}|\bsbp_[a-f0-9]{40}\b|\bFlyV1 fm\d_\S{20,}"
        r"|\bdckr_pat_[\w-]{20,}|\bAGE-SECRET-KEY-1[A-Z0-9]{50,}|\bHRKU-[\w-]{30,}"
    ),
    "a model host's token": r"\b(?:r8|gsk|nvapi|pplx|fw|xai|csk)[_-](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{24,}",
    "a chat service's token": (
        r"\b\d{8,10}:AA[\w-]{33}|https://hooks\.slack\.com/services/\S+|https://discord(?:app)?\.com/api/webhooks/\S+"
    ),
    "a work service's token": r"\b(?:lin_api|ntn|sntry[us]|ATATT3|glsa|figd|pul|dp\.pt\.)[_xA-Za-z0-9.-]{30,}",
    "an API key": (  # and no Slovak corpus, sk-something-2025
        r"\bsk-(?=[A-Za-z0-9_-]{0,99}\d)(?=[A-Za-z0-9_-]{0,99}[A-Z])[A-Za-z0-9_-]{20,}"
        r"|\bsk-(?:[A-Za-z]{1,20}-){0,3}(?:v\d-)?(?=[A-Za-z]{0,99}\d)[A-Za-z0-9]{20,}"
    ),
    "a Slack token": r"\bxox[abposr]-[A-Za-z0-9-]{10,}",
    "a package registry's token": r"\b(?:npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|rubygems_[a-f0-9]{40,})",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
    "a private key": r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    "a bearer token": r"\b[Bb]earer\s+(?=[A-Za-z0-9._-]*\d)[A-Za-z0-9._-]{20,}",
    "a password in a header": r"(?i)\bauthorization[\"']?\s{0,9}[:=]\s{0,9}[\"']?basic\s{1,9}[A-Za-z0-9+/]{8,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@\"']+:[^\s/@\"']+@",
    "a password": (
        r"(?i)\bmachine\s{1,9}\S{1,99}\s{1,9}login\s{1,9}\S{1,99}\s{1,9}password\s{1,9}\S+"
        r"|(?<![a-z0-9])passw(?:or)?d[\"']?\s{0,9}[:=]\s{0,9}[\"']?(?=[^\s\"']{0,99}\d)[^\s\"'<>(){}$,]{6,}"
    ),
    "a credential": (
        r"(?i)(?<![a-z0-9])(?:api[_-]?key|secret(?:[_-]?key)?|wandb|(?:access|auth|hf|wandb|hub)[_-]?(?:token|key))\b"
        r"[\"']?\s*[:=]\s*[\"']?(?=[A-Za-z0-9_/+.-]*\d)(?=[A-Za-z0-9_/+.-]*[A-Za-z])[A-Za-z0-9_/+.-]{16,}"
    ),
}
# ASCII: in binary data read as latin-1, letters such as y-umlaut would else count as part of a word.
TOKEN_SHAPES = {kind: re.compile(shape, re.ASCII) for kind, shape in _SHAPES.items()}
# No part of an address is longer than 63 or 64 characters; without bounds, long words take quadratic time.
EMAIL = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,10}[A-Za-z]{2,63}\b")
# In compressed data short e-mail addresses turn up by chance; long ones do not.
EMAIL_IN_BINARY = re.compile(
    r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{2,63}@[A-Za-z0-9-]{3,63}(?:\.[a-z0-9-]{2,63}){0,10}\.[a-z]{2,63}\b", re.ASCII
)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./~:<\\+-])(?:file://)?/(?!/)(?:[\w.@-]+/)+[\w.@-]*"  # /home/alice/data
    r"|(?<![\w./~:<\\+-])/(?:home|Users|root|mnt|tmp|data|scratch|workspace|content)\b(?!/)"
    r"|(?<![\w./])(?:\.\./)+(?:home|Users|root|mnt|tmp|data|scratch|workspace)/[\w.@/-]+"  # ../../home/alice
    r"|(?<![\w/])~[\w-]{1,32}/[\w.@/-]+"  # ~alice/data
    r"|\b[\w.@-]{1,253}:/(?:home|Users|root|mnt|tmp|data|scratch|workspace)/[\w.@/-]+"  # alice@host:/data/set
    r"|(?<![\w])[A-Za-z]:[\\/]{1,2}[\w.-]+[\\/]"  # C:\Users\
    r"|\bfile://[\w./~-]+"
    r"|(?<![\\\w])\\\\[\w.-]+\\[\w$.-]+"  # \\server\share
)
# Long words of letters of both cases and digits. Hexadecimal numbers are not among them: commits and check sums are such. With
# slashes they are words of 40 letters, as AWS' secret keys are, for paths are made of words too.
LONG_WORD = re.compile(
    r"(?<![\w+-])(?=[\w+-]*[a-z])(?=[\w+-]*[A-Z])(?=[\w+-]*\d)[A-Za-z0-9_+-]{24,}={0,2}"
    r"|(?<![\w+/.-])(?=[\w+/]*[a-z])(?=[\w+/]*[A-Z])(?=[\w+/]*\d)[A-Za-z0-9+/]{40}(?![\w+/.-])",
    re.ASCII,
)
# In a random word, neighbours are of different kinds (small, capital, digit) in 62 of 100 places; in a name in far fewer.
RANDOM_CHANGES, RANDOM_BITS = 0.42, 3.9
ESCAPED = re.compile("%([2-7][0-9A-Fa-f])")  # printable ASCII, so that lines stay lines
EMBEDDED_DATA = re.compile(r"data:[\w/.+-]+;base64,[A-Za-z0-9+/=]+")
HARMLESS_PATHS = ("/dev/null", "/bin/sh", "/bin/bash", "/usr/bin/env")


@dataclass(frozen=True)
class Leak:
    """Something that must not be published: what it is, a shortened form of it, and the line (from 1; 0 in binary data)."""

    kind: str
    shown: str
    line: int = 0


def find_tokens(text: str, own_token: str | None = None) -> Iterator[Leak]:
    """Credentials in `text`, also in what is written so that it reads otherwise, by shape; and the token in use, whatever its shape."""
    found = set()
    for form in (text, revealed(text)):
        if own_token and len(own_token) >= 6 and own_token in form:
            found.add(Leak("the Hugging Face token in use", redacted(own_token), line_of(form, form.index(own_token))))
        for kind, shape in TOKEN_SHAPES.items():
            found |= {Leak(kind, redacted(match[0]), line_of(form, match.start())) for match in shape.finditer(form)}
    yield from sorted(found, key=lambda leak: (leak.line, leak.kind))


def revealed(text: str) -> str:
    """The lines of `text` that invisible characters, accents or percent-encoding make read otherwise, without these; the others empty."""
    unseen = {ord(character): None for character in set(text) if unicodedata.category(character) in ("Cf", "Mn")}
    if not unseen and "%" not in text:
        return ""
    lines = text.split("\n")
    plain = (ESCAPED.sub(lambda match: chr(int(match[1], 16)), line.translate(unseen)) for line in lines)
    return "\n".join(new if new != old else "" for old, new in zip(lines, plain, strict=True))


def refuse_credentials(values: Any, where: str = "") -> None:
    """
    Args:
        values: mappings, lists and plain values as YAML holds them: a recipe's.
        where: the key that they stand under.
    Raises:
        UserError: a text among them holds a credential: recipes are kept with the runs, and published with the models.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            refuse_credentials(value, f"{where}.{key}" if where else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            refuse_credentials(value, f"{where}.{index}")
    elif isinstance(values, str) and (leak := next(find_tokens(values), None)):
        raise UserError(
            f"{where} holds {leak.kind}, {leak.shown}. What stands there is kept with the results and published with the model: take "
            "it out, and log in with `hf auth login` or set HF_TOKEN; other services have log-ins and variables of their own."
        )


def find_random(text: str) -> Iterator[Leak]:
    """Words that nobody would write: keys of a service that this module does not know."""
    for match in LONG_WORD.finditer(EMBEDDED_DATA.sub("data:", text)):
        if looks_random(match[0]):
            yield Leak("what looks like a secret key", redacted(match[0]), line_of(text, match.start()))


def looks_random(word: str) -> bool:
    """Whether a word has the entropy of random letters, and small letters, capitals and digits in no order."""
    letters = [letter for letter in word if letter.isalnum()]
    bits = -sum(count / len(word) * math.log2(count / len(word)) for count in Counter(word).values())
    kinds = [(letter.isdigit(), letter.isupper()) for letter in letters]
    changes = sum(one != other for one, other in pairwise(kinds)) / max(1, len(letters) - 1)
    return bits >= RANDOM_BITS and changes >= RANDOM_CHANGES


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
            if token.type == tokenize.COMMENT or "STRING" in tokenize.tok_name[token.type]:
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
    return bisect.bisect_left(_line_ends(text), position) + 1


@lru_cache(maxsize=1)  # one text is asked about many times
def _line_ends(text: str) -> list[int]:
    return [match.start() for match in re.finditer("\n", text)]
