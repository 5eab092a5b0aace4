"""Log-probabilities and confidence: those of a forward pass."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_slam_asr.results_slam_asr import confidence
from modeling_slam_asr.scoring_slam_asr import look_again
from tests.modeling_slam_asr.conftest import talk


def test_log_probs_are_those_of_generation(tiny_model: Any, tiny_processor: Any) -> None:
    inputs = tiny_processor.apply_transcription_request([talk(1.0), talk(0.4, seed=1)])
    output = tiny_model.generate(
        **inputs, max_new_tokens=6, suppress_tokens=[2], output_logits=True, return_dict_in_generate=True
    )
    looks = look_again(tiny_model, output.sequences.tolist(), **inputs)
    logits = torch.stack(output.logits, dim=1).log_softmax(-1)
    expected = logits.gather(-1, output.sequences[..., None]).squeeze(-1)
    for look, row in zip(looks, expected, strict=True):
        torch.testing.assert_close(look.log_probs, row, atol=1e-5, rtol=0)
        assert look.confidence == pytest.approx(math.exp(row.mean()), rel=1e-5)
        assert look.attentions is None


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_log_probs_are_those_of_the_training_forward(tiny_model: Any, tiny_processor: Any, padding_side: str) -> None:
    """The loss over a transcript and its end token is minus the mean log-probability."""
    recordings, texts = [talk(1.0), talk(0.4, seed=1)], ["en to tre", "fem"]
    request = tiny_processor.apply_transcription_request(recordings, padding_side=padding_side)
    looks = look_again(tiny_model, [tiny_processor.transcript_ids(text) for text in texts], **request)
    for recording, text, look in zip(recordings, texts, looks, strict=True):
        loss = tiny_model(**tiny_processor(recording, text=text)).loss
        assert -look.log_probs.mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_an_empty_transcript(tiny_model: Any, tiny_processor: Any) -> None:
    looks = look_again(tiny_model, [[]], **tiny_processor.apply_transcription_request(talk(0.4)))
    assert looks[0].log_probs.tolist() == []
    assert confidence([]) is None


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_the_pipeline_reports_them(pipe: Any, tiny_processor: Any, options: dict[str, int]) -> None:
    recording = talk(1.0)
    answer = pipe(recording, return_confidence="tokens", max_new_tokens=8, **options)
    log_probs = [token["log_prob"] for token in answer["tokens"]]
    assert answer["confidence"] == pytest.approx(math.exp(sum(log_probs) / len(log_probs)))
    assert "".join(token["text"] for token in answer["tokens"]).strip() == answer["text"]
    ids = tiny_processor.tokenizer(answer["text"], add_special_tokens=False).input_ids
    inputs = tiny_processor(recording, text="")
    generated = pipe.model.generate(
        **tiny_processor.apply_transcription_request(recording), max_new_tokens=8, **options,
        suppress_tokens=pipe._forward_params["suppress_tokens"],
    )[0]  # fmt: skip
    row = torch.cat([inputs["input_ids"][0][:-1], generated])[None]
    logits = pipe.model(input_ids=row, input_features=inputs["input_features"]).logits[0, -len(generated) - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, generated[:, None]).squeeze(-1)
    assert log_probs == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(ids) > 0


def test_confidence_does_not_change_the_text_and_encodes_once(pipe: Any) -> None:
    rows: list[int] = []
    block = pipe.model.audio_encoder.layers[0]
    recordings = [talk(1.0), talk(0.6, seed=3)]
    plain = pipe(recordings, batch_size=2, max_new_tokens=8)
    hook = block.register_forward_hook(lambda module, args, output: rows.append(1))
    try:
        scored = pipe(recordings, batch_size=2, max_new_tokens=8, return_confidence=True)
    finally:
        hook.remove()
    assert [a["text"] for a in plain] == [a["text"] for a in scored]
    assert rows == [1]
    assert all(0 < a["confidence"] < 1 for a in scored)
    assert "confidence" not in plain[0]


def test_sampled_transcripts_are_scored_too(pipe: Any, make_pipe: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    answer = pipe(talk(1.0), do_sample=True, max_new_tokens=6, return_confidence=True, return_timestamps=True)
    assert answer["chunks"][0]["confidence"] == answer["confidence"]
