"""The configuration: pruning by count or list, strict keys, copies."""

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import logging as transformers_logging

from modeling_slam_asr import SlamAsrConfig
from modeling_slam_asr.configuration_slam_asr import kept_layers


@pytest.mark.parametrize(
    ("prune", "kept"),
    [
        (0, [0, 1, 2, 3]),
        (1, [0, 1, 2]),
        (3, [0]),
        ([], [0, 1, 2, 3]),
        ([0, -1], [1, 2]),
        ([2], [0, 1, 3]),
        ((1, 3), [0, 2]),
    ],
)
def test_kept_layers(prune: Any, kept: list[int]) -> None:
    assert kept_layers(prune, 4) == kept


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        (4, "must keep one"),
        (-1, "Choose 0 to 3"),
        (True, "whole number or a list"),
        (1.5, "whole number or a list"),
        ("2", "whole number or a list"),
        ([4], "blocks are 0 to 3"),
        ([-5], "blocks are 0 to 3"),
        ([1, -3], "twice"),
        ([0, 1, 2, 3], "leaves none"),
        ([1.0], "names block 1.0"),
        ([True], "names block True"),
    ],
)
def test_impossible_pruning(prune: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept_layers(prune, 4)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(-n, n - 1), max_size=n - 1))))
def test_kept_and_pruned_are_the_whole(case: tuple[int, set[int]]) -> None:
    layers, pruned = case
    unique = {index % layers: index for index in pruned}
    if len(unique) == layers:
        return
    kept = kept_layers(list(unique.values()), layers)
    assert sorted(kept + list(unique)) == list(range(layers))


def config(**fields: Any) -> SlamAsrConfig:
    audio = {"model_type": "whisper", "encoder_layers": 4, "d_model": 16, "encoder_attention_heads": 2}
    return SlamAsrConfig(audio_config=audio, text_config={"model_type": "llama", "hidden_size": 32}, **fields)


def test_round_trip(tmp_path: Path) -> None:
    first = config(prune_encoder_layers=[1, -1], lora={"r": 4}, prompt="Skriv:\n")
    first.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["kept_encoder_layers"] == [0, 2]
    assert written["prune_encoder_layers"] == [1, -1]
    assert set(written["auto_map"]) >= {"AutoConfig", "AutoModel", "AutoModelForSpeechSeq2Seq", "AutoProcessor"}
    second = SlamAsrConfig.from_pretrained(tmp_path)
    assert second.to_dict() == first.to_dict()


def test_copies_and_pickles() -> None:
    first = config(prune_encoder_layers=1)
    for other in (copy.deepcopy(first), copy.copy(first), pickle.loads(pickle.dumps(first))):
        assert other.to_dict() == first.to_dict()
        assert other.kept_encoder_layers == [0, 1, 2]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("prune_encoder_layer", "prune_encoder_layers"),
        ("projector_typ", "projector_type"),
        ("loraa", "lora"),
        ("zzqqx", None),
    ],
)
def test_unknown_keys_are_errors(key: str, nearest: str | None) -> None:
    with pytest.raises(ValueError, match=f"{key}.*{nearest or 'Leave it out'}"):
        config(**{key: 1})


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match=r"projector_type=.linear. is unknown\. Choose one of concat_linear"):
        config(projector_type="linear")
    with pytest.raises(ValueError, match="checkpoint_form"):
        config(checkpoint_form="merged")
    with pytest.raises(ValueError, match="1 or more"):
        config(projector_downsample_rate=0)
    for name in ("projector_downsample_rate", "projector_hidden_size", "projector_num_queries", "projector_num_layers"):
        for value in (0, -3, 2.5, "64", True):
            with pytest.raises(ValueError, match=f"{name} must be a whole number of 1 or more, got {value!r}"):
                config(**{name: value})
    for value in (0, -1, "25", float("nan")):
        with pytest.raises(ValueError, match=f"max_tokens_per_second must be a number above 0, got {value!r}"):
            config(max_tokens_per_second=value)
    with pytest.raises(ValueError, match="Whisper encoders only"):
        SlamAsrConfig(audio_config={"model_type": "wav2vec2"})
    with pytest.raises(ValueError, match="contradicts itself"):
        config(prune_encoder_layers=1, kept_encoder_layers=[0, 1])


def test_a_file_may_have_keys_of_others(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Training scripts set `pad_token_id`, and programs of the Hub write keys of their own into config.json."""
    made = config()
    made.pad_token_id, made.transformers_js = 7, {"dtype": "q8"}
    made.save_pretrained(tmp_path)
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        loaded = SlamAsrConfig.from_pretrained(tmp_path)
    transformers_logging.disable_propagation()
    assert loaded.pad_token_id == 7 and not hasattr(loaded, "transformers_js")
    assert caplog.text.count("has the key 'transformers_js'") >= 1 and "pad_token_id" not in caplog.text
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**values, "prune_encoder_layer": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="Did you mean 'prune_encoder_layers'"):
        SlamAsrConfig.from_pretrained(tmp_path)
