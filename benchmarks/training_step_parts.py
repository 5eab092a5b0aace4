"""The parts of the benchmark `training_step`: what they read, and what each does in its own process."""

import argparse
import json
import os
import runpy
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from unittest.mock import MagicMock

import numpy as np
import psutil
import soundfile
import torch
from datasets import Dataset, DatasetDict
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from trainers.data.prepare import prepare
from trainers.embedded.base_models import base_model
from trainers.embedded.sentences import generate_sentences
from trainers.encoder_depth.loading import load_encoder
from trainers.evaluation.speed import process_peak_bytes
from trainers.feature_cache import FeatureCache, build_cache
from trainers.recipe import Recipe, from_dict
from trainers.sound import RATE
from trainers.train import TrainingRun
from trainers.training.dry_run import estimate_memory
from trainers.training.models import build_model, build_processor

BATCH = 4
DURATIONS = (5.9, 5.9, 3.1, 5.9, 5.9, 5.9, 4.5, 5.9)  # seconds
TOKENS_A_SECOND = 5.5
LAYERS = 12
PARTS = ("prepare", "reference", "cached", "checkpointed", "encoder", "ceiling")
GIB = 2**30
Shape = tuple[int, int, int]  # of a matrix product: rows, inner, columns


class Enough(Exception):
    """All rounds are measured; ends a training loop from within."""


# ---------------------------------------------------------------------- what the parts read


def prepare_inputs(work: Path, clips: int) -> None:
    """Random base models, sound, transcripts and cached encoder states, in the forms that both programs read."""
    torch.manual_seed(0)
    # The reference passes this option of older transformers; a configuration that has the key takes it from the call.
    old: dict[str, Any] = {"load_in_8bit": None}
    text = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0, **old,
    )  # fmt: skip
    llm: Any = Qwen2ForCausalLM(text)
    llm.bfloat16().save_pretrained(work / "llm")
    tokenizer = AutoTokenizer.from_pretrained(base_model("embedded/lm"))
    tokenizer.save_pretrained(work / "llm")
    audio = WhisperConfig(
        vocab_size=51_865, d_model=768, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    )  # fmt: skip
    WhisperModel(audio).save_pretrained(work / "whisper")
    WhisperFeatureExtractor().save_pretrained(work / "whisper")

    rng = np.random.default_rng(0)
    words = " ".join(generate_sentences("da", "train", 40 * clips)).split()
    manifest, reference = [], []
    for index in range(clips):
        seconds = DURATIONS[index % len(DURATIONS)]
        wave = (0.1 * rng.standard_normal(int(seconds * RATE))).astype(np.float32)
        sentence, wanted = words.pop(), round(TOKENS_A_SECOND * seconds)
        while (missing := wanted - len(tokenizer(sentence)["input_ids"])) > 0:
            word = words.pop()
            sentence += f" {word}" if len(tokenizer(f" {word}")["input_ids"]) <= missing else ""
        soundfile.write(work / f"{index}.wav", wave, RATE)
        manifest.append(json.dumps({"audio": f"{index}.wav", "text": sentence}))
        reference.append({"audio_array": wave, "sampling_rate": RATE, "transcription": sentence, "duration": seconds})
    (work / "train.jsonl").write_text("\n".join(manifest) + "\n", encoding="utf-8")
    splits = {"train": Dataset.from_list(reference), "validation": Dataset.from_list(reference[:1])}
    DatasetDict(splits).save_to_disk(work / "reference_data")
    recipe = our_recipe(work, "float32", 1)
    feature_cache(recipe, work, prepare(recipe.train, "train", quiet=True)[0])


def feature_cache(recipe: Recipe, work: Path, rows: Dataset) -> FeatureCache:
    """The states after the last encoder block; made on the first call."""
    encoder = load_encoder(recipe.audio_model, device="cpu").encoder
    return build_cache(work / "features", rows, encoder, build_processor(recipe), [LAYERS], quiet=True)


