"""
Joint decoding without torch: each next token of a greedy transcript is scored by an LLM and by the CTC head of an export's audio part.

The model's own is `CtcPrefixScores`, in torch and for beams too; a test holds the two together.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

NEVER = -1e30  # a log-probability that keeps sums finite
LEAST = -1e4  # that the CTC head says of a next token: it rules it out, and an LLM's scores are not lost beside it
UNKNOWN_SHARE = 0.02  # of what is no blank: a token that the CTC head does not know


class JointScores:
    """
    One transcript as it is written, and what the CTC head says of it.

    Args:
        log_probs: of the CTC head, `(frames, 1 + classes)`, blank first.
        tokens: the classes' token ids.
        ends: the end tokens.
        weight: of the head, from 0, the LLM alone, to below 1.
    """

    def __init__(
        self, log_probs: NDArray[np.float32], tokens: Sequence[int], ends: Collection[int], weight: float
    ) -> None:
        frames = log_probs.astype(np.float64)
        unknown = np.log(np.maximum(1 - np.exp(frames[:, :1]), 1e-6)) + np.log(UNKNOWN_SHARE)
        self.frames = np.concatenate([frames, unknown], axis=1)  # (frames, 1 + classes + 1)
        self.probabilities = np.exp(self.frames)
        self.tokens, self.ends, self.weight = np.asarray(tokens, dtype=np.int64), sorted(ends), weight
        # Log-probabilities `(frames,)` of the transcript up to each frame that ends in its last token, or in a blank.
        self.blank = np.cumsum(self.frames[:, 0])
        self.label = np.full(len(frames), NEVER)
        self.begin = 0.0  # of the transcript before the first frame
        self.last = 0  # the class of the last token
        self.total = 0.0
        self.prefixes = self._prefixes()

    def __call__(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The LLM's `scores` `(vocab,)` of the next token, logits or log-probabilities, joined with the head's."""
        heard = np.full(len(scores), self.prefixes[-1] - self.total)
        heard[self.tokens] = self.prefixes[1:-1] - self.total
        heard[self.ends] = np.logaddexp(self.label[-1], self.blank[-1]) - self.total
        if self.total < NEVER / 2:  # of what goes on from a transcript that it has ruled out the head says nothing
            heard[:] = 0.0
        joined: NDArray[np.float64] = (1 - self.weight) * scores + self.weight * np.maximum(heard, LEAST)
        return joined

    def take(self, token: int) -> None:
        """The transcript goes on with `token`."""
        known = np.flatnonzero(self.tokens == token)
        newest = int(known[0]) + 1 if len(known) else len(self.prefixes) - 1
        self.total = float(self.prefixes[newest])
        before = self.blank if newest == self.last else np.logaddexp(self.label, self.blank)
        self.label = _carried(self._shifted(before), self.frames[:, newest])
        self.begin, self.last = NEVER, newest if len(known) else 0  # of unknown tokens none is the one before again
        self.blank = _carried(self._shifted(self.label), self.frames[:, 0])
        self.prefixes = self._prefixes()

    def _prefixes(self) -> NDArray[np.float64]:
        """`(1 + classes + 1,)`: the log-probability of the transcript with each class behind it, whatever follows."""
        enters = self._shifted(np.logaddexp(self.label, self.blank))
        top = enters.max()
        summed = np.log(np.maximum(np.exp(enters - top) @ self.probabilities, 1e-37)) + top
        if self.last:  # the last token again needs a blank between
            summed[self.last] = np.logaddexp.reduce(self._shifted(self.blank) + self.frames[:, self.last])
        return np.asarray(summed)

    def _shifted(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values of the frame before."""
        return np.concatenate([[self.begin], values[:-1]])


def _carried(enters: NDArray[np.float64], stays: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x[t] = logaddexp(x[t - 1], enters[t]) + stays[t]`, without a loop."""
    path = np.cumsum(stays)
    return np.maximum(path + np.logaddexp.accumulate(enters - (path - stays)), NEVER)
