"""Fixtures of the inference tests: the pipeline around the tiny random model, and readable tokens only."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLING_RATE, WORDS, speak

SHARED_SPEECH = Path(__file__).parents[2] / "../shared/speech"


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Tones with gaps of 50 ms, about `seconds` long, at 16 kHz: (samples,) float32."""
    words = list(WORDS)
    rng = np.random.default_rng(seed)
    return speak([words[i] for i in rng.integers(0, len(words), max(round(seconds / 0.25), 1))], seed=seed)


def encoded(samples: np.ndarray, rate: int = SAMPLING_RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    """The bytes of a sound file that holds `samples`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def unreadable(tiny_processor: Any) -> list[int]:
    """Tokens that are not printable text by themselves, to be suppressed where a random model's text is compared."""
    tokenizer = tiny_processor.tokenizer
    texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    return [i for i, text in enumerate(texts) if "\ufffd" in text or not text.isprintable()]


@pytest.fixture(scope="session")
def make_pipe(make_tiny_model: Callable[..., Any], tiny_processor: Any) -> Callable[..., Any]:
    """A function that puts a pipeline around a model."""
    from modeling_slam_asr import SlamAsrPipeline

    def make(model: Any = None, **options: Any) -> Any:
        return SlamAsrPipeline(
            model if model is not None else make_tiny_model(),
            tokenizer=tiny_processor.tokenizer,
            feature_extractor=tiny_processor.feature_extractor,
            processor=tiny_processor,
            device="cpu",
            **options,
        )

    return make


@pytest.fixture(scope="session")
def pipe(make_pipe: Callable[..., Any], unreadable: list[int]) -> Any:
    """One shared pipeline; a test that edits the model makes its own."""
    return make_pipe(generate_kwargs={"suppress_tokens": unreadable})
