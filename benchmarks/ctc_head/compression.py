"""What compression saves, and what its floor keeps: the same model with all frames and with those that its CTC head keeps.

    python -m benchmarks.ctc_head.compression MODEL [--data FOLDER:SPLIT ...] [--language en] [--keep 0.5 0.1 0.01] [--output FILE.json]

MODEL was trained with `projector: {ctc: true, compress: blank}` (or `tokens`). Reported are, for `all` frames and `compressed`,

- positions: the audio embeddings that the LLM reads, and all of its positions with prompt and transcript;
- prefill: seconds until the LLM has read what comes before the transcript, the encoder left out: one utterance at a time, and 16;
- step: seconds of a training step (forward and backward pass, projector and LoRA) on some 30 s of speech from cached states, in turns;
- peak_gib: the process's memory when it did nothing but such steps;
- keep: word error rate and errors by kind for each floor `compress_keep`: a frame stays where the tokens together have at least it.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch

from benchmarks.ctc_head import read_rows
from benchmarks.result import figures_parser, publish
from trainers.data.rows import read_audio
from trainers.evaluation.scoring import score_rows
from trainers.evaluation.speed import process_peak_bytes
from trainers.inference.datasets import transcribe_dataset
from trainers.inference.torch_engine import load_pipeline
from trainers.results import ERROR_TYPES

MODES = ("all", "compressed")
BATCH_SECONDS = 30.0
BATCH = 16


class Given(TypedDict):
    """What every process needs."""

    model: str
    data: list[str]
    language: str | None
    utterances: int
    threads: int
    steps: int
    dtype: str


def load(given: Given) -> tuple[Any, str]:
    """The pipeline, and how its model compresses."""
    torch.set_num_threads(given["threads"])
    pipe: Any = load_pipeline(given["model"], device="cpu", dtype=given["dtype"])
    kind = pipe.model.config.projector_compress
    if kind is None:
        raise SystemExit(
            f"{given['model']} does not compress: train it with `projector: {{ctc: true, compress: blank}}`."
        )
    return pipe, kind


def encoded(
    pipe: Any, sounds: Sequence[np.ndarray], texts: Sequence[str] | None, language: str | None
) -> dict[str, Any]:
    """What the model is given, with the encoder's states in place of the spectrogram."""
    inputs = dict(pipe.processor.apply_transcription_request(list(sounds), text=texts, language=language))
    features, mask = inputs.pop("input_features"), inputs.pop("input_features_mask")
    depth = len(pipe.model.audio_encoder.layers)
    with torch.inference_mode():
        states, frames = pipe.model.audio_encoder.hidden_states_at(features.to(pipe.model.dtype), mask, [depth])
    return {**inputs, "encoder_hidden_states": states[depth].clone(), "encoder_attention_mask": frames.clone()}


