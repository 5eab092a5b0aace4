"""Words with times, from the sound's level, attention or a CTC alignment, and overlaps joined. Needs no torch."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .windows_slam_asr import FRAME_SECONDS, frame_levels

__all__ = [
    "Word",
    "active_frames",
    "align_tokens",
    "attention_words",
    "ctc_words",
    "estimate_words",
    "join_texts",
    "join_words",
    "merge_overlap",
    "split_words",
    "token_pieces",
    "warp",
]

# Scripts written without spaces: there each character is a unit of its own.
# Thai, Lao, Myanmar, Khmer, Chinese and Japanese with their punctuation.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
)
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


_REACH = 0.5  # positions: CTC marks a token where it is sure of it, not where the token begins
_ACTIVE_DB = 30.0  # frames up to this much below the loud ones count as speech


def active_frames(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Which 20 ms of `(samples,)` are not quiet, `(frames,)` bool; always at least one."""
    levels = frame_levels(samples, sampling_rate)
    return levels >= min(float(np.percentile(levels, 95)) - _ACTIVE_DB, float(levels.max()))


def estimate_words(text: str, active: np.ndarray, start: float, end: float) -> list[Word]:
    """
    The words of `text`, the time that is not quiet shared out among them by their letters.

    Args:
        active: see [`active_frames`], `(frames,)`.
        start, end: the window's place in the recording in seconds.
    """
    pieces = split_words(text)
    if not pieces:
        return []
    frames = np.flatnonzero(active)
    letters = np.array([len(piece.strip()) + 1 for piece in pieces])
    shares = np.concatenate([[0], np.cumsum(letters)]) / letters.sum() * len(frames)
    last = len(frames) - 1
    begins = start + frames[np.minimum(shares[:-1].astype(int), last)] * FRAME_SECONDS
    ends = start + (frames[np.clip(np.ceil(shares[1:]).astype(int) - 1, 0, last)] + 1) * FRAME_SECONDS
    return [Word(p, float(a), float(min(max(a, b), end))) for p, a, b in zip(pieces, begins, ends, strict=True)]


def attention_words(
    pieces: Sequence[str], attention: np.ndarray, seconds_per_position: float, start: float, sound: tuple[float, float]
) -> list[Word]:
    """
    The words of a transcript with times from dynamic time warping over attention.

    Args:
        pieces: the text that each token brings, in order; joined they are the transcript.
        attention: `(tokens, audio_positions)` as [`alignment_matrix`] gives it.
        seconds_per_position: length of an audio embedding.
        start: the window's place in the recording in seconds.
        sound: between which seconds of the recording the window is not quiet; all words lie between them.
    """
    firsts = warp(-attention)
    # Tokens listen to the middle of what they stand for, so the path turns to each one late: by half an embedding.
    places = np.append(np.maximum(firsts - 0.5, 0.0), attention.shape[1])
    edges = np.clip(places * seconds_per_position + start, *sound)
    return _time_words(pieces, edges[:-1], edges[1:], sound[0])


def align_tokens(log_probs: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """
    The best CTC path that says `targets`: the first frame of each, one past its last, and its mean log-probability.

    Args:
        log_probs: `(frames, classes)`, class 0 is blank.
        targets: classes, in order; neighbours that are equal have a blank between them.
    Returns:
        `(targets, 3)`, float64: first frame, past the last frame, mean log-probability on them.
    Raises:
        ValueError: there are fewer frames than the targets need.
    """
    count, frames = len(targets), len(log_probs)
    if not count:
        return np.zeros((0, 3))
    repeats = sum(a == b for a, b in pairwise(targets))
    if frames < count + repeats:
        raise ValueError(f"{count} tokens ({repeats} repeated) need {count + repeats} frames; there are {frames}.")
    states = np.zeros(2 * count + 1, dtype=np.int64)
    states[1::2] = targets
    scores = log_probs[:, states].astype(np.float64)
    skips = np.zeros(len(states), dtype=bool)  # from a token straight to the next, where they differ
    skips[3::2] = states[3::2] != states[1:-2:2]
    total = np.full(len(states), -np.inf)
    total[:2] = scores[0, :2]
    steps = np.zeros((frames, len(states)), dtype=np.int8)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], total[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf, -np.inf], total[:-2]]), -np.inf)
        choices = np.stack([total, one, two])
        steps[frame] = choices.argmax(0)
        total = choices.max(0) + scores[frame]
    state = len(states) - 1 if total[-1] >= total[-2] else len(states) - 2
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    found = np.zeros((count, 3))
    for index in range(count):
        on = np.flatnonzero(path == 2 * index + 1)
        found[index] = on[0], on[-1] + 1, scores[on, 2 * index + 1].mean()
    return found


