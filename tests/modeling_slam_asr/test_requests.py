"""Requests to the processor: hotwords, texts in place of tokens, labels on request."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import noise

WAVES = [noise(0.4, 1), noise(0.7, 2)]


def test_keywords_are_context(tiny_processor: Any) -> None:
    ask = tiny_processor.apply_transcription_request
    for given, context in (
        ({"keywords": ["fem", "fire"]}, "fem, fire"),
        ({"keywords": [["fem"], None]}, ["fem", None]),
        ({"keywords": ["fem"], "context": "tal"}, "tal fem"),
        ({"keywords": []}, None),
    ):
        assert torch.equal(ask(WAVES, **given)["input_ids"], ask(WAVES, context=context)["input_ids"])
    with pytest.raises(ValueError, match="one text; give a list"):
        ask(WAVES, keywords="fem")
    with pytest.raises(ValueError, match="`keywords` has 1 entries for 2"):
        ask(WAVES, keywords=[["fem"]])


def test_requests_as_text(tiny_processor: Any) -> None:
    ask = tiny_processor.apply_transcription_request
    texts = ask(WAVES, keywords=[["fem"], None], tokenize=False)
    assert texts == [
        "<|slam_asr_audio|>Context: fem\nTranscribe speech to text.\n",
        "<|slam_asr_audio|>Transcribe speech to text.\n",
    ]
    rows = ask(WAVES[0], keywords=["fem"])["input_ids"][0].tolist()
    after = tiny_processor.tokenizer(texts[0].removeprefix("<|slam_asr_audio|>"), add_special_tokens=False).input_ids
    assert rows[-len(after) :] == after


def test_labels_on_request(tiny_processor: Any, make_tiny_model: Callable[..., Any]) -> None:
    ask = tiny_processor.apply_transcription_request
    assert "labels" in ask(WAVES, text=["en", "to"]) and "labels" not in ask(
        WAVES, text=["en", "to"], output_labels=False
    )
    assert np.array_equal(
        ask(WAVES, text=["en", "to"], output_labels=True)["labels"], ask(WAVES, text=["en", "to"])["labels"]
    )
    with pytest.raises(ValueError, match="needs the transcripts"):
        ask(WAVES, output_labels=True)
