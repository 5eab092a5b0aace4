"""What a user would pick instead, and floors: every system on the same utterances with the same normaliser.

    python -m benchmarks.real_speech.baselines en --model studies/real-speech/runs/RUN/model --whisper weights/whisper-base \
        [--faster-whisper weights/whisper-base-ctranslate2] [--systems whisper faster-whisper-int8 ...] [--batch-size 16]

Systems: `model` (the SLAM-ASR model, as it was trained to decode), `greedy` (the same without beams), `ctc` (its CTC head alone),
`ctc-warm-start` (the same before the run, with the projector of `--warm-start`), `prior` (its LLM alone, without any sound: one
text for all), `whisper` (Whisper's own decoder through transformers), `faster-whisper-int8` and `faster-whisper-float32` (the same weights through CTranslate2, utterance by utterance). All are greedy
but `model`, and faster-whisper's where it falls back to sampling, as it does by default. Each runs in a process of its own, so that its peak of memory is its own; what stands in `--output-dir` is not run
again. `systems.json` and `table.md` collect them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset

from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.evaluation import SpeedMeter, SpeedReport, evaluate_rows
from trainers.evaluation.format import markdown_table, percent, percent_with_interval
from trainers.evaluation.speed import measured_idle
from trainers.files import write_json, write_text
from trainers.inference.datasets import transcribe_dataset
from trainers.inference.torch_engine import load_pipeline
from trainers.results import ERROR_TYPES, FIGURES, Metrics, PredictionRow, prediction_row
from trainers.sound import RATE
from trainers.study.plan import plan_runs
from trainers.study.recipe import load_study
from trainers.training.warm_start import load_projector

SYSTEMS = (
    "model",
    "greedy",
    "ctc",
    "ctc-warm-start",
    "prior",
    "whisper",
    "faster-whisper-int8",
    "faster-whisper-float32",
)


class Recognise(Protocol):
    """Texts of recordings that go through a system together."""

    def __call__(self, sounds: list[np.ndarray], beams: int = 1, limit: int | None = None) -> list[str]:
        """`limit`: most tokens of a text; the system's own, if None."""


def test_rows(language: str) -> Dataset:
    """The study's test utterances of a language."""
    run = next(run for run in plan_runs(load_study("real_speech_study")) if run.point["language"] == language)
    return prepare(run.recipe.test, "test", quiet=True)[0]


