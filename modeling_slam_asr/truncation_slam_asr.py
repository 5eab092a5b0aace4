"""Sound files that end too early: a half-copied recording is decoded without complaint, and its transcript does not fit it."""

import re

# Sizes that writers put where they could not know the length, as when they write into a pipe.
_UNKNOWN_SIZE = 0x7FFFF000
_WHOLE = 0.98  # of the announced bytes: some writers count their headers as sound
_ANNOUNCED = re.compile(r"^\s*(?:data|SSND|riff)\s*:\s*(\d+)\s*\(should be (\d+)\)", re.MULTILINE)
_OGG_SIGNS = ("lacks an end-of-stream bit", "Junk after the last page")


def missing_end(head: bytes, size: int, log: str) -> str | None:
    """
    What shows that a sound file's end is missing, or None.

    Args:
        head: the file's first bytes; of an MP3 file with a long tag before the sound, that tag and 1 kB more.
        size: the whole file's size in bytes.
        log: libsndfile's own report on the file, `soundfile.SoundFile.extra_info`.
    """
    for announced, found in _ANNOUNCED.findall(log):
        if (sign := missing_sound(int(announced), int(found))) is not None:
            return sign
    if all(sign in log for sign in _OGG_SIGNS):
        return "the last page is not whole"
    wanted = mp3_size(head)
    if wanted is not None and size < _WHOLE * wanted:
        return f"{wanted} bytes are announced and {size} are there"
    return None


def missing_sound(announced: int, found: int) -> str | None:
    """The same, from the bytes of sound that a header announces and those that the file holds."""
    if found < _WHOLE * announced and announced < _UNKNOWN_SIZE:
        return f"{announced} bytes of sound are announced and {found} are there"
    return None


def mp3_size(head: bytes) -> int | None:
    """The size of an MP3 file as its encoder wrote it into the first frame (the Xing or Info header), or None."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:  # four bytes of seven bits each
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if head[start : start + 1] != b"\xff":
        return None
    mark = max(head.find(tag, start, start + 64) for tag in (b"Xing", b"Info"))
    if mark < 0 or len(head) < mark + 16:
        return None
    flags = int.from_bytes(head[mark + 4 : mark + 8], "big")
    if not flags & 2:
        return None
    place = mark + (12 if flags & 1 else 8)
    return start + int.from_bytes(head[place : place + 4], "big") or None