def ctc_words(
    pieces: Sequence[str], aligned: np.ndarray, seconds_per_position: float, start: float, sound: tuple[float, float]
) -> list[Word]:
    """
    The words of a transcript with the times of its tokens' CTC alignment.

    A blank between two words goes to both in equal parts, up to half a position each: what is longer is a pause.

    Args:
        pieces: the text that each token brings, in order.
        aligned: `(tokens, 3)`, see [`align_tokens`].
        seconds_per_position: length of an audio embedding.
        start: the window's place in the recording in seconds.
        sound: between which seconds of the recording the window is not quiet; all words lie between them.
    """
    firsts, lasts = aligned[:, 0].copy(), aligned[:, 1].copy()
    gaps = np.clip((firsts[1:] - lasts[:-1]) / 2, 0.0, _REACH)
    firsts[1:] -= gaps
    lasts[:-1] += gaps
    if len(aligned):
        firsts[0] -= _REACH
        lasts[-1] += _REACH
    begins = np.clip(firsts * seconds_per_position + start, *sound)
    ends = np.clip(lasts * seconds_per_position + start, *sound)
    return _time_words(pieces, begins, ends, sound[0])


def _time_words(pieces: Sequence[str], begins: np.ndarray, ends: np.ndarray, first: float) -> list[Word]:
    """The words of a transcript, from the times at which its tokens begin and end; `first` is the earliest time there is."""
    words = split_words("".join(pieces))
    owner = _owners(words, pieces)
    timed: list[Word] = []
    for index, word in enumerate(words):
        tokens = np.flatnonzero(owner == index)
        if len(tokens):
            begin, end = float(begins[tokens[0]]), float(ends[tokens[-1]])
        else:  # the word shares its only token with a neighbour
            begin = end = timed[-1].end if timed else first
        timed.append(Word(word, begin, max(begin, end)))
    return timed


def _owners(words: Sequence[str], pieces: Sequence[str]) -> np.ndarray:
    """
    Which word each token belongs to, `(tokens,)`.

    It is the one that holds its last character: tokens often begin with the space between words. One without text goes with the
    next, and the end token to no word.
    """
    bounds = np.cumsum([0] + [len(word) for word in words])
    begins = np.cumsum([0] + [len(piece) for piece in pieces])
    owner = np.searchsorted(bounds[1:], begins[1:] - 1, side="right")
    following = -1
    for index in range(len(pieces) - 1, -1, -1):
        following = int(owner[index]) if pieces[index].strip() else following
        owner[index] = following
    return owner


def token_pieces(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The text that each of `tokens` adds to those before it; a character split over tokens goes to its last one."""
    pieces: list[str] = []
    done = ""
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count], skip_special_tokens=True)
        whole = text.rstrip("\ufffd") if count < len(tokens) else text
        pieces.append(whole[len(done) :] if whole.startswith(done) else "")
        done = whole if whole.startswith(done) else done
    return pieces


def warp(cost: np.ndarray) -> np.ndarray:
    """
    Dynamic time warping: the first column of each row on the cheapest path through `cost` `(rows, columns)`.

    The path begins in the first cell, ends in the last, and takes steps of one column or of one row and column; of one row
    only where columns are scarce: two tokens in one audio embedding are rare in speech.
    """
    rows, columns = cost.shape
    crowded = columns < 2 * rows
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            choices = (total[i - 1, j - 1], total[i, j - 1], total[i - 1, j] if crowded else np.inf)
            step[i, j] = int(np.argmin(choices))
            total[i, j] = cost[i - 1, j - 1] + choices[step[i, j]]
    firsts = np.zeros(rows, dtype=np.int64)
    i, j = rows, columns
    while i > 0 and j > 0:
        firsts[i - 1] = j - 1
        i, j = i - (step[i, j] != 1), j - (step[i, j] != 2)
    return firsts