def transcribe_batches(rows: Dataset, batch_size: int, recognise: Recognise) -> tuple[list[PredictionRow], SpeedReport]:
    """Prediction rows in the data's order, batched from long to short, and the speed after one batch that is left out."""
    order = sorted(range(len(rows)), key=lambda index: -rows[index]["seconds"])
    found: dict[int, str] = {}
    meter = SpeedMeter(warmup=0)
    recognise([read_audio(rows[order[len(order) // 2]])])
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        sounds = [read_audio(rows[index]) for index in batch]
        with meter.batch(sum(len(sound) for sound in sounds) / RATE):
            found.update(zip(batch, recognise(sounds), strict=True))
    return [prediction_row(row, found[index]) for index, row in enumerate(rows.remove_columns("audio"))], meter.report(
        batch_size=batch_size
    )


def whisper(folder: Path, language: str) -> Recognise:
    """Whisper's own decoder through transformers."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def recognise(sounds: list[np.ndarray], beams: int = 1, limit: int | None = None) -> list[str]:
        features = processor.feature_extractor(sounds, sampling_rate=RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(
                features, language=language, task="transcribe", num_beams=beams,
                **({} if limit is None else {"max_new_tokens": limit}),
            )  # fmt: skip
        return list(processor.batch_decode(tokens, skip_special_tokens=True))

    return recognise


def faster_whisper(folder: Path, language: str, compute_type: str) -> Recognise:
    """The same weights through CTranslate2, one utterance after the other."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type=compute_type, cpu_threads=torch.get_num_threads())

    def recognise(sounds: list[np.ndarray], beams: int = 1, limit: int | None = None) -> list[str]:
        texts = []
        for sound in sounds:
            segments, _ = model.transcribe(
                sound, language=language, beam_size=beams, without_timestamps=True, max_new_tokens=limit
            )
            texts.append(" ".join(segment.text.strip() for segment in segments))
        return texts

    return recognise


def prior(pipe: Any) -> str:
    """What the LLM writes after its prompt when there is no sound at all."""
    ids = pipe.processor.prompt_ids(2 * pipe.processor.audio_geometry.frames_per_token)
    text = [token for token in ids if token != pipe.model.config.audio_token_id]
    with torch.inference_mode():
        tokens = pipe.model.language_model.generate(
            torch.tensor([text]), max_new_tokens=64, do_sample=False, num_beams=1,
            eos_token_id=pipe.model.generation_config.eos_token_id, pad_token_id=pipe.tokenizer.pad_token_id,
        )  # fmt: skip
    return str(pipe.tokenizer.decode(tokens[0, len(text) :], skip_special_tokens=True))


def run_system(name: str, arguments: argparse.Namespace, folder: Path) -> Metrics:
    """Transcribe and score with one system; `folder` receives what `slam-asr evaluate` writes."""
    rows, language, batch_size = test_rows(arguments.language), arguments.language, arguments.batch_size
    speed: SpeedReport | None
    if name in ("model", "greedy", "ctc", "ctc-warm-start"):
        pipe = load_pipeline(arguments.model, device="cpu")
        if name == "ctc-warm-start":
            load_projector(pipe.model, arguments.warm_start)
        settings: dict[str, Any] = {} if name == "model" else {"num_beams": 1, "ctc_only": name.startswith("ctc")}
        decoded = transcribe_dataset(pipe, rows, batch_size=batch_size, quiet=True, generate_kwargs=settings)
        predictions, speed = decoded.rows, decoded.speed
    elif name == "prior":
        text = prior(load_pipeline(arguments.model, device="cpu"))
        predictions, speed = [prediction_row(row, text) for row in rows.remove_columns("audio")], None
    elif name == "whisper":
        predictions, speed = transcribe_batches(rows, batch_size, whisper(arguments.whisper, language))
    else:
        kind = name.removeprefix("faster-whisper-")
        predictions, speed = transcribe_batches(rows, 1, faster_whisper(arguments.faster_whisper, language, kind))
    return evaluate_rows(predictions, folder, language=language, title=f"{name}, {language}", speed=speed)


def table(found: dict[str, Metrics]) -> str:
    """One line a system: all sets, then each; speed and memory where the machine was idle."""
    sources = sorted({source for metrics in found.values() for source in metrics.get("by_source", {})})
    idle = any(measured_idle(metrics.get("speed")) for metrics in found.values())
    heads = [
        "system",
        "WER, all sets [95 % interval]",
        "S",
        "D",
        "I",
        *sources,
        *(["RTFx", "peak memory"] if idle else []),
    ]
    rows = []
    for name, metrics in found.items():
        speed = metrics.get("speed")
        measured = ["", ""]
        if speed and measured_idle(speed):
            measured = [f"{speed['rtfx']:.1f}", f"{(speed['peak_memory_bytes'] or 0) / 2**30:.2f} GiB"]
        errors = [metrics[kind] for kind in ERROR_TYPES]
        by_source = [percent(metrics["by_source"][source]["wer"]) for source in sources]
        rate = percent_with_interval(metrics["wer"], metrics["wer_ci"])
        rows.append([name, rate, *errors, *by_source, *(measured if idle else [])])
    return markdown_table(heads, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=("en", "nl", "da"))
    parser.add_argument("--model", type=Path, help="folder of a trained SLAM-ASR model with a CTC head")
    parser.add_argument("--warm-start", type=Path, help="folder of that model's warm start, STUDY/warm_starts/KEY")
    parser.add_argument("--whisper", type=Path, help="folder or Hub name of the whole Whisper model")
    parser.add_argument("--faster-whisper", type=Path, help="folder of the same in CTranslate2's format")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, default=Path("baselines"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    whole = list(arguments if arguments is not None else sys.argv[1:])
    found: dict[str, Metrics] = {}
    for name in given.systems:
        mark = (
            name
            if given.batch_size == 16 or name.startswith(("faster", "prior"))
            else f"{name}, batch {given.batch_size}"
        )
        folder = given.output_dir / given.language / mark.replace(", ", "-").replace(" ", "")
        if given.inside:
            run_system(name, given, folder)
            continue
        if not (folder / "metrics.json").is_file():
            command = [sys.executable, "-m", "benchmarks.real_speech.baselines", *whole, "--inside", "--systems", name]
            subprocess.run(command, check=True)
        print(f"{mark}: {folder}", flush=True)
    if given.inside:
        return
    for path in sorted((given.output_dir / given.language).glob("*/metrics.json")):
        found[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    kept = (*FIGURES, "by_source", "speed")
    write_json(
        given.output_dir / given.language / "systems.json",
        {name: {key: metrics.get(key) for key in kept} for name, metrics in found.items()},
    )
    text = table(found)
    write_text(given.output_dir / given.language / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
