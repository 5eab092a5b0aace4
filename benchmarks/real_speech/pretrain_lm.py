"""Pretrain the small causal language model of the real-speech benchmark: plain sentences and noisy copying.

    python -m benchmarks.real_speech.pretrain_lm --text TEXT_DIR --exclude SPEECH_DIR --output-dir LM_DIR

`TEXT_DIR` holds `<language>.txt`, one sentence a line. Lines that stand as a transcript in any split other than `train`
of an AudioFolder below `SPEECH_DIR` are removed. `LM_DIR` becomes a plain transformers folder; a second call with the
same arguments goes on where the first one stopped.
"""

import argparse
import functools
import json
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.embedded_bases.pretrain_common import Muon
from benchmarks.real_speech.noisy_copy import (
    HELD_OUT,
    Example,
    ExampleMaker,
    ExamplePool,
    held_back_transcripts,
    held_out_and_rest,
    read_lines,
    train_tokenizer,
)
from trainers.errors import UserError
from trainers.files import replacing, write_json


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """10.0 M parameters at a vocabulary of 768.

    The tied embeddings start with a standard deviation of 0.5, near the scale of a projector that ends in a LayerNorm;
    the final norm starts at 0.03, so that the first logits are small.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=896,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The fused CPU kernel's backward pass is three times slower on short sequences.
    model: LlamaForCausalLM = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model


def unit_scale_state(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """The weights of an equal model whose embeddings have a root mean square of 1.

    A projector that ends in a LayerNorm writes vectors of that size. Every reader of the residual stream normalises it, so
    the embeddings and all that is added to them may be multiplied by one number; the final norm divides by it, for the
    tied output layer.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scale = 1.0 / state["model.embed_tokens.weight"].square().mean().sqrt()
    for name, tensor in state.items():
        if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
            tensor *= scale
        elif name == "model.norm.weight":
            tensor /= scale
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


@functools.cache
def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones, found by trying."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(512, 384, dtype=dtype), torch.ones(384, 384, dtype=dtype)
        left @ right
        started = time.process_time()
        for _ in range(5):
            left @ right
        seconds[dtype] = time.process_time() - started
    return seconds[torch.bfloat16] < seconds[torch.float32]


def batch_loss(model: LlamaForCausalLM, batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token losses and whether each belongs to a copy example.

    Padding stands on the right, so a causal model needs no mask; logits are made at the loss positions only.
    """
    width = max(len(example.tokens) for example in batch)
    tokens = torch.zeros(len(batch), width, dtype=torch.long)
    wanted = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        tokens[row, : len(example.tokens)] = torch.tensor(example.tokens)
        wanted[row, example.start : len(example.tokens)] = True
    copies = torch.tensor([example.copy for example in batch]).unsqueeze(1).expand(-1, width)[wanted]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1][wanted[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), tokens[wanted], reduction="none"), copies


class Optimizers:
    """Muon for the blocks' matrices, AdamW for the embeddings and the norms."""

    def __init__(self, model: LlamaForCausalLM, lr: float) -> None:
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
        others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
        self.muon = Muon(matrices, lr=2.5 * lr, weight_decay=0.01)
        self.muon.iteration_dtype = torch.bfloat16 if bfloat16_pays() else torch.float32
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.rates = {self.muon: 2.5 * lr, self.adamw: lr}

    def step(self, factor: float) -> None:
        for optimizer, rate in self.rates.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


@torch.no_grad()
def copy_errors(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, maker: ExampleMaker, lines: list[str], noise: float
) -> dict[str, float]:
    """Greedy copying of `lines`: character error rate and the share of lines copied without an error."""
    errors = characters = exact = 0
    examples = [maker.copy(line, random.Random(line), noise=noise) for line in lines]
    order = sorted(range(len(lines)), key=lambda i: examples[i].start)
    for first in range(0, len(order), 25):
        chunk = order[first : first + 25]
        heads = [examples[i].tokens[: examples[i].start] for i in chunk]
        width = max(map(len, heads))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(head)) + head for head in heads])
        mask = torch.tensor([[0] * (width - len(head)) + [1] * len(head) for head in heads])
        output: Any = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=100, do_sample=False)  # type: ignore[misc]
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for i, text in zip(chunk, texts, strict=True):
            errors += Levenshtein.distance(lines[i], text)
            characters += len(lines[i])
            exact += lines[i] == text
    return {"cer": round(errors / characters, 4), "exact": round(exact / len(lines), 4)}


@torch.no_grad()
def evaluate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    maker: ExampleMaker,
    held_out: dict[str, list[str]],
    lines: int,
) -> dict[str, dict[str, float]]:
    """On held-out lines of each language: perplexity a token, bits a character, and copying with and without noise."""
    model.eval()
    clean = ExampleMaker(tokenizer, maker.letters, vary_pace=False)
    report = {}
    for language, sentences in held_out.items():
        examples = sorted((maker.plain(sentence) for sentence in sentences), key=lambda e: len(e.tokens))
        losses = torch.cat([batch_loss(model, examples[i : i + 50])[0] for i in range(0, len(examples), 50)])
        characters = sum(map(len, sentences))
        report[language] = {
            "perplexity": round(math.exp(losses.mean().item()), 1),
            "bits_per_character": round(losses.sum().item() / math.log(2) / characters, 3),
        }
        for name, this_maker, noise in [("clean", clean, 0.0), ("noisy", maker, 0.08)]:
            scores = copy_errors(model, tokenizer, this_maker, sentences[:lines], noise)
            report[language] |= {f"copy_{name}_{key}": value for key, value in scores.items()}
    model.train()
    return report


