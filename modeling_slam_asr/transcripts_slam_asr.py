"""Text and token ids: what an LLM is told around the audio, where a transcript ends, and its words with times. Needs no torch."""

import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NotRequired, TypedDict

import numpy as np
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from .windows_slam_asr import FRAME_SECONDS, next_pause, sound_range

__all__ = [
    "AUDIO_MARK", "CHECK_EVERY", "CONTEXT_PROMPT", "LANGUAGE_NAMES", "SPARE_TOKENS", "Answer", "Chunk", "PromptMixin",
    "TokenScore", "Transcript", "Word", "align_tokens", "attention_words", "confidence", "ctc_words", "estimate_words",
    "join_texts", "join_words", "loop_period", "merge_overlap", "read_transcript", "split_words", "token_limit",
    "token_pieces", "warp", "word_confidences",
]  # fmt: skip

LANGUAGE_NAMES = {code: name.title() for code, name in LANGUAGES.items()} | {"nb": "Norwegian", "nn": "Norwegian"}
_PROMPT_NAMES = LANGUAGE_NAMES | {name.lower(): name for name in LANGUAGE_NAMES.values()}


class TokenScore(TypedDict):
    """A token's text and the natural logarithm of its probability."""

    text: str
    log_prob: float


class Marks(TypedDict, total=False):
    """What is true of an answer or a chunk; a mark that is not has no key. `incomplete`: the end of its file is missing."""

    no_speech: bool
    truncated: bool
    loop: bool
    incomplete: bool


class Chunk(Marks):
    """A stretch of an answer: `timestamp` is its start and end in seconds; `confidence` as of [`word_confidences`], if a word."""

    text: str
    timestamp: tuple[float, float]
    confidence: NotRequired[float | None]


class Answer(Marks):
    """What the pipeline says of a recording. `error` stands beside an empty text, with `on_error="return"`."""

    text: str
    chunks: NotRequired[list[Chunk]]
    approximate_timestamps: NotRequired[bool]
    confidence: NotRequired[float | None]
    tokens: NotRequired[list[TokenScore]]
    error: NotRequired[str]


AUDIO_MARK = "<|slam_asr_audio|>"
CONTEXT_PROMPT = "Context: {context}\n"


