"""LLM families, as tiny random ones: they learn, save, load and transcribe, with LoRA and without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
from modeling_slam_asr import SlamAsrProcessor

from .conftest import LORA, noise, stir_lora

SMALL = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
NEOX = {name: value for name, value in SMALL.items() if name not in ("num_key_value_heads", "head_dim")}
GPT2 = {
    "vocab_size": 300,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
# name: (model type, configuration, special tokens that the tokenizer has, whether it writes BOS by itself)
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], bool]] = {
    "qwen2": ("qwen2", {**SMALL, "tie_word_embeddings": True}, ("eos", "pad"), False),
    "qwen2 untied": ("qwen2", {**SMALL, "tie_word_embeddings": False}, ("eos", "pad"), False),
    "qwen3": ("qwen3", {**SMALL, "tie_word_embeddings": True}, ("eos", "pad"), False),
    "llama": ("llama", {**SMALL, "tie_word_embeddings": False}, ("bos", "eos"), True),
    "smollm3": ("smollm3", {**SMALL, "tie_word_embeddings": True}, ("bos", "eos", "pad"), False),
    "gemma2": ("gemma2", SMALL, ("bos", "eos", "pad"), True),
    "gemma3": ("gemma3_text", SMALL, ("bos", "eos", "pad"), True),
    "mistral": ("mistral", {**SMALL, "tie_word_embeddings": False}, ("bos", "eos"), True),
    "phi3": ("phi3", {**SMALL, "num_key_value_heads": 4, "tie_word_embeddings": False}, ("bos", "eos", "pad"), True),
    "gpt_neox": ("gpt_neox", NEOX, ("bos", "eos"), False),
    "gpt2": ("gpt2", GPT2, ("eos",), False),
}
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(special: tuple[str, ...], writes_bos: bool) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["Transcribe speech to text.\n en to tre"] * 5, trainer)
    if writes_bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, chat_template=TEMPLATE, **{f"{name}_token": names[name] for name in special}
    )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    model_type, fields, special, writes_bos = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("llm") / model_type
    torch.manual_seed(11)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**fields)).save_pretrained(folder)
    tokenizer(special, writes_bos).save_pretrained(folder)
    return request.param, folder


def train(model: Any, batch: Any, steps: int = 12) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.parametrize("lora", [None, LORA])
def test_family(lora: Any, family: tuple[str, Path], tiny_whisper_encoder_dir: Path, tmp_path: Path) -> None:
    name, llm = family
    torch.manual_seed(12)
    model = Model.from_base_models(
        tiny_whisper_encoder_dir, llm, lora=lora, projector_hidden_size=32, projector_dropout=0.0
    )
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm))
    waves, texts = [noise(0.9, 1), noise(0.4, 2)], ["en to", "tre"]
    batch = processor(waves, text=texts)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    losses = train(model, batch)
    assert losses[-1] < losses[0] - 0.03 and max(losses[1:]) < losses[0], losses
    assert all(torch.equal(frozen[n], p) for n, p in model.named_parameters() if n in frozen)

    # A batch, padded at either side, computes as each utterance alone does.
    with torch.no_grad():
        for side in ("left", "right"):
            both = processor(waves, text=texts, padding_side=side)
            alone = [model(**processor(wave, text=text)).loss for wave, text in zip(waves, texts, strict=True)]
            counts = [(processor(w, text=t)["labels"] != -100).sum() for w, t in zip(waves, texts, strict=True)]
            mean = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
            assert model(**both).loss == pytest.approx(mean.item(), abs=1e-4)

    request = processor(waves)
    expected = model.generate(**request, max_new_tokens=5)
    assert expected.shape[0] == 2 and expected.shape[1] <= 5
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.generate(**request, max_new_tokens=4, num_beams=2).shape[0] == 2
    with torch.no_grad():
        reference = model(**request).logits
    for form, options in (
        ("adapter", {"checkpoint_form": "adapter"}), ("standalone", {}), ("merged", {"merge_lora": True}),
    ):  # fmt: skip
        model.save_pretrained(tmp_path / form, **options)
        processor.save_pretrained(tmp_path / form)
        loaded = Model.from_pretrained(tmp_path / form)
        again = SlamAsrProcessor.from_pretrained(tmp_path / form)(waves)
        with torch.no_grad():
            # Tied weights that LoRA is merged next to, and other orders of summation, cost the last digits.
            assert torch.allclose(loaded(**again).logits, reference, atol=1e-4 if form == "merged" else 1e-5), (
                name,
                form,
            )
        assert torch.equal(loaded.generate(**again, max_new_tokens=5), expected)
    if lora is None:
        assert loaded.get_output_embeddings() is not None
        tied = loaded.get_input_embeddings().weight.data_ptr() == loaded.get_output_embeddings().weight.data_ptr()
        assert tied == bool(loaded.config.text_config.tie_word_embeddings)


@pytest.mark.parametrize("projector", ["concat_linear", "conv1d"])
def test_ctc_head(projector: str, family: tuple[str, Path], tiny_whisper_encoder_dir: Path, tmp_path: Path) -> None:
    """The head reads any LLM's embeddings where they are: tied or not, scaled or not, behind either kind of projector."""
    _, llm = family
    torch.manual_seed(13)
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm), projector_type=projector)
    waves, texts = [noise(0.9, 1), noise(0.4, 2)], ["en to", "tre"]
    batch, tokens = (
        processor(waves, text=texts),
        sorted({t for text in texts for t in processor.transcript_ids(text)[:-1]}),
    )
    settings = {"projector_type": projector, "projector_hidden_size": 32, "projector_dropout": 0.0}
    plain = Model.from_base_models(tiny_whisper_encoder_dir, llm, **settings)
    model = Model.from_base_models(
        tiny_whisper_encoder_dir, llm, projector_ctc=True, projector_ctc_tokens=tokens, **settings
    )
    sizes = [sum(p.numel() for p in each.projector.parameters()) for each in (model, plain)]
    assert sizes[0] - sizes[1] == model.get_input_embeddings().weight.shape[1] + 2
    losses = train(model, {**batch, "ctc_weight": 1.0}, steps=20)
    assert losses[-1] < 0.7 * losses[0], losses
    request = processor(waves)
    greedy = model.generate(**request, ctc_only=True)
    assert set(greedy.flatten().tolist()) <= {
        *tokens,
        *[t for t in [processor.tokenizer.eos_token_id] if t is not None],
    }
    for form in ("adapter", "standalone"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form)
        loaded = Model.from_pretrained(tmp_path / form).eval()
        with torch.no_grad():
            assert loaded(**batch, ctc_weight=1.0).loss == pytest.approx(
                model(**batch, ctc_weight=1.0).loss.item(), abs=1e-5
            )
        assert torch.equal(loaded.generate(**request, ctc_only=True), greedy)
    one = processor(waves[:1])
    drafted = model.generate(**one, ctc_draft=True, max_new_tokens=6)
    assert torch.equal(drafted, model.generate(**one, ctc_draft=False, max_new_tokens=6))


