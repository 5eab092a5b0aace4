"""An utterance's encoding, loss and transcript do not depend on its batch or on the padding side."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_slam_asr import SlamAsrProcessor
from modeling_slam_asr.projector_slam_asr import PROJECTORS

from .conftest import LORA, noise, stir_lora

SETTINGS: dict[str, dict[str, Any]] = {"qformer": {"projector_num_queries": 4, "projector_num_layers": 1}}
WORDS = ("en", "to", "tre", "fire")
lengths = st.lists(st.floats(0.03, 2.5), min_size=2, max_size=5)
quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=PROJECTORS)
def parts(request: Any, make_tiny_model: Callable[..., Any], tiny_processor: Any) -> tuple[Any, SlamAsrProcessor]:
    model = make_tiny_model(lora=LORA, projector_type=request.param, **SETTINGS.get(request.param, {})).eval()
    stir_lora(model)
    processor = SlamAsrProcessor.from_config(model.config, tiny_processor.feature_extractor, tiny_processor.tokenizer)
    return model, processor


@quick
@given(seconds=lengths, side=st.sampled_from(["left", "right"]), seed=st.integers(0, 99))
def test_encoding_and_loss(parts: tuple[Any, Any], seconds: list[float], side: str, seed: int) -> None:
    model, processor = parts
    waves = [noise(length, seed + index) for index, length in enumerate(seconds)]
    texts = [" ".join(WORDS[: 1 + (seed + index) % 4]) for index in range(len(waves))]
    batch = processor(waves, text=texts, padding_side=side)
    with torch.no_grad():
        audio = model.get_audio_features(batch["input_features"], batch["input_features_mask"]).rows()
        logits_loss = []
        for index, (wave, text) in enumerate(zip(waves, texts, strict=True)):
            alone = processor(wave, text=text)
            single = model.get_audio_features(alone["input_features"], alone["input_features_mask"]).pooler_output
            assert torch.allclose(audio[index], single, atol=1e-4)
            row = {name: value[index : index + 1] for name, value in batch.items()}
            loss = model(**alone).loss
            assert torch.allclose(model(**row).loss, loss, atol=1e-4)
            logits_loss.append(loss * (alone["labels"] != -100).sum())
        expected = sum(logits_loss) / (batch["labels"] != -100).sum()
        assert torch.allclose(model(**batch).loss, expected, atol=1e-4)


@quick
@given(seconds=lengths, side=st.sampled_from(["left", "right"]), beams=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_transcripts(parts: tuple[Any, Any], seconds: list[float], side: str, beams: int, seed: int) -> None:
    model, processor = parts
    waves = [noise(length, seed + index) for index, length in enumerate(seconds)]
    together = model.generate(
        **processor(waves, padding_side=side),
        num_beams=beams,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = processor.batch_decode(together.sequences, skip_special_tokens=True)
    for index, wave in enumerate(waves):
        alone = model.generate(
            **processor(wave), num_beams=beams, max_new_tokens=6, return_dict_in_generate=True, output_scores=True
        )
        # Where a random model finds two tokens equally good, rounding may decide; elsewhere it must not.
        margin = min(float((score.topk(2).values[:, 0] - score.topk(2).values[:, 1]).min()) for score in alone.scores)
        if margin > 1e-3:
            assert processor.batch_decode(alone.sequences, skip_special_tokens=True) == [texts[index]]


def test_length_is_limited_by_each_own_audio(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    waves = [noise(0.2), noise(2.0)]
    model.config.max_tokens_per_second, before = 5.0, model.config.max_tokens_per_second
    try:
        together = processor.batch_decode(model.generate(**processor(waves), eos_token_id=-1))
        alone = [processor.batch_decode(model.generate(**processor(wave), eos_token_id=-1))[0] for wave in waves]
    finally:
        model.config.max_tokens_per_second = before
    assert [text.replace("<pad>", "") for text in together] == [text.replace("<pad>", "") for text in alone]
