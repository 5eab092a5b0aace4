"""What the machine can do at most, and the least time in which a model's work could be done by it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

_BYTES, _SIZE, _REPEATS = 256 * 2**20, 768, 6
_LONGEST = 1.0  # seconds for all tries: without instructions for bfloat16 a product takes long


@dataclass(frozen=True)
class Ceilings:
    """bandwidth: bytes a second, read from memory. products: floating-point operations a second of a matrix product, by dtype."""

    bandwidth: float
    products: dict[str, float]


def measure_ceilings() -> Ceilings:
    """The best of a few tries, on torch's threads."""
    memory = torch.ones(_BYTES // 4)
    products = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.randn(_SIZE, _SIZE, dtype=dtype), torch.randn(_SIZE, _SIZE, dtype=dtype)
        products[str(dtype).removeprefix("torch.")] = 2 * _SIZE**3 / _best(lambda a=left, b=right: a @ b)  # type: ignore[misc]
    return Ceilings(bandwidth=memory.nbytes / _best(memory.sum), products=products)


def _best(work: Callable[[], Any]) -> float:
    seconds: list[float] = []
    while not seconds or (len(seconds) < _REPEATS and sum(seconds) < _LONGEST):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@dataclass
class Work:
    """
    What a model computed: encoder frames, and of each pass of the LLM its positions and rows.

    encoder_size, llm_size, head_size: numbers of weights, those of the LLM without its head and embeddings. llm_bytes: what one pass
    reads, head included. precision: of the products.
    """

    encoder_size: int
    llm_size: int
    head_size: int
    llm_bytes: int
    precision: str
    encoder_calls: int = 0
    encoder_frames: int = 0
    passes: list[tuple[int, int]] = field(default_factory=list)

    def reset(self) -> None:
        self.encoder_calls = self.encoder_frames = 0
        self.passes = []

    def least_seconds(self, ceilings: Ceilings) -> float:
        """
        A pass of the LLM takes as long as its products or as reading its weights; attention and everything else count as nothing.
        """
        rate = ceilings.products[self.precision]
        seconds = 2 * self.encoder_size * self.encoder_frames / rate
        for positions, rows in self.passes:
            products = 2 * (self.llm_size * positions + self.head_size * rows) / rate
            seconds += max(products, self.llm_bytes / ceilings.bandwidth)
        return seconds