def test_order_of_the_sequence(family: tuple[str, Path], tiny_whisper_encoder_dir: Path) -> None:
    """BOS where the tokenizer writes one, audio, prompt, transcript, end token; the loss on the last two."""
    name, llm = family
    writes_bos = FAMILIES[name][3]
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm))
    ids = processor(noise(0.5), text="en to")["input_ids"][0].tolist()
    labels = processor(noise(0.5), text="en to")["labels"][0].tolist()
    tokenizer = processor.tokenizer
    text = tokenizer("Transcribe speech to text.\n", add_special_tokens=False).input_ids
    transcript = [*tokenizer("en to", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    assert ids == [1] * writes_bos + [processor.audio_token_id] * 5 + text + transcript
    assert labels == [-100] * (len(ids) - len(transcript)) + transcript


def test_prompts(tiny_whisper_encoder_dir: Path, family: tuple[str, Path]) -> None:
    """Language, context and chat template change the text round the audio."""
    name, llm = family
    processor = SlamAsrProcessor.from_base_models(
        str(tiny_whisper_encoder_dir), str(llm), language_prompt="Transcribe the {language} speech.\n"
    )

    def text(**options: Any) -> str:
        ids = processor.apply_transcription_request(noise(0.3), **options)["input_ids"][0]
        return processor.tokenizer.decode([i for i in ids.tolist() if i != processor.audio_token_id])

    bos = "<s>" if FAMILIES[name][3] else ""
    assert text() == bos + "Transcribe speech to text.\n"
    assert text(language="nl") == bos + "Transcribe the Dutch speech.\n"
    assert text(language="dutch") == bos + "Transcribe the Dutch speech.\n"
    assert text(language="Frisian") == bos + "Transcribe the Frisian speech.\n"
    assert text(prompt="Skriv:") == bos + "Skriv:"
    assert text(context="Aarhus, Odense") == bos + "Context: Aarhus, Odense\nTranscribe speech to text.\n"

    chat = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm), use_chat_template=True)
    ids = chat.apply_transcription_request(noise(0.3))["input_ids"][0].tolist()
    first, last = ids.index(chat.audio_token_id), len(ids) - ids[::-1].index(chat.audio_token_id)
    assert chat.tokenizer.decode(ids[:first]) == "<|user|>"
    assert chat.tokenizer.decode(ids[last:]) == "Transcribe speech to text.\n</s><|assistant|>"