@dataclass
class Progress:
    """Where a run stands; saved with the weights."""

    pool: int = 0
    batch: int = 0
    step: int = 0
    sequences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def factor(share: float, step: int) -> float:
    """Learning-rate factor: 20 steps of warm-up, constant, then linear to 2 % over the last 35 % of the time."""
    return min(1.0, (step + 1) / 20, max(0.02, (1.0 - share) / 0.35))


def train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    excluded = held_back_transcripts(arguments.exclude)
    corpus, held_out, counts = {}, {}, {}
    for path in sorted(arguments.text.glob("*.txt")):
        lines, removed = read_lines(path, excluded)
        counts[path.stem] = {"lines": len(lines), "removed_as_test_transcript": removed}
        print(f"{path.stem}: {len(lines)} distinct lines; {removed} lines removed: transcripts of a dev or test split")
        held_out[path.stem], corpus[path.stem] = held_out_and_rest(lines, arguments.seed)
    if not corpus:
        raise UserError(f"{arguments.text} holds no .txt file. Give a folder of <language>.txt files.")

    state_file = arguments.output_dir / "training_state" / "state.pt"
    progress = Progress()
    if state_file.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.output_dir)
    else:
        tokenizer = train_tokenizer([line for lines in corpus.values() for line in lines], arguments.vocabulary_size)
    model = build_model(tokenizer)
    optimizers = Optimizers(model, arguments.lr)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        progress = Progress(**state["progress"])
        print(f"resumed at step {progress.step}, {progress.seconds / 60:.1f} minutes")
    parameters = sum(p.numel() for p in model.parameters())
    settings = {
        "parameters": parameters, "vocabulary_size": len(tokenizer), "minutes": arguments.minutes, "lr": arguments.lr,
        "copy_share": arguments.copy_share, "batch_tokens": arguments.batch_tokens, "seed": arguments.seed,
        "threads": arguments.threads, "corpus": counts,
    }  # fmt: skip
    settings["bfloat16"] = bfloat16_pays()
    print(json.dumps(settings), flush=True)

    def save() -> None:
        model.save_pretrained(arguments.output_dir, state_dict=unit_scale_state(model))
        tokenizer.save_pretrained(arguments.output_dir)
        write_json(arguments.output_dir / "pretraining.json", {**settings, **vars(progress)})
        state = {"model": model.state_dict(), "optimizers": optimizers.state_dict(), "progress": vars(progress)}
        with replacing(state_file) as temporary:
            torch.save(state, temporary)

    everything = random.Random(arguments.seed)
    letters = "".join(everything.choice(corpus[language]) for language in corpus for _ in range(500))
    maker = ExampleMaker(tokenizer, letters)
    pool = ExamplePool(
        corpus, maker, copy_share=arguments.copy_share, batch_tokens=arguments.batch_tokens, seed=arguments.seed
    )
    model.train()
    budget = arguments.minutes * 60
    sums = {True: [0.0, 0], False: [0.0, 0]}
    last_save = progress.seconds
    while progress.seconds < budget:
        batches = pool.batches(progress.pool)
        while progress.batch < len(batches) and progress.seconds < budget:
            started = time.process_time()
            batch = batches[progress.batch]
            losses, copies = batch_loss(model, batch)
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers.step(factor(progress.seconds / budget, progress.step))
            for kind in sums:
                chosen = losses.detach()[copies == kind]
                sums[kind][0] += chosen.sum().item()
                sums[kind][1] += len(chosen)
            progress.step += 1
            progress.batch += 1
            progress.sequences += len(batch)
            progress.tokens += sum(len(example.tokens) for example in batch)
            progress.seconds += time.process_time() - started
            if progress.step % 20 == 0:
                row = {
                    "step": progress.step, "minutes": round(progress.seconds / 60, 2), "tokens": progress.tokens,
                    "copy_loss": round(sums[True][0] / max(1, sums[True][1]), 3),
                    "plain_loss": round(sums[False][0] / max(1, sums[False][1]), 3),
                    "tokens_per_second": round(progress.tokens / progress.seconds),
                }  # fmt: skip
                progress.log.append(row)
                print(json.dumps(row), flush=True)
                sums = {True: [0.0, 0], False: [0.0, 0]}
            if progress.seconds - last_save > arguments.save_minutes * 60:
                last_save = progress.seconds
                report = evaluate(model, tokenizer, maker, held_out, 20)
                progress.log.append(
                    {"step": progress.step, "minutes": round(progress.seconds / 60, 2), "held_out": report}
                )
                print(json.dumps(progress.log[-1]), flush=True)
                save()
        if progress.batch >= len(batches):
            progress.pool, progress.batch = progress.pool + 1, 0
    report = evaluate(model, tokenizer, maker, held_out, HELD_OUT)
    progress.log.append({"step": progress.step, "minutes": round(progress.seconds / 60, 2), "final": report})
    print(json.dumps(progress.log[-1], indent=1), flush=True)
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of <language>.txt files")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="folders of AudioFolder data sets")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument(
        "--minutes",
        type=float,
        default=55.0,
        help="training time in minutes of the process's CPU time, which other load does not shorten; the schedule follows it",
    )
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--vocabulary-size", type=int, default=768)
    parser.add_argument("--batch-tokens", type=int, default=3000)
    parser.add_argument("--copy-share", type=float, default=0.75)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
