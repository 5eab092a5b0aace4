"""Pretraining: the tasks' data, a short real run that learns, resumption, and what is saved."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperConfig, WhisperFeatureExtractor

from benchmarks.embedded_bases import pretrain, pretrain_encoder, pretrain_lm
from benchmarks.embedded_bases.pretrain_common import Muon, schedule, training_loop
from benchmarks.embedded_bases.pretrain_features import feature_extractor, log_mel, utterance_features
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.embedded.sentences import LANGUAGES, generate_sentences
from trainers.errors import UserError

ENCODER = [
    "--d-model",
    "32",
    "--layers",
    "2",
    "--heads",
    "2",
    "--ffn-dim",
    "64",
    "--intermediate-layer",
    "1",
    "--utterances",
    "12",
    "--batch-size",
    "4",
]
LM = [
    "--hidden-size",
    "48",
    "--layers",
    "2",
    "--heads",
    "2",
    "--ffn-dim",
    "96",
    "--vocab-size",
    "400",
    "--sentences",
    "200",
]


def test_features_are_whole_tenths_of_a_second() -> None:
    features = log_mel(feature_extractor(), np.random.default_rng(0).standard_normal(16_001).astype(np.float32))
    assert features.shape == (80, 110)


def test_feature_shards_are_used_again(tmp_path: Path) -> None:
    first = utterance_features(tmp_path, "validation", 6, 0, processes=1)
    (shard,) = tmp_path.rglob("*.safetensors")
    changed = shard.stat().st_mtime_ns
    second = utterance_features(tmp_path, "validation", 6, 0, processes=1)
    assert shard.stat().st_mtime_ns == changed
    for (item, array), (other, same) in zip(first, second, strict=True):
        assert item == other
        np.testing.assert_array_equal(array, same)
    assert [item.language for item, _ in first[:3]] == list(LANGUAGES)


def test_ctc_text_round_trip() -> None:
    ids = pretrain_encoder.encode_text("aan zee")
    with_blanks = [symbol for value in ids for symbol in (value, value, 0)]
    assert pretrain_encoder.decode_greedy(with_blanks) == "aan zee"
    assert pretrain_encoder.decode_greedy([1, 1, 2, 0, 2]) == "abb"


def test_batches_hold_every_utterance_once_a_pass() -> None:
    plan = pretrain_encoder.BatchPlan([100 + index % 7 * 30 for index in range(24)], 4, 0)
    passes = [sorted(index for step in range(6 * turn, 6 * turn + 6) for index in plan[step]) for turn in range(2)]
    assert passes == [list(range(24))] * 2
    assert plan[0] == pretrain_encoder.BatchPlan([100 + index % 7 * 30 for index in range(24)], 4, 0)[0]


def test_noise_and_kinds_of_prefix() -> None:
    texts = generate_sentences("nl", "pretrain", 40)
    tokenizer = pretrain_lm.train_tokenizer(texts, 400)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts] == texts
    task = pretrain_lm.CopyTask(tokenizer, pretrain_lm.LmSettings(max_noise=0.0))
    lengths = {}
    for kind in pretrain_lm.PREFIX_SHARES:
        batch = task.batch(texts[:1], random.Random(0), kind)
        lengths[kind] = batch.first.shape[1]
        kept = batch.labels[0][batch.labels[0] != pretrain_lm.IGNORED]
        assert tokenizer.decode(kept) == f"{texts[0]}</s>"
        assert (batch.first != batch.second).any() == (kind == "blends")
    assert lengths["letters"] > lengths["blends"] > lengths["none"]
    assert pretrain_lm.add_noise(texts[0], 0.0, random.Random(0)) == texts[0]
    assert pretrain_lm.add_noise(texts[0], 0.1, random.Random(0)) != texts[0]


def test_schedule_rises_and_falls() -> None:
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] < rates[3] <= 1.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=0.01)


def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    def train(steps_now: int, path: Path) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
        training = training_loop(
            model,
            lambda name: name == "0.weight",
            steps=10,
            learning_rate=0.05,
            weight_decay=0.0,
            checkpoint=path,
            description="test",
        )
        training.save_seconds = 0.0

        def loss(step: int) -> torch.Tensor:
            if step >= steps_now:
                raise KeyboardInterrupt
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

        try:
            training.run(loss)
        except KeyboardInterrupt:
            assert training.step == steps_now
        return torch.cat([value.flatten() for value in model.parameters()])

    whole = train(10, tmp_path / "whole.pt")
    train(4, tmp_path / "parts.pt")
    torch.testing.assert_close(train(10, tmp_path / "parts.pt"), whole)


def test_encoder_pretraining_learns_and_saves(tmp_path: Path) -> None:
    scratch = ["--scratch", str(tmp_path / "scratch"), "--threads", "1"]
    short = ["--measured", "6", "--learning-rate", "0.01", *ENCODER, *scratch]
    before = pretrain.main(["encoder", "--output", str(tmp_path / "a"), "--steps", "1", *short])["result"]
    after = pretrain.main(["encoder", "--output", str(tmp_path / "b"), "--steps", "30", *short])["result"]
    assert after["train_loss"] < 0.8 * before["train_loss"]
    assert set(after["test_cer"]) == set(LANGUAGES)
    folder = tmp_path / "b"
    config = WhisperConfig.from_pretrained(folder)
    assert (config.encoder_layers, config.d_model, config.model_type) == (2, 32, "whisper")
    assert WhisperFeatureExtractor.from_pretrained(folder).feature_size == 80
    tensors = load_file(folder / "model.safetensors")
    assert all(name.startswith("model.encoder.") for name in tensors)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    encoder = SlamAsrEncoder(config)
    encoder.load_state_dict(
        {name.removeprefix("model.encoder."): value for name, value in tensors.items()}, strict=True
    )
    assert json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))["settings"]["steps"] == 30


def test_encoder_pretraining_goes_on_from_a_saved_encoder(tmp_path: Path) -> None:
    scratch = ["--scratch", str(tmp_path / "scratch"), "--threads", "1", "--measured", "6", *ENCODER]
    first, second = tmp_path / "a", tmp_path / "b"
    pretrain.main(["encoder", "--output", str(first), "--steps", "3", *scratch])
    pretrain.main(
        ["encoder", "--output", str(second), "--steps", "1", "--learning-rate", "0", "--start", str(first), *scratch]
    )
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_a_second_loss_beyond_the_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--intermediate-layer 2 must lie below --layers 2"):
        pretrain.main(
            ["encoder", "--output", str(tmp_path), "--scratch", str(tmp_path), *ENCODER, "--intermediate-layer", "2"]
        )


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_muon_in_float32_follows_torch(shape: tuple[int, int]) -> None:
    """PyTorch's iterates in bfloat16, so its steps differ by a bfloat16's rounding and no more."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    gradients = [torch.randn(shape, generator=generator) for _ in range(3)]
    found = []
    for kind, options in ((Muon, {}), (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"})):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.1, **options)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        found.append(weight.detach() - start)
    assert found[0].abs().max() > 0.05
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=0.01)


def test_lm_pretraining_learns_and_saves(tmp_path: Path) -> None:
    arguments = ["--scratch", str(tmp_path / "scratch"), "--threads", "1", "--measured", "6", "--batch-size", "8"]
    arguments += ["--learning-rate", "0.02", *LM]
    before = pretrain.main(["lm", "--output", str(tmp_path / "a"), "--steps", "1", *arguments])["result"]["loss"]
    after = pretrain.main(["lm", "--output", str(tmp_path / "b"), "--steps", "40", *arguments])["result"]["loss"]
    for language in LANGUAGES:
        assert after[language]["none"] < 0.9 * before[language]["none"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert model.dtype == torch.float16
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id == model.config.pad_token_id
    text = "één kop koffie på øen"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