def our_recipe(work: Path, dtype: str, steps: int, checkpointed: bool = False) -> Recipe:
    """The project's recipe for this training; all that is not named is its default."""
    return from_dict(
        {
            "audio_model": str(work / "whisper"), "text_model": str(work / "llm"), "batch_size": BATCH, "device": "cpu",
            "train": {"dataset": str(work / "train.jsonl"), "language": "da"}, "max_steps": steps, "save_steps": 10**6,
            "dtype": "bfloat16" if dtype == "bfloat16" else "float32", "bf16": dtype != "float32",
            "gradient_checkpointing": checkpointed, "output_dir": str(work / f"run-{os.getpid()}"),
        }
    )  # fmt: skip


# ---------------------------------------------------------------------- in a part's process


class Reports:
    """Lines of JSON to the process that gives out turns; everything else that is printed goes to standard error."""

    def __init__(self) -> None:
        self.output: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, **values: Any) -> None:
        print(json.dumps(values), file=self.output, flush=True)


class StepTimer:
    """
    A hook after each optimiser step: two steps to warm up, in each round one to wake up and one that is timed, and at the
    end, when the peak of memory is known, one to count operations.
    """

    def __init__(self, reports: Reports, rounds: int, paced: bool) -> None:
        self.reports, self.rounds, self.paced = reports, rounds, paced
        self.calls = 0
        self.started = {"wall": 0.0, "cpu": 0.0}
        self.peak_gib = 0.0
        self.shapes: Counter[Shape] = Counter()
        self.counter = FlopCounterMode(
            display=False,
            custom_mapping={
                torch.ops.aten.mm: self._mm, torch.ops.aten.addmm: self._addmm, torch.ops.aten.bmm: self._bmm,
            },
        )  # fmt: skip

    def __call__(self, *_: Any) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        step, last = self.calls - 1, 2 * self.rounds
        self.calls += 1
        if step > last:
            self.counter.__exit__(None, None, None)
            raise Enough
        if step >= 0 and step % 2 == 0:
            if step == 0:
                self.reports.send(ready=True)
            else:
                self.reports.send(wall=wall - self.started["wall"], cpu=cpu - self.started["cpu"])
            self.peak_gib = peak_gib()
            if self.paced:
                sys.stdin.readline()
            if step == last:
                self.counter.__enter__()
        self.started = {"wall": time.perf_counter(), "cpu": time.process_time()}

    def _count(self, rows: int, inner: int, columns: int, times: int = 1) -> int:
        self.shapes[(rows, inner, columns)] += times
        return 2 * times * rows * inner * columns

    def _mm(self, a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
        return self._count(a[0], a[1], b[1])

    def _addmm(self, _bias: torch.Size, a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
        return self._count(a[0], a[1], b[1])

    def _bmm(self, a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
        return self._count(a[1], a[2], b[2], a[0])


def peak_gib() -> float:
    """GiB of this process that were in memory at once, at most."""
    return (process_peak_bytes() or 0) / GIB


def resident_gib() -> float:
    """GiB of this process that are in memory now."""
    return psutil.Process().memory_info().rss / GIB


def run_ours(work: Path, part: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Train with `SlamAsrTrainer`; returns what the plan had estimated."""
    recipe = our_recipe(work, dtype, 2 * rounds + 4, part == "checkpointed")
    rows, _ = prepare(recipe.train, "train", quiet=True)
    if part != "encoder":
        rows = feature_cache(recipe, work, rows).dataset(LAYERS)
    model = build_model(recipe)
    estimate = estimate_memory(recipe, model, max(DURATIONS), cached=part != "encoder")
    run = TrainingRun(recipe, {"train": rows}, model, build_processor(recipe))
    try:
        with run.without_idle_blocks():
            run.make_trainer().train()
    except Enough:
        return {"estimated_gib": round(estimate["total"], 3)}
    raise RuntimeError("The training ended before all rounds were measured.")


def run_reference(work: Path, checkout: Path, dtype: str) -> dict[str, Any]:
    """Run the reference's own `train.py` until all rounds are measured."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(checkout / "configs/whisper_small/danish/train/baseline.yaml")
    output = work / f"run-{os.getpid()}"
    changes: dict[str, dict[str, Any]] = {
        "model": {"llm_model": str(work / "llm"), "llm_dim": 896, "encoder_model": str(work / "whisper.pt")},
        "train": {"output_dir": str(output), "mixed_precision": dtype == "bfloat16"},
        "data": {"hf_dataset_path": str(work / "reference_data")},
        "log": {"use_wandb": False, "log_dir": str(output)},
    }
    OmegaConf.save(OmegaConf.merge(config, changes), output.with_suffix(".yaml"))
    if find_spec("wandb") is None:
        sys.modules["wandb"] = MagicMock()  # imported by the reference, not used without its log
    sys.path.insert(0, str(checkout))
    sys.argv = ["train.py", "--config", str(output.with_suffix(".yaml"))]
    try:
        runpy.run_path(str(checkout / "train.py"), run_name="__main__")
    except Enough:
        return {}
    raise RuntimeError("The reference's training ended before all rounds were measured.")


def run_ceiling(shapes: list[list[int]], dtype: str, reports: Reports, rounds: int) -> None:
    """In each round, the best rate (operations a second) of each product alone, its second factor stored either way."""
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    factors = {}
    for rows, inner, columns in {(2048, 2048, 2048), *((m, k, n) for m, k, n, _ in shapes)}:
        a, b = torch.randn(rows, inner, dtype=kind), torch.randn(inner, columns, dtype=kind)
        factors[(rows, inner, columns)] = (a, [b, b.t().contiguous().t()])
    for turn in range(rounds + 1):
        rates = {}
        for shape, (a, stored) in factors.items():
            seconds = []
            for b in stored:
                for _ in range(3):
                    started = time.perf_counter()
                    torch.mm(a, b)
                    seconds.append(time.perf_counter() - started)
            rates["x".join(map(str, shape))] = 2 * shape[0] * shape[1] * shape[2] / min(seconds)
        reports.send(**({"rates": rates} if turn else {"ready": True}))
        if turn < rounds:
            sys.stdin.readline()


def run_part(arguments: argparse.Namespace) -> int:
    """One part in this process; its figures go out line by line."""
    reports = Reports()
    torch.set_num_threads(arguments.threads)
    imported, values = resident_gib(), {}
    timer = StepTimer(reports, arguments.rounds, arguments.paced)
    if arguments.part == "prepare":
        prepare_inputs(arguments.work, BATCH * (2 * arguments.rounds + 4))
        if arguments.reference is not None:
            save_for_reference(arguments.work)
    elif arguments.part == "ceiling":
        run_ceiling(json.loads(arguments.shapes), arguments.dtype, reports, arguments.rounds)
    else:
        register_optimizer_step_post_hook(timer)
        if arguments.part == "reference":
            run_reference(arguments.work, arguments.reference.resolve(), arguments.dtype)
        else:
            values = run_ours(arguments.work, arguments.part, arguments.dtype, arguments.rounds)
    shapes = [[*shape, count] for shape, count in timer.shapes.items()]
    memory = {"after_imports_gib": round(imported, 3), "peak_gib": round(timer.peak_gib, 3)}
    reports.send(**memory, shapes=shapes, **values)
    return 0


def save_for_reference(work: Path) -> None:
    """A whisper-small with random weights in the form and half precision that the openai-whisper package reads."""
    from whisper.model import ModelDimensions, Whisper

    sizes = ModelDimensions(80, 1500, 768, 12, LAYERS, 51_865, 448, 768, 12, LAYERS)
    weights = {name: tensor.half() for name, tensor in Whisper(sizes).state_dict().items()}
    torch.save({"dims": vars(sizes), "model_state_dict": weights}, work / "whisper.pt")
