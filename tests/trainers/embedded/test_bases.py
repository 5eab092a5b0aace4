"""The shipped base models: they load, they fit, they are safetensors only, and their quality is on record."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperConfig

from benchmarks.embedded_bases.pretrain import BASES
from benchmarks.embedded_bases.pretrain_lm import PROMPT
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.embedded.sentences import LANGUAGES, generate_sentences

MAX_BYTES = 16_000_000


def record(base: str) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(
        (BASES / base / "pretraining.json").read_text(encoding="utf-8")
    )
    return found


def test_size_and_formats() -> None:
    files = [path for path in BASES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    for path in BASES.rglob("*.safetensors"):
        assert {value.dtype for value in load_file(path).values()} == {torch.float16}


def test_encoder_loads() -> None:
    config = WhisperConfig.from_pretrained(BASES / "encoder")
    assert config.encoder_layers >= 8
    encoder = SlamAsrEncoder(config)
    tensors = load_file(BASES / "encoder" / "model.safetensors")
    encoder.load_state_dict(
        {name.removeprefix("model.encoder."): value for name, value in tensors.items()}, strict=True
    )
    states = encoder.eval()(torch.zeros(1, 80, 40)).last_hidden_state
    assert states.shape == (1, 20, config.d_model)
    assert torch.isfinite(states).all()


def test_lm_loads_and_knows_where_sentences_end() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASES / "lm", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASES / "lm")
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(tokenizer(PROMPT)["input_ids"]) <= 8
    for language in LANGUAGES:
        for text in generate_sentences(language, "test", 20):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    exact = 0
    texts = [text for language in LANGUAGES for text in generate_sentences(language, "test", 8)]
    for text in texts:
        letters = [token for letter in text for token in tokenizer(letter)["input_ids"]]
        start = torch.tensor([[*letters, *tokenizer(PROMPT)["input_ids"]]])
        mask = torch.ones_like(start)
        said = model.generate(start, attention_mask=mask, max_new_tokens=60, do_sample=False)[0, start.shape[1] :]
        assert said[-1] == tokenizer.eos_token_id
        exact += tokenizer.decode(said, skip_special_tokens=True) == text
    assert exact > len(texts) / 2


@pytest.mark.parametrize("base", ["encoder", "lm"])
def test_measured_quality_is_beside_the_model(base: str) -> None:
    result = record(base)["result"]
    if base == "encoder":
        assert all(0.0 < result["test_cer"][language] < 0.25 for language in LANGUAGES)
    else:
        assert all(result["loss"][language]["letters"] < result["loss"][language]["none"] for language in LANGUAGES)
    readme = (BASES / "README.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.embedded_bases.pretrain" in readme
