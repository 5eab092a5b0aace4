"""What transformers' own common model tests ask of a model, where it applies."""

import copy
import inspect
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model

from .conftest import LORA, noise, stir_lora


def forward(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def test_forward_signature_and_output(tiny_model: Any, batch: Any) -> None:
    parameters = list(inspect.signature(tiny_model.forward).parameters)
    assert parameters[:3] == ["input_ids", "attention_mask", "input_features"]
    output = tiny_model(**batch)
    assert output.loss.ndim == 0 and output[0] is output.loss
    assert isinstance(tiny_model.config.to_json_string(), str)
    assert tiny_model.main_input_name == "input_features" and tiny_model.can_generate()
    as_tuple = tiny_model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], output.loss)
    assert torch.equal(as_tuple[1], output.logits)
    states = tiny_model(**batch, output_hidden_states=True).hidden_states
    assert len(states) == tiny_model.config.text_config.num_hidden_layers + 1


def test_determinism_and_no_side_effects(tiny_model: Any, batch: Any) -> None:
    before = {name: value.clone() for name, value in batch.items()}
    assert torch.equal(forward(tiny_model, batch), forward(tiny_model, batch))
    assert all(torch.equal(before[name], value) for name, value in batch.items())


def test_logits_of_labelled_positions_are_those_of_the_whole(tiny_model: Any, batch: Any) -> None:
    with torch.no_grad():
        output = tiny_model(**batch)
        whole = forward(tiny_model, batch)
    positions = (batch["labels"][:, 1:] != -100).any(0).nonzero().squeeze(-1)
    assert torch.allclose(output.logits, whole[:, positions], atol=1e-6)
    expected = torch.nn.functional.cross_entropy(whole[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert torch.allclose(output.loss, expected, atol=1e-6)
    total = tiny_model(**batch, num_items_in_batch=7).loss
    assert torch.allclose(total * 7, expected * (batch["labels"][:, 1:] != -100).sum(), atol=1e-4)


def test_generating_by_hand_equals_generate(tiny_model: Any, tiny_processor: Any) -> None:
    inputs = tiny_processor(noise(0.6))
    generated = tiny_model.generate(**inputs, max_new_tokens=4)
    with torch.no_grad():
        output = tiny_model(**inputs, use_cache=True)
        tokens = []
        for _ in range(generated.shape[1]):
            tokens.append(output.logits[:, -1].argmax(-1, keepdim=True))
            cache = output.get("cache", output.get("past_key_values"))  # the name before transformers 5.24
            output = tiny_model(input_ids=tokens[-1], cache=cache, use_cache=True)
    assert torch.equal(torch.cat(tokens, dim=1), generated)


def test_static_cache(tiny_model: Any, tiny_processor: Any) -> None:
    inputs = tiny_processor([noise(0.6), noise(1.1)])
    expected = tiny_model.generate(**inputs, max_new_tokens=6)
    assert torch.equal(tiny_model.generate(**inputs, max_new_tokens=6, cache_implementation="static"), expected)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compile(backend: str, make_tiny_model: Callable[..., Any], batch: Any) -> None:
    model = make_tiny_model(lora=LORA)
    stir_lora(model)
    expected, loss = forward(model, batch), model(**batch).loss
    compiled = torch.compile(model, backend=backend)
    assert torch.allclose(forward(compiled, batch), expected, atol=1e-5)
    assert torch.allclose(compiled(**batch).loss, loss, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.slow
def test_compile_with_inductor(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    model = make_tiny_model()
    expected = forward(model, batch)
    try:
        actual = forward(torch.compile(model), batch)
    except RuntimeError as error:
        if "compiler" not in str(error).lower():
            raise
        pytest.skip(f"there is no C++ compiler: {error}")
    assert torch.allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("order", ["enable, train", "train, enable"])
def test_gradient_checkpointing(reentrant: bool, order: str, make_tiny_model: Callable[..., Any], batch: Any) -> None:
    """The blocks of the LLM run a second time in the backward pass, though they are frozen and in eval mode."""

    def run(checkpointed: bool) -> tuple[int, dict[str, torch.Tensor]]:
        model = make_tiny_model(lora=LORA, projector_dropout=0.0)
        stir_lora(model)
        for step in order.split(", "):
            if step == "train":
                model.train()
            elif checkpointed:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        blocks = [m for m in model.language_model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for block in blocks:
            block.mlp.register_forward_pre_hook(count)
        model(**batch).loss.backward()
        return calls // len(blocks), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    once, plain = run(checkpointed=False)
    twice, saved = run(checkpointed=True)
    assert (once, twice) == (1, 2)
    assert plain.keys() == saved.keys() and all(torch.allclose(plain[name], saved[name], atol=1e-6) for name in plain)


@pytest.fixture(scope="module")
def dropout_bases(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A Whisper encoder and an OPT whose configurations ask for dropout 0.5 wherever they can."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    encoder, llm = (tmp_path_factory.mktemp("dropout") / name for name in ("whisper", "opt"))
    shutil.copytree(tiny_whisper_encoder_dir, encoder)
    rates = {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5}
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    (encoder / "config.json").write_text(json.dumps({**config, **rates}), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    tokenizer.save_pretrained(llm)
    OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer), hidden_size=32, ffn_dim=64, word_embed_proj_dim=32, num_hidden_layers=2,
            num_attention_heads=4, dropout=0.5, attention_dropout=0.5, activation_function="relu",
        )
    ).save_pretrained(llm)  # fmt: skip
    return encoder, llm


@pytest.mark.parametrize("encoder_lora", [None, LORA], ids=["frozen", "encoder LoRA"])
@pytest.mark.parametrize("checkpointing", ["off", "on", "of the LLM", "reentrant", "on and off"])
def test_frozen_parts_never_apply_dropout(
    checkpointing: str, encoder_lora: Any, dropout_bases: Any, batch: Any
) -> None:
    """Nor when the backward pass repeats a block: the gradients are those of evaluation mode."""
    model = Model.from_base_models(
        *dropout_bases, projector_hidden_size=32, projector_dropout=0.0, lora=LORA, encoder_lora=encoder_lora
    )
    stir_lora(model)
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    loss = model(**batch).loss
    model.zero_grad()
    model.train()
    if checkpointing == "of the LLM":
        model.language_model.activation_checkpointing_enable()
        model.train()
    elif checkpointing != "off":
        model.activation_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    if checkpointing == "on and off":
        model.activation_checkpointing_disable()
        model.train()
    for _ in range(2):
        assert torch.equal(model(**batch).loss, loss)
    model(**batch).loss.backward()
    for name, gradient in expected.items():
        assert torch.allclose(model.get_parameter(name).grad, gradient, atol=1e-6), name


def test_input_require_grads(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    model = make_tiny_model(lora=LORA)
    model.enable_input_require_grads()
    embeddings = model.get_input_embeddings()(batch["input_ids"].clamp(max=5))
    assert embeddings.requires_grad
    model(**batch).loss.backward()
    model.disable_input_require_grads()
    assert not model.get_input_embeddings()(batch["input_ids"].clamp(max=5)).requires_grad


def test_embeddings(make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    model = make_tiny_model()
    assert model.get_input_embeddings() is model.language_model.get_input_embeddings()
    assert model.get_output_embeddings() is model.language_model.get_output_embeddings()
    assert model.get_decoder() is model.language_model.get_decoder()
    expected, size = forward(model, batch), model.config.vocab_size
    resized = model.resize_token_embeddings(size + 7)
    assert resized.weight.shape[0] == size + 7 == model.config.vocab_size == model.config.text_config.vocab_size
    assert torch.allclose(forward(model, batch)[..., :size], expected, atol=1e-6)
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == size + 7
    assert torch.equal(forward(loaded, batch), forward(model, batch))
    assert model.resize_token_embeddings(None, pad_to_multiple_of=64).weight.shape[0] % 64 == 0


def test_the_adapter_form_does_not_lose_resized_embeddings(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny_model()
    size = model.config.vocab_size
    model.resize_token_embeddings(size)
    model.save_pretrained(tmp_path / "same", checkpoint_form="adapter")
    model.resize_token_embeddings(size + 7)
    with pytest.raises(ValueError, match="holds no embeddings, and resize_token_embeddings changed"):
        model.save_pretrained(tmp_path / "changed", checkpoint_form="adapter")
    model.save_pretrained(tmp_path / "whole")
    loaded = Model.from_pretrained(tmp_path / "whole")  # knows nothing of the change
    loaded.save_pretrained(tmp_path / "late", checkpoint_form="adapter")
    with pytest.raises(ValueError, match=f"made with an LLM of {size + 7} tokens, and .* has {size}"):
        Model.from_pretrained(tmp_path / "late")


def test_copies(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    model = make_tiny_model(lora=LORA, prune_encoder_layers=1)
    stir_lora(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(forward(other, batch), forward(model, batch))
    assert pickle.loads(pickle.dumps(model.config)).to_dict() == model.config.to_dict()


def test_from_configuration(make_tiny_model: Callable[..., Any], batch: Any, tmp_path: Path) -> None:
    config = make_tiny_model(lora=LORA).config
    fresh = Model(config)
    assert not fresh.audio_encoder.training and fresh.projector.training
    fresh.eval()
    assert forward(fresh, batch).isfinite().all()
    assert {n for n, p in fresh.named_parameters() if p.requires_grad} == {
        n for n, _ in fresh.named_parameters() if n.startswith("projector.") or "lora_" in n
    }
    fresh.save_pretrained(tmp_path)
    assert torch.equal(forward(Model.from_pretrained(tmp_path), batch), forward(fresh, batch))


def test_whole_gradients(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    """Whoever unfreezes everything gets gradients everywhere: no part computes behind autograd's back."""
    model = make_tiny_model()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    model(**batch).loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_seq2seq_trainer_generates(make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path) -> None:
    """It writes the library's `max_length` of 20 into the model's configuration, which must not cut transcripts."""
    model = make_tiny_model()
    model.generation_config.suppress_tokens = [0, 2]
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(
            str(tmp_path), predict_with_generate=True, use_cpu=True, report_to=[], remove_unused_columns=False
        ),
        eval_dataset=[{"seconds": 0.2}, {"seconds": 2.0}],
        data_collator=lambda rows: tiny_processor([noise(row["seconds"]) for row in rows], text=["en"] * len(rows)),
        processing_class=tiny_processor,
    )
    for one in ([trainer.eval_dataset[0]], trainer.eval_dataset):  # less than 20 tokens are filled up
        predictions = trainer.predict(one).predictions
    assert model.generation_config.max_length == 20 < predictions.shape[1]
    trainer.save_model(str(tmp_path))
    assert Model.from_pretrained(tmp_path).generation_config.max_length is None


def test_clear_errors(tiny_model: Any, batch: Any) -> None:
    with pytest.raises(ValueError, match="forward needs input_ids"):
        tiny_model(input_features=batch["input_features"])
    with pytest.raises(ValueError, match="generate needs input_ids"):
        tiny_model.generate(input_features=batch["input_features"])
    with pytest.raises(ValueError, match="placeholders but there is no audio"):
        tiny_model(input_ids=batch["input_ids"])
    short = {
        **batch,
        "input_features": batch["input_features"][..., :20],
        "input_features_mask": batch["input_features_mask"][:, :20],
    }
    with pytest.raises(ValueError, match=r"has \[13, 4\] audio placeholders a row, but the audio gives \[2, 2\]"):
        tiny_model(**short)


def test_half_precision_trains(make_tiny_model: Callable[..., Any], batch: Any) -> None:
    model = make_tiny_model(dtype=torch.bfloat16, lora=LORA).train()
    loss = model(**batch).loss
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.projector.float()  # the projector may be kept in float32 beside a bfloat16 LLM
    assert model(**batch).loss.isfinite()


def test_a_batch_to_train_on_is_transcribed_without_its_transcripts(tiny_model: Any, tiny_processor: Any) -> None:
    sounds = [noise(1.3, 1), noise(0.4, 2)]
    plain = tiny_processor(sounds)
    labelled = tiny_processor(sounds, text=["en to", "tre fire fem"])
    expected = tiny_model.generate(**plain, max_new_tokens=6)
    assert torch.equal(tiny_model.generate(**labelled, max_new_tokens=6), expected)
    del labelled["attention_mask"]
    one = tiny_processor(sounds[:1], text=["en to"])
    del one["attention_mask"]
    assert torch.equal(tiny_model.generate(**one, max_new_tokens=6)[0], expected[0])


def test_layers_that_stay_whole_are_in_the_model(tiny_model: Any) -> None:
    """FSDP shards by these names unless others are given, and refuses the name of a layer that is not there."""
    assert tiny_model._no_split_modules == {"LlamaDecoderLayer", "WhisperEncoderLayer"}


def test_data_parallel_is_refused_in_words(tiny_model: Any) -> None:
    with pytest.raises(RuntimeError, match="Start one process a GPU"):
        tiny_model.audio_encoder._replicate_for_data_parallel()  # as torch's `replicate` does of each part
