"""Generated tokens as a transcript: where it ends, how long it may be, and the end of runaway repetition. Needs no torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CHECK_EVERY",
    "LOOP_PERIOD",
    "LOOP_REPEATS",
    "LOOP_SPAN",
    "SPARE_TOKENS",
    "Transcript",
    "loop_period",
    "read_transcript",
    "token_limit",
]

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


def loop_period(tokens: Sequence[int]) -> int | None:
    """The length of the piece that `tokens` end with copies of, or None when they do not end in a loop."""
    for period in range(1, LOOP_PERIOD + 1):
        held = period * max(LOOP_REPEATS, -(-LOOP_SPAN // period))
        if len(tokens) >= held and all(tokens[-i] == tokens[-i - period] for i in range(1, held - period + 1)):
            return period
    return None