def prefill(pipe: Any, kind: str, batches: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Medians over the batches: seconds of the pass, audio embeddings and all positions an utterance, by mode."""
    found: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in MODES}
    for number, batch in enumerate([batches[0], *batches]):
        rows = len(batch["input_ids"])
        for mode in MODES if number % 2 else MODES[::-1]:
            pipe.model.config.projector_compress = kind if mode == "compressed" else None
            start = time.perf_counter()
            with torch.inference_mode():
                pipe.model(**batch, logits_to_keep=1, use_cache=True)
                seconds = time.perf_counter() - start
                merged = pipe.model.merge_inputs(**batch)
            heard = int((merged.audio & merged.attention_mask.bool()).sum())
            if number:  # the first batch warms up
                found[mode].append((seconds, heard / rows, int(merged.attention_mask.sum()) / rows))
    names = ("seconds", "audio_embeddings", "positions")
    return {
        mode: {
            name: round(statistics.mean(column), 4) for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        for mode, rows in found.items()
    }


def training_batches(pipe: Any, given: Given, rows: Any) -> list[dict[str, Any]]:
    """Batches of some 30 s."""
    batches: list[list[Any]] = [[]]
    held = 0.0
    for row in rows:
        if held + row["seconds"] > BATCH_SECONDS and batches[-1]:
            batches.append([])
            held = 0.0
        batches[-1].append(row)
        held += row["seconds"]
    return [
        encoded(pipe, [read_audio(row) for row in some], [row["text"] for row in some], given["language"])
        for some in batches[: given["steps"]]
    ]


def train_steps(given: Given, modes: Sequence[str], answers: Any) -> None:
    """In a process of its own: seconds of the steps by mode, the first left out, and the peak of memory."""
    pipe, kind = load(given)
    model = pipe.model
    for name, parameter in model.named_parameters():
        trained = name.startswith("projector.") or "lora_" in name
        parameter.requires_grad_(trained)
        parameter.data = parameter.data.float() if trained else parameter.data
    batches = training_batches(pipe, given, read_rows(given["data"], given["utterances"]))
    model.train()
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for number, batch in enumerate([batches[0], *batches]):
        for mode in modes if number % 2 else modes[::-1]:
            model.config.projector_compress = kind if mode == "compressed" else None
            start = time.perf_counter()
            model(**batch).loss.backward()
            model.zero_grad()
            if number:
                seconds[mode].append(time.perf_counter() - start)
    answers.put(({mode: statistics.mean(values) for mode, values in seconds.items()}, process_peak_bytes()))


def in_a_process(given: Given, modes: Sequence[str]) -> tuple[dict[str, float], int]:
    """[`train_steps`] elsewhere, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=train_steps, args=(given, modes, answers))
    process.start()
    found: tuple[dict[str, float], int] = answers.get()
    process.join()
    return found


def floors(pipe: Any, given: Given, rows: Any, keeps: Sequence[float]) -> dict[str, dict[str, float]]:
    """Errors with each floor, decoded as the model's own settings say."""
    found = {}
    for keep in keeps:
        pipe.model.config.projector_compress_keep = keep
        scored = score_rows(
            transcribe_dataset(pipe, rows, batch_size=BATCH, quiet=True).rows, language=given["language"]
        )
        found[f"{keep:g}"] = {name: scored[name] for name in ("wer", *ERROR_TYPES, "reference_words")}  # type: ignore[literal-required]
        print(keep, found[f"{keep:g}"], file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument(
        "--data", nargs="+", metavar="FOLDER:SPLIT", default=["embedded:test"], help="(default: %(default)s)"
    )
    parser.add_argument("--language", help="of the recordings")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--keep", nargs="*", type=float, default=[0.5, 0.1, 0.01])
    parser.add_argument("--steps", type=int, default=20, help="training batches (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="of frozen weights (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    names = ("model", "data", "language", "utterances", "threads", "steps", "dtype")
    given: Given = {name: getattr(arguments, name) for name in names}  # type: ignore[misc, assignment]
    steps, _ = in_a_process(given, MODES)
    peaks = {mode: in_a_process(given, [mode])[1] for mode in MODES}
    pipe, kind = load(given)
    rows = read_rows(given["data"], given["utterances"])
    sounds = [read_audio(row) for row in rows]
    single = [encoded(pipe, [sound], None, given["language"]) for sound in sounds[: 2 * given["steps"]]]
    joint = [
        encoded(pipe, sounds[start : start + BATCH], None, given["language"])
        for start in range(0, len(sounds) - BATCH + 1, BATCH)
    ]
    result = {
        "model": kind, "dtype": given["dtype"], "utterances": len(rows),
        "prefill_single": prefill(pipe, kind, single), f"prefill_batch_{BATCH}": prefill(pipe, kind, joint),
        "step_seconds": {mode: round(value, 4) for mode, value in steps.items()},
        "peak_gib": {mode: round(peak / 2**30, 2) for mode, peak in peaks.items()},
    }  # fmt: skip
    pipe.model.config.projector_compress = kind
    result["keep"] = floors(pipe, given, rows, arguments.keep)
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
