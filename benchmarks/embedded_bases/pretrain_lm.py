"""
Pretraining of the embedded default's language model: a small Llama that can be prompted by soft embeddings.

A large LLM copies what stands in its context; projector-only SLAM-ASR lives on that ability. A tiny LM that has only
read sentences lacks it. So most sequences here are a noisy copy of a sentence in small pieces, then the prompt, then the
sentence: the LM learns to read a garbled prefix and to write the sentence. The prefix's vectors are single pieces or
blends of two neighbours, since a projector's frame may also hold parts of two.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.embedded_bases.pretrain_common import seconds_and_machine, training_loop
from trainers.embedded.sentences import LANGUAGES, generate_sentences

PROMPT = "Transcribe speech to text.\n"
LETTERS = "abcdefghijklmnopqrstuvwxyzæøåë' "
IGNORED = -100
# What stands before the prompt: nothing, letters, pieces of one to three letters, or blends of two letters.
PREFIX_SHARES = {"none": 0.15, "letters": 0.25, "pieces": 0.25, "blends": 0.35}


@dataclasses.dataclass(frozen=True)
class LmSettings:
    """Everything that decides the language model, besides the code."""

    hidden_size: int = 192
    layers: int = 4
    heads: int = 4
    ffn_dim: int = 512
    vocab_size: int = 1024
    sentences: int = 20_000  # a language
    steps: int = 800
    batch_size: int = 40
    max_noise: float = 0.12
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    bf16: bool = False
    measured: int = 200  # sentences a language to measure on
    seed: int = 0


def pretrain_lm(output: Path, scratch: Path, settings: LmSettings) -> dict[str, Any]:
    """
    Train, save and measure the LM and its tokenizer.

    Args:
        output: folder for save_pretrained's files (fp16 safetensors) and the tokenizer's.
        scratch: folder for checkpoints; a second call with the same settings goes on where the first ended.
    Returns:
        mean loss a token (nats) on unseen sentences, by language and kind of prefix; seconds.
    """
    torch.manual_seed(settings.seed)
    texts = [
        text
        for language in LANGUAGES
        for text in generate_sentences(language, "pretrain", settings.sentences, settings.seed)
    ]
    tokenizer = train_tokenizer(texts, settings.vocab_size)
    model = LlamaForCausalLM(lm_config(settings, tokenizer))
    # As long as the vectors of a projector that ends in a LayerNorm, within a small factor.
    nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
    training = training_loop(
        model,
        lambda name: "model.layers." in name,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        checkpoint=scratch / f"lm-{settings.layers}x{settings.hidden_size}-{settings.steps}-{settings.seed}.pt",
        description="language model",
    )
    task = CopyTask(tokenizer, settings)
    model.train()

    def loss_of_step(step: int) -> torch.Tensor:
        rng = random.Random(f"{settings.seed}/{step}")
        batch = task.batch(rng.sample(texts, settings.batch_size), rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            return copy_loss(model, batch)

    training.run(loss_of_step)
    output.mkdir(parents=True, exist_ok=True)
    result = {**seconds_and_machine(training.seconds), "loss": measure(model, task, settings.measured, settings.seed)}
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)
    return result


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that no text is unknown. The end token is not the padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The prompt often enough that its words become single pieces.
    tokenizer.train_from_iterator([*texts, *[PROMPT] * (len(texts) // 20)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def lm_config(settings: LmSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.ffn_dim,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )


@dataclasses.dataclass
class CopyBatch:
    """Two ids a position (equal outside blends), the first one's weight, mask and labels; all `(batch, length)`."""

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


class CopyTask:
    """Makes sequences: noisy pieces of the sentence (or nothing), the prompt, the sentence, the end token."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: LmSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.prompt = self._encode(PROMPT)
        self._pieces: dict[str, list[int]] = {}

    def batch(self, texts: Sequence[str], rng: random.Random, kind: str | None = None) -> CopyBatch:
        """One kind of prefix for the whole batch (drawn when None), so that its rows are of like length."""
        if kind is None:
            kind = rng.choices(list(PREFIX_SHARES), list(PREFIX_SHARES.values()))[0]
        rows = [self._row(text, rng, kind) for text in texts]
        length = max(len(row[0]) for row in rows)
        fillers = (self.tokenizer.pad_token_id, self.tokenizer.pad_token_id, 1.0, IGNORED)
        columns = [
            torch.tensor([row[column] + [filler] * (length - len(row[column])) for row in rows])
            for column, filler in enumerate(fillers)
        ]
        mask = torch.tensor([[1] * len(row[0]) + [0] * (length - len(row[0])) for row in rows])
        return CopyBatch(columns[0], columns[1], columns[2], mask, columns[3])

    def _row(self, text: str, rng: random.Random, kind: str) -> tuple[list[int], list[int], list[float], list[int]]:
        first, second, weight = self._prefix(text, rng, kind)
        target = [*self._encode(text), self.tokenizer.eos_token_id]
        tail = [*self.prompt, *target]
        labels = [IGNORED] * (len(first) + len(self.prompt)) + target
        return first + tail, second + tail, weight + [1.0] * len(tail), labels

    def _prefix(self, text: str, rng: random.Random, kind: str) -> tuple[list[int], list[int], list[float]]:
        if kind == "none":
            return [], [], []
        noisy = add_noise(text, rng.uniform(0.0, self.settings.max_noise), rng)
        longest = 3 if kind == "pieces" else 1
        ids: list[int] = []
        position = 0
        while position < len(noisy):
            size = rng.randint(1, longest)
            ids += self._piece(noisy[position : position + size])
            position += size
        if kind != "blends":
            return ids, ids, [1.0] * len(ids)
        # Unequal weights keep the order of the two readable.
        ids += ids[-1:] * (len(ids) % 2)
        return ids[::2], ids[1::2], [0.65] * (len(ids) // 2)

    def _piece(self, piece: str) -> list[int]:
        if piece not in self._pieces:
            self._pieces[piece] = self._encode(piece)
        return self._pieces[piece]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def add_noise(text: str, rate: float, rng: random.Random) -> str:
    """Drop, replace and double each character with probability `rate` each."""
    noisy = ""
    for character in text:
        chance = rng.random()
        if chance < rate:
            continue
        if chance < 2 * rate:
            character = rng.choice(LETTERS)
        elif chance < 3 * rate:
            character *= 2
        noisy += character
    return noisy or text


def copy_loss(model: LlamaForCausalLM, batch: CopyBatch) -> torch.Tensor:
    """Mean loss (nats) a token of the sentences and their end tokens."""
    table = model.model.embed_tokens
    weight = batch.weight[..., None]
    embeddings = weight * table(batch.first) + (1 - weight) * table(batch.second)
    hidden = model.model(inputs_embeds=embeddings, attention_mask=batch.mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = batch.labels[:, 1:]
    kept = wanted != IGNORED
    return nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), wanted[kept])


@torch.no_grad()
def measure(model: LlamaForCausalLM, task: CopyTask, count: int, seed: int) -> Mapping[str, Mapping[str, float]]:
    """Loss a token on `count` unseen (validation) sentences of each language: by what stands before the prompt."""
    model.eval()
    result: dict[str, dict[str, float]] = {}
    for language in LANGUAGES:
        texts = generate_sentences(language, "validation", count, seed)
        result[language] = {
            kind: round(float(copy_loss(model, task.batch(texts, random.Random(seed), kind))), 4)
            for kind in PREFIX_SHARES
        }
    return result
