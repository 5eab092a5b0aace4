"""When each word was said: an estimate from the sound's level, or from the LLM's attention to the audio. Both are approximate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .merging_slam_asr import Word, split_words
from .windows_slam_asr import FRAME_SECONDS, frame_levels

ALIGNMENT_HEADS = 8
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
    words = split_words("".join(pieces))
    firsts = warp(-attention)
    # Tokens listen to the middle of what they stand for, so the path turns to each one late: by half an embedding.
    places = np.append(np.maximum(firsts - 0.5, 0.0), attention.shape[1])
    edges = np.clip(places * seconds_per_position + start, *sound)
    bounds = np.cumsum([0] + [len(word) for word in words])
    begins = np.cumsum([0] + [len(piece) for piece in pieces])
    # A token belongs to the word that holds its last character: tokens often begin with the space between words. One
    # without text goes with the next, and the end token to no word.
    owner = np.searchsorted(bounds[1:], begins[1:] - 1, side="right")
    following = -1
    for index in range(len(pieces) - 1, -1, -1):
        following = int(owner[index]) if pieces[index].strip() else following
        owner[index] = following
    timed: list[Word] = []
    for index, word in enumerate(words):
        tokens = np.flatnonzero(owner == index)
        if len(tokens):
            begin, finish = float(edges[tokens[0]]), float(edges[tokens[-1] + 1])
        else:  # the word shares its only token with a neighbour
            begin = finish = timed[-1].end if timed else sound[0]
        timed.append(Word(word, begin, finish))
    return timed


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


def alignment_matrix(
    attentions: Sequence[torch.Tensor], audio: torch.Tensor, heads: int = ALIGNMENT_HEADS
) -> np.ndarray:
    """
    One map of which audio each transcript token listens to.

    The mean of the heads whose attention moves most steadily through the audio from token to token, the steadier with the
    greater weight.

    Args:
        attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the transcript's tokens.
        audio: indices of the audio positions, `(audio_positions,)`.
    Returns:
        `(tokens, audio_positions)`, standardised over the tokens.
    """
    weights = torch.cat([layer[:, :, audio].float().cpu() for layer in attentions])
    mass = weights.sum(-1)
    shares = weights / mass.clamp(min=1e-9)[..., None]
    tokens, positions = shares.shape[1:]
    if tokens < 2 or positions < 2:
        return shares.mean(0).numpy()
    centres = shares @ torch.arange(positions, dtype=torch.float32)
    steps = torch.arange(tokens, dtype=torch.float32)
    centres_off, steps_off = centres - centres.mean(-1, keepdim=True), steps - steps.mean()
    steady = (centres_off * steps_off).sum(-1) / (centres_off.norm(dim=-1) * steps_off.norm()).clamp(min=1e-9)
    reach = centres_off.std(-1) / (positions / 12**0.5)  # 1 for a head that walks through the whole recording
    scores, best = (steady * reach.clamp(max=1.0)).topk(min(heads, len(shares)))
    chosen = shares[best]
    chosen = (chosen - chosen.mean(1, keepdim=True)) / chosen.std(1, keepdim=True).clamp(min=1e-6)
    # A small LLM has fewer good heads than are asked for; the fourth power leaves the others little say.
    weights = scores.clamp(min=1e-3) ** 4
    return torch.einsum("h,htp->tp", weights / weights.sum(), chosen).numpy()


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


@contextmanager
def eager_attention(language_model: Any) -> Iterator[None]:
    """Within it the LLM computes attention the plain way, the only one that gives weights back; after it as before."""
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        language_model.set_attn_implementation(before)