def test_embeddings_of_audio_are_not_scaled(tiny_whisper_encoder_dir: Path, family: tuple[str, Path]) -> None:
    """Gemma scales the embeddings of tokens; those of audio must reach the LLM as the projector gives them."""
    _, llm = family
    model = Model.from_base_models(tiny_whisper_encoder_dir, llm, projector_hidden_size=32)
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm))
    inputs = processor(noise(0.5))
    seen: list[torch.Tensor] = []
    first = next(m for n, m in model.language_model.named_modules() if n.endswith((".layers.0", ".h.0")))
    handle = first.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
        audio = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
        text = model.get_input_embeddings()(inputs["input_ids"][:, -1])
    handle.remove()
    placeholders = inputs["input_ids"][0] == processor.audio_token_id
    if model.config.text_config.model_type != "gpt2":  # which adds positions first
        assert torch.allclose(seen[0][0][placeholders], audio, atol=1e-5)
        assert torch.allclose(seen[0][0][-1], text[0], atol=1e-5)


def test_lora_on_the_default_targets(family: tuple[str, Path], tiny_whisper_encoder_dir: Path) -> None:
    name, llm = family
    model = Model.from_base_models(tiny_whisper_encoder_dir, llm, lora={"r": 2}, projector_hidden_size=32)
    stir_lora(model)
    wanted = {"gpt2": {"c_attn"}, "gpt_neox": {"query_key_value"}, "phi3": {"qkv_proj", "o_proj"}}.get(
        name, {"q_proj", "k_proj", "v_proj", "o_proj"}
    )
    assert set(model.config.lora["target_modules"]) == wanted


def test_an_llm_that_cannot_generate_from_embeddings(tiny_whisper_encoder_dir: Path, tmp_path: Path) -> None:
    """Gemma 3 from 4B on sees too, and keeps its text's settings in a configuration of their own."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    fields = {"text_config": SMALL, "vision_config": {**vision, "image_size": 28, "patch_size": 14}}
    config = CONFIG_MAPPING["gemma3"](**fields, mm_tokens_per_image=4)
    assert Model.config_class(text_config=config.to_dict()).vocab_size == SMALL["vocab_size"]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Gemma3ForConditionalGeneration cannot generate from embeddings"):
        Model.from_base_models(tiny_whisper_encoder_dir, tmp_path)


def test_an_llm_that_reads_in_both_directions(tiny_whisper_encoder_dir: Path, tmp_path: Path) -> None:
    config = CONFIG_MAPPING["bert"](
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=99
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertLMHeadModel reads text in both directions"):
        Model.from_base_models(tiny_whisper_encoder_dir, tmp_path)
