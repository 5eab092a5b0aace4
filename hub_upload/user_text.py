"""The parts of a card that people write: marked sections, kept word for word whenever the card is made again.

The start mark carries a digest of the text as the last push wrote it, so a text that was edited on the Hub since is told from
one that was edited here.
"""

import hashlib
import re
from dataclasses import dataclass

from .client import ConflictError
from .markdown import fences

SECTIONS = ("introduction", "notes")
# A card on the Hub is anybody's: each mark is found in one pass, and ends before the next one begins.
_MARK = re.compile(r"<!-- (?:user text: [^<>]*|end of user text )-->")
_START = re.compile(
    r"<!-- user text: (?P<name>[a-z-]+)(?:[^a-z-].*?)?(?:\(as of (?P<digest>[0-9a-f]{8}|none)\))? -->", re.DOTALL
)
_END = "<!-- end of user text -->"
_ANY_MARK = re.compile(r"<!-- (?:user text: |end of user text)")
_TRAINER_CARD = (
    "generated automatically according to the information the Trainer had access to",
    "[More Information Needed]",
)


@dataclass(frozen=True)
class UserText:
    """One section's text, and the digest of the text that the last push wrote there (None: never pushed)."""

    text: str
    written: str | None = None

    @property
    def edited(self) -> bool:
        """Whether somebody has changed the text since it was pushed."""
        return digest(self.text) != (self.written or digest(""))


def digest(text: str) -> str:
    """8 hex digits that name a text; `none` for an empty one."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8] if text.strip() else "none"


def wrap(name: str, text: str) -> str:
    """A section with its marks, as it stands in a card."""
    start = f"<!-- user text: {name}; write below, it is kept on every push (as of {digest(text)}) -->"
    return "\n".join(filter(None, (start, text.strip(), _END)))


def extract(card: str, where: str) -> dict[str, UserText]:
    """
    The user's sections of a card.

    A card without marks, made by hand, is kept whole as `notes`; one that the Trainer or a template made is not.

    Raises:
        ConflictError: when a mark was damaged, since text could then be lost.
    """
    body = re.sub(r"\A\s*---\r?\n.*?\r?\n---[ \t]*\r?\n", "", card.replace("\r\n", "\n"), count=1, flags=re.DOTALL)
    complete = list(_MARK.finditer(body))
    found = {}
    for start, end in zip(complete[::2], complete[1::2], strict=False):  # an odd one is told below
        head = _START.fullmatch(start[0])
        if head and end[0] == _END:
            found[head["name"]] = UserText(body[start.end() : end.start()].strip(), head["digest"])
    marks = len(_ANY_MARK.findall(body))
    if marks != 2 * len(found):
        raise ConflictError(
            f"The marks of the user text in {where} are damaged: {marks} marks make {len(found)} sections. Restore each pair "
            "`<!-- user text: NAME ... -->` and `<!-- end of user text -->`, so that no text is lost."
        )
    if not marks and body.strip() and not any(phrase in body for phrase in _TRAINER_CARD):
        found = {"notes": UserText(f"## Earlier card\n\n{body.strip()}")}
    for name, section in found.items():
        if len(fences(section.text)) % 2:
            raise ConflictError(
                f"The user text {name!r} in {where} opens a block of code that it does not close, so the rest of the card "
                "would become code. Close it."
            )
    return found


def merge(local: dict[str, UserText], remote: dict[str, UserText], prefer: str | None = None) -> dict[str, str]:
    """
    One text for each section out of the card here and the card on the Hub.

    Args:
        prefer: `"local"` or `"hub"` decides where both were edited; None makes that an error.
    Raises:
        ConflictError: when a section was edited on both sides.
    """
    merged = {}
    for name in (*SECTIONS, *sorted((local.keys() | remote.keys()) - set(SECTIONS))):
        here, there = local.get(name, UserText("")), remote.get(name, UserText(""))
        if here.text == there.text or not here.text:
            merged[name] = there.text
        elif not there.text:
            merged[name] = here.text
        elif prefer is not None:
            merged[name] = here.text if prefer == "local" else there.text
        elif not there.edited and there.written is not None:
            merged[name] = here.text  # the Hub has what was pushed; the text here is newer
        elif digest(here.text) == there.written:
            merged[name] = there.text  # the text here is what was pushed; the Hub's is newer
        else:
            raise ConflictError(
                f"The user text {name!r} was edited both in the local card and on the Hub. Say which one counts with "
                "--user-text local or --user-text hub."
            )
    return merged
