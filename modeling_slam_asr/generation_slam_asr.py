"""When a transcript ends: limits from the audio's own length, and the end of runaway repetition."""

from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

SPARE_TOKENS = 10  # for the end token and for very short recordings


class TranscriptLimit(StoppingCriteria):
    """
    End each row on its own: at its audio's token limit, or once it does nothing but repeat itself.

    Both look at the row alone, so a transcript does not depend on what it is batched with.

    Args:
        limits: most new tokens of each utterance, `(batch,)`; its beams or samples stand in neighbouring rows.
        repeats, span: a row is ended when its last `repeats` pieces of equal length are the same and together hold at least
            `span` tokens.
    """

    def __init__(self, limits: torch.Tensor, repeats: int = 8, span: int = 24) -> None:
        self.limits = limits
        self.repeats = repeats
        self.span = span

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Which rows `(rows,)` of new tokens `(rows, new_tokens)` are done."""
        rows, new_tokens = input_ids.shape
        limits = self.limits.to(input_ids.device).repeat_interleave(rows // len(self.limits))
        return (limits <= new_tokens) | repeats_itself(input_ids, self.repeats, self.span)


def repeats_itself(tokens: torch.Tensor, repeats: int = 8, span: int = 24, longest: int = 16) -> torch.Tensor:
    """Whether each row of `(rows, length)` ends in `repeats` equal pieces of 1 to `longest` tokens, of `span` tokens at least."""
    found = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    for period in range(1, longest + 1):
        times = max(repeats, -(-span // period))
        if tokens.shape[1] < period * times:
            continue
        tail = tokens[:, -period * times :].reshape(tokens.shape[0], times, period)
        found |= (tail == tail[:, :1]).all(-1).all(-1)
    return found


def transcript_limit(config: GenerationConfig, seconds: torch.Tensor, tokens_per_second: float) -> TranscriptLimit:
    """
    The limit for utterances of `seconds` `(batch,)` of audio, from each one's own length.

    A `max_new_tokens` in `config` replaces it; otherwise `config.max_new_tokens` is set to the greatest of them.
    """
    if config.max_new_tokens is not None:
        return TranscriptLimit(torch.full_like(seconds, config.max_new_tokens, dtype=torch.long))
    limits = (seconds * tokens_per_second).ceil().long() + SPARE_TOKENS
    config.max_new_tokens = int(limits.max())
    return TranscriptLimit(limits)
