"""Words with times: from the sound's level or the LLM's attention, a second look at transcripts, and overlaps joined."""

import copy
import itertools
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .generation_slam_asr import llm_arguments
from .windows_slam_asr import FRAME_SECONDS, frame_levels

__all__ = [
    "ALIGNMENT_HEADS",
    "SecondLook",
    "Word",
    "active_frames",
    "align_tokens",
    "align_transcripts",
    "alignment_matrix",
    "attention_words",
    "ctc_words",
    "eager_twin",
    "estimate_words",
    "join_texts",
    "join_words",
    "look_again",
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


ALIGNMENT_HEADS = 8
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


@torch.no_grad()
def align_transcripts(
    model: Any, transcripts: Sequence[Sequence[int]], **audio: torch.Tensor | None
) -> list[np.ndarray | None]:
    """
    Where the CTC head hears each token of finished transcripts, by forced alignment.

    Args:
        model: a [`SlamAsrForConditionalGeneration`] with a CTC head.
        transcripts: token ids of each utterance, without end tokens.
        audio: the arguments of `model.get_audio_features`.
    Returns:
        For each utterance `(tokens, 3)` as [`align_tokens`] gives it, in audio embeddings; None where the transcript has more
        tokens than the audio has embeddings.
    """
    frames, mask = model.get_audio_features(**audio, return_dict=True).padded()
    known = set(model.ctc_tokens())
    found: list[np.ndarray | None] = []
    for row, transcript in enumerate(transcripts):
        classes = sorted(known | set(transcript))  # the LLM may write pieces that the head was not trained on
        log_probs = model.ctc_log_probs(frames[row : row + 1, mask[row]], classes)[0].cpu().numpy()
        place = {token: index + 1 for index, token in enumerate(classes)}
        try:
            found.append(align_tokens(log_probs, [place[token] for token in transcript]))
        except ValueError:
            found.append(None)
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


def eager_twin(language_model: Any) -> Any:
    """
    An LLM that shares every tensor of this one and computes attention the plain way, the only one that gives weights back.

    Whoever else uses the LLM meanwhile, in another thread, sees nothing of it.
    """
    tensors = itertools.chain(language_model.parameters(), language_model.buffers())
    twin = copy.deepcopy(language_model, {id(tensor): tensor for tensor in tensors})
    twin.set_attn_implementation("eager")
    return twin


@dataclass
class SecondLook:
    """
    log_probs: natural logarithm of each token's probability, `(tokens,)`, float32.
    attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the tokens; None if not asked for.
    audio: indices of the audio embeddings within `length`.
    """

    log_probs: torch.Tensor
    attentions: list[torch.Tensor] | None
    audio: torch.Tensor

    @property
    def confidence(self) -> float:
        """`exp` of the mean log-probability of a token: the geometric mean of the tokens' probabilities, from 0 to 1."""
        return math.exp(float(self.log_probs.double().mean())) if len(self.log_probs) else 0.0


@torch.no_grad()
def look_again(
    model: Any,
    transcripts: Sequence[Sequence[int]],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    attentions: bool = False,
    **audio: Any,
) -> list[SecondLook]:
    """
    One forward pass of the LLM over request and finished transcript, an utterance at a time.

    Args:
        model: a [`SlamAsrForConditionalGeneration`].
        transcripts: generated token ids of each utterance, without padding.
        input_ids, attention_mask: the request, `(batch, length)`, padded at either side.
        attentions: give back attention weights too.
        audio: the audio arguments of `model.forward`.
    """
    merged = model.merge_inputs(input_ids, attention_mask, **audio)
    table = model.get_input_embeddings()
    language_model = eager_twin(model.language_model) if attentions else model.language_model
    few = "logits_to_keep" in llm_arguments(language_model.__class__)
    looks = []
    for row, transcript in enumerate(transcripts):
        held = merged.attention_mask[row].bool()
        request = merged.inputs_embeds[row, held]
        places = merged.audio[row, held].nonzero().squeeze(-1).cpu()
        if not len(transcript):
            looks.append(SecondLook(torch.zeros(0), [] if attentions else None, places))
            continue
        tokens = torch.tensor(list(transcript), device=request.device)
        whole = torch.cat([request, table(tokens).to(request)])[None]
        output = language_model(
            inputs_embeds=whole,
            attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device),
            output_attentions=attentions,
            use_cache=False,
            **({"logits_to_keep": len(tokens) + 1} if few else {}),
        )
        first = len(request) - 1  # each token is predicted at the place before it
        logits = output.logits[0, -len(tokens) - 1 : -1].float()
        log_probs = logits.log_softmax(-1).gather(-1, tokens[:, None].to(logits.device)).squeeze(-1).cpu()
        rows = [layer[0, :, first:-1].cpu() for layer in output.attentions] if attentions else None
        looks.append(SecondLook(log_probs, rows, places))
    return looks