class PromptMixin:
    """For what has a `tokenizer` and a processor's settings of the prompt: the attributes are those of [`SlamAsrProcessor`]."""

    tokenizer: Any
    chat_template: Any
    prompt: str
    language_prompt: str | None
    context_prompt: str
    use_chat_template: bool

    def around_audio(
        self, prompt: str | None = None, language: str | None = None, context: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Token ids before and after the audio embeddings."""
        before, after = self._around_audio(self.prompt_text(prompt, language, context))
        return self._encode_start(before), self._encode(after)

    def prompt_text(self, prompt: str | None = None, language: str | None = None, context: str | None = None) -> str:
        """The text after the audio, before a chat template is put around it."""
        if prompt is None:
            prompt = self.prompt
            if language is not None and self.language_prompt is not None:
                spelt = language.lower(), re.split("[-_]", language.lower())[0]  # en-US is English too
                name = next((_PROMPT_NAMES[one] for one in spelt if one in _PROMPT_NAMES), language)
                prompt = self.language_prompt.format(language=name)
        return self.context_prompt.format(context=context) + prompt if context else prompt

    def _around_audio(self, prompt: str) -> tuple[str, str]:
        """The texts before and after the audio."""
        if not self.use_chat_template:
            return "", prompt
        template = self.chat_template or self.tokenizer.chat_template
        if template is None:
            raise ValueError(
                "use_chat_template=True, but the tokenizer has no chat template. Use the bare prompt or set one."
            )
        message = [{"role": "user", "content": AUDIO_MARK + prompt}]
        rendered = self.tokenizer.apply_chat_template(
            message, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        before, _, after = rendered.partition(AUDIO_MARK)
        return before, after

    def _encode_start(self, before: str) -> list[int]:
        """What stands before the audio; a bare prompt has nothing there but the token that the tokenizer itself begins with."""
        if self.use_chat_template:
            return self._encode(before)
        start = list(self.tokenizer("").input_ids[:1])
        return start if start and start[0] == self.tokenizer.bos_token_id else []

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


SPARE_TOKENS = 10  # for the end token and for very short recordings

# A loop is 6 or more copies of a piece that together hold 40 tokens or more. Speech has repetitions of its own
# ("ja ja ja ja", a refrain): none that long within one window is known, and a loop costs only these tokens.
LOOP_REPEATS = 6
LOOP_SPAN = 40
LOOP_PERIOD = 48
CHECK_EVERY = 8  # tokens, for a loop


@dataclass
class Transcript:
    """
    One generated transcript.

    tokens: without the end token and what follows it; of a loop only the first copy when it was trimmed.
    end: the end token with which the model ended it; None when a limit did.
    loop: whether it ran into a loop.
    stopped: whether one of the call's `stop_strings` ended it.
    """

    tokens: list[int]
    end: int | None
    loop: bool
    stopped: bool = False


def read_transcript(
    row: Sequence[int], ends: Collection[int], pad: int | None, limit: int, trim_loop: bool = True
) -> Transcript:
    """
    What one row of generated tokens says.

    Args:
        row: new tokens, filled up with `pad`, which may itself be an end token.
        ends: end tokens.
        limit: most tokens that this row could have.
        trim_loop: keep a loop's first copy only.
    """
    stops = [index for index, token in enumerate(row) if token in ends or token == pad]
    length = stops[0] if stops else len(row)
    tokens = list(row[:length])
    period = loop_period(tokens)
    if period is None:
        ended = bool(stops) and row[length] in ends and length < limit
        return Transcript(tokens, row[length] if ended else None, False)
    first = length - period
    while first > 0 and tokens[first - 1] == tokens[first - 1 + period]:
        first -= 1
    return Transcript(tokens[: first + period] if trim_loop else tokens, None, True)


def token_limit(seconds: float, tokens_per_second: float) -> int:
    """The most new tokens of an utterance of `seconds`."""
    # Seconds are sums of tenths: without rounding, 4.2 s and 42 times 0.1 s could have different limits.
    return int(np.ceil(np.round(seconds * tokens_per_second, 3))) + SPARE_TOKENS


def confidence(log_probs: Sequence[float]) -> float | None:
    """`exp` of the mean: the geometric mean of the tokens' probabilities; None without tokens."""
    return math.exp(math.fsum(log_probs) / len(log_probs)) if log_probs else None


def loop_period(tokens: Sequence[int]) -> int | None:
    """The length of the piece that `tokens` end with copies of, or None when they do not end in a loop."""
    for period in range(1, LOOP_PERIOD + 1):
        held = period * max(LOOP_REPEATS, -(-LOOP_SPAN // period))
        if len(tokens) >= held and all(tokens[-i] == tokens[-i - period] for i in range(1, held - period + 1)):
            return period
    return None


# Scripts written without spaces: there each character is a unit of its own.
# Thai, Lao, Myanmar, Khmer, Chinese and Japanese with their punctuation.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
)
_UNITS = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")


@dataclass
class Word:
    """One word (or character of a script without spaces), white space before it, its time in seconds and [`word_confidences`]."""

    text: str
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None

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
            joined += "" if re.match(rf"[{_UNSPACED}]", joined[-1]) and re.match(rf"[{_UNSPACED}]", text) else " "
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
    pieces: Sequence[str], aligned: np.ndarray, length: float, active: np.ndarray, start: float, end: float
) -> list[Word]:
    """
    The words of a transcript with the times of its tokens' CTC alignment.

    A word begins up to half a position before its first token is heard, and lasts until the next begins or a pause does.

    Args:
        pieces: the text that each token brings, in order.
        aligned: `(tokens, 3)`, see [`align_tokens`].
        length: of an audio embedding, in seconds.
        active, start, end: as of [`estimate_words`]; all words lie between the first and the last frame that is not quiet.
    """
    sound = sound_range(active, start, end)
    firsts, lasts = aligned[:, 0].copy(), aligned[:, 1].copy()
    gaps = np.clip((firsts[1:] - lasts[:-1]) / 2, 0.0, _REACH)
    firsts[1:] -= gaps
    lasts[:-1] += gaps
    firsts[:1] -= _REACH
    lasts[-1:] += _REACH
    begins, ends = (np.clip(places * length + start, *sound) for places in (firsts, lasts))
    following = np.append(begins, sound[1])[1:]
    until = [start + next_pause(active, a - start, b - start) for a, b in zip(ends, following, strict=True)]
    return _time_words(pieces, begins, np.array(until), sound[0])


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


def word_confidences(
    pieces: Sequence[str], log_probs: Sequence[float], aligned: np.ndarray | None = None
) -> list[float | None]:
    """
    Of each word the least probability of its tokens, or None if it has no token of its own.

    Args:
        pieces: the text that each token brings, in order; there may be an end token.
        log_probs: of each token, by the LLM.
        aligned: `(tokens, 3)`, see [`align_tokens`]: then the lesser of what LLM and CTC head give a token counts.
    """
    least = np.array(log_probs)
    if aligned is not None:
        # An engine that has no table of embeddings knows nothing, NaN, of tokens beside the head's classes.
        least[: len(aligned)] = np.fmin(least[: len(aligned)], aligned[:, 2])
    words = split_words("".join(pieces))
    owner = _owners(words, pieces)
    held = [least[owner == index] for index in range(len(words))]
    return [math.exp(one.min()) if len(one) else None for one in held]


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
