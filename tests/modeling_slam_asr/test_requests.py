"""Requests to the processor: hotwords, texts in place of tokens, labels on request."""

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from modeling_slam_asr import SlamAsrProcessor

from .conftest import noise

WAVES = [noise(0.4, 1), noise(0.7, 2)]


def test_keywords_are_context(tiny_processor: Any) -> None:
    ask = tiny_processor.apply_transcription_request
    for keywords, context in (
        ({"keywords": ["fem", "fire"]}, "fem, fire"),
        ({"keywords": [["fem"], None]}, ["fem", None]),
        ({"keywords": ["fem"], "context": "tal"}, "tal fem"),
        ({"keywords": []}, None),
    ):
        assert torch.equal(ask(WAVES, **keywords)["input_ids"], ask(WAVES, context=context)["input_ids"])
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


def test_settings_by_themselves_and_in_groups(tiny_processor: Any) -> None:
    """As of other processors in transformers: flat or by modality."""
    ask = tiny_processor.apply_transcription_request
    wave = noise(0.4, 1)
    flat = ask([wave, WAVES[1]], padding_side="right", sampling_rate=8000)
    grouped = ask(
        [wave, WAVES[1]],
        text_kwargs={"padding_side": "right", "padding": True},
        audio_kwargs={"sampling_rate": 8000},
        common_kwargs={"return_tensors": "pt"},
    )
    assert flat.keys() == grouped.keys() and all(torch.equal(flat[name], grouped[name]) for name in flat)
    assert flat["input_ids"].shape != ask([wave, WAVES[1]])["input_ids"].shape, "the rate must count"
    for given, error, said in (
        ({"max_length": 5}, TypeError, r"cannot set \['max_length'\].*'padding_side'"),
        ({"text_kwargs": {"truncation": True}}, TypeError, r"cannot set \['truncation'\]"),
        ({"images_kwargs": {}}, TypeError, "images_kwargs"),
        ({"return_tensors": "np"}, ValueError, "makes torch tensors"),
        ({"padding": "max_length"}, ValueError, "longest row"),
        ({"text_kwargs": {"padding_side": "top"}}, ValueError, "'left' or 'right', got 'top'"),
    ):
        with pytest.raises(error, match=said):
            ask(wave, **given)


def test_the_placeholder_mask_is_that_of_other_audio_models(tiny_processor: Any, tiny_model: Any) -> None:
    inputs = tiny_processor(WAVES)
    features = tiny_model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    ids = inputs["input_ids"]
    embeddings = torch.zeros(*ids.shape, features.shape[-1])
    mask = tiny_model.get_placeholder_mask(ids, inputs_embeds=embeddings, audio_features=features)
    assert mask.shape == embeddings.shape and mask.dtype == torch.bool
    assert torch.equal(embeddings.masked_scatter(mask, features)[mask], features.flatten())
    with pytest.raises(ValueError, match=rf"has {len(features)} audio placeholders for {len(features) - 1} audio"):
        tiny_model.get_placeholder_mask(ids, embeddings, features[:-1])
    with pytest.raises(ValueError, match="there is no audio"):
        tiny_model.get_placeholder_mask(ids, embeddings, None)


TEXT = st.text(max_size=20).map(lambda text: text.replace("{", "").replace("}", ""))


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    prompt=TEXT,
    language_prompt=st.none() | TEXT.map("{language} ".__add__),
    context_prompt=TEXT.map("{context} ".__add__),
    projector_downsample_rate=st.integers(1, 10),
    pad_to_30s=st.booleans(),
)
def test_what_is_saved_is_what_is_loaded(tiny_processor: Any, **settings_of_it: Any) -> None:
    made = SlamAsrProcessor(tiny_processor.feature_extractor, tiny_processor.tokenizer, **settings_of_it)
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        loaded = SlamAsrProcessor.from_pretrained(folder)
    assert {name: getattr(loaded, name) for name in settings_of_it} == settings_of_it
    for request in ({"language": "da"}, {"context": "Nyhavn"}, {}):
        asked = [one.apply_transcription_request(audio=WAVES[0], **request)["input_ids"] for one in (made, loaded)]
        assert torch.equal(*asked)


def test_languages_by_code_name_and_locale(tiny_processor: Any) -> None:
    processor = copy.copy(tiny_processor)
    processor.language_prompt = "Write {language}: "
    for given, name in {
        "en": "English",
        "en-US": "English",
        "da_dk": "Danish",
        "ca": "Catalan",
        "Dutch": "Dutch",
        "xx": "xx",
    }.items():
        assert processor.prompt_text(language=given) == f"Write {name}: "


def test_an_array_of_many_rows_is_no_recording(tiny_processor: Any) -> None:
    for batch in (np.zeros((3, 16_000)), torch.zeros(16_000, 8)):
        with pytest.raises(ValueError, match="Give a list of recordings"):
            tiny_processor(batch)
    assert len(tiny_processor(np.ones((2, 16_000), dtype=np.float32))["input_features"]) == 1


def test_conversations_of_other_audio_llms(tiny_processor: Any) -> None:
    sounds = [noise(1.0), noise(0.5)]
    turns = [
        [{"role": "user", "content": [{"type": "audio", "audio": sound}, {"type": "text", "text": "Write:"}]}]
        for sound in sounds
    ]
    made = tiny_processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    wanted = tiny_processor.apply_transcription_request(sounds, prompt="Write:")
    assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in wanted)
    one = [{"role": "user", "content": [{"type": "audio", "path": sounds[0]}]}]
    assert (
        tiny_processor.apply_chat_template(one)
        == tiny_processor.apply_transcription_request(sounds[:1], tokenize=False)[0]
    )
    told = [*one, {"role": "assistant", "content": [{"type": "text", "text": "en to"}]}]
    labelled = tiny_processor.apply_chat_template(told, tokenize=True)
    assert torch.equal(labelled["labels"], tiny_processor(sounds[:1], text=["en to"])["labels"])
    for wrong in (
        [],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": []}],
        [*told, *told],
        [one[0], one[0]],
    ):
        with pytest.raises(ValueError, match="A conversation is a user's turn with one recording"):
            tiny_processor.apply_chat_template(wrong, tokenize=True)
    with pytest.raises(ValueError, match="leave chat_template"):
        tiny_processor.apply_chat_template(one, chat_template="x")
