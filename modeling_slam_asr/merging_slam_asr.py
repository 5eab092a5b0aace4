"""Words with times, and the joining of transcripts whose windows overlap."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Scripts written without spaces: there each character is a unit of its own.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNITS = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")


@dataclass
class Word:
    """One word (or one character of a script without spaces) with white space before it, and its time in seconds."""

    text: str
    start: float = 0.0
    end: float = 0.0

    @property
    def key(self) -> str:
        """What two spellings of the word have in common: neither capitals nor punctuation count."""
        plain = "".join(c for c in unicodedata.normalize("NFC", self.text).casefold() if c.isalnum())
        return plain or self.text.strip()

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def split_words(text: str) -> list[str]:
    """`text` in units, each with the white space before it; joined they are `text` again, but for white space at the end."""
    return _UNITS.findall(text)


def join_words(words: Sequence[Word]) -> str:
    """The text of words in a row."""
    return "".join(word.text for word in words).strip()


def join_texts(texts: Sequence[str]) -> str:
    """Texts in a row, with a space between two unless their script has none."""
    joined = ""
    for text in texts:
        if joined and text:
            joined += "" if re.search(rf"[{_UNSPACED}]$", joined) and re.match(rf"[{_UNSPACED}]", text) else " "
        joined += text
    return joined


def merge_overlap(
    left: Sequence[Word], right: Sequence[Word], start: float, end: float, slack: float = 0.0
) -> tuple[list[Word], list[Word]]:
    """
    What to keep of two transcripts that both hold the speech between `start` and `end`, so that nothing is lost or said twice.

    The words that both have in the overlap are aligned in order; of all alignments the one with the most equal words, then
    with the least difference in time. Up to a pair near the middle of the overlap the left transcript counts, after it the
    right one: words that a window's edge cut through are left out. Without any equal word the middle of the overlap decides.

    Args:
        left, right: words with times in seconds, in order.
        start, end: the overlap, in seconds.
        slack: by how much the words' times may be wrong, in seconds.
    Returns:
        the left words and the right words to keep; the text is the one after the other.
    """
    first = next((i for i, word in enumerate(left) if word.middle >= start - slack), len(left))
    past = next((i for i, word in enumerate(right) if word.middle > end + slack), len(right))
    pairs = _align(left[first:], right[:past], scale=2 * (end - start + 2 * slack))
    middle = (start + end) / 2
    if not pairs:
        return [word for word in left if word.middle < middle], [word for word in right if word.middle >= middle]
    i, j = min(pairs, key=lambda pair: abs(left[first + pair[0]].middle + right[pair[1]].middle - 2 * middle))
    return list(left[: first + i + 1]), list(right[j + 1 :])


def _align(left: Sequence[Word], right: Sequence[Word], scale: float) -> list[tuple[int, int]]:
    """Index pairs of equal words, in order: the most, and of these the nearest in time (differences are below `scale`)."""
    rows, columns = len(left), len(right)
    best = np.zeros((rows + 1, columns + 1))
    gain = np.zeros((rows, columns))
    keys = [word.key for word in left], [word.key for word in right]
    weight = 1 / (scale * (min(rows, columns) + 1)) if scale > 0 else 0.0  # never worth a match
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            if keys[0][i] == keys[1][j]:
                gain[i, j] = 1 - weight * abs(left[i].middle - right[j].middle)
            matched = best[i + 1, j + 1] + gain[i, j] if gain[i, j] > 0 else -1.0
            best[i, j] = max(best[i + 1, j], best[i, j + 1], matched)
    pairs = []
    i = j = 0
    while i < rows and j < columns:
        if gain[i, j] > 0 and best[i, j] == best[i + 1, j + 1] + gain[i, j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return pairs
