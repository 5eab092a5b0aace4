"""Decode a data set with a model and score it: what `slam-asr evaluate` and the quickstart do."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from datasets import Dataset

from modeling_slam_asr.configuration_slam_asr import PACKAGE_VERSION
from trainers.engines import AsrPipeline, parameters_of
from trainers.evaluation import evaluate_rows
from trainers.evaluation.leaderboard import leaderboard_score, scored_utterances, write_manifest
from trainers.files import lock_file, write_json
from trainers.inference.datasets import transcribe_dataset
from trainers.inference.journal import open_journal
from trainers.inference.torch_engine import load_pipeline, pipeline_of
from trainers.provenance import model_fingerprint, stamp
from trainers.results import Metrics

# The last two have moved; programs may import them from here.
__all__ = ["SystemFigures", "evaluate", "load_pipeline", "pipeline_of", "system_figures"]


def evaluate(
    model: str | os.PathLike[str],
    dataset: Dataset,
    output_dir: str | os.PathLike[str],
    *,
    pipe: AsrPipeline | None = None,
    language: str | None = None,
    normalizer: str | None = None,
    batch_size: int = 8,
    generate_kwargs: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 42,
    quiet: bool = False,
    dataset_name: Mapping[str, str] | None = None,
    left_out: int = 0,
    leaderboard: bool = False,
) -> Metrics:
    """
    Transcribe a prepared data set; write `EVALUATION_FILES` into `output_dir`. What an interrupted evaluation of the same model, data and
    settings has transcribed there is gone on with.

    Args:
        model: a model folder or Hub name.
        dataset: rows as `trainers.data.prepare` makes them; `text` is the reference.
        language: of all rows; each row's own when None. It chooses the normalizer, and the prompt of a model that is told it.
        normalizer: see `trainers.evaluation.get_normalizer`; the language's own when None.
        generate_kwargs: decoding settings; the model's own generation configuration when None.
        dataset_name: what the result calls the data, as `DataSpec.published_name` gives it.
        left_out: how many utterances of that data `dataset` lacks by choice: figures of a part are not published as those of the whole.
        leaderboard: follow the Open ASR Leaderboard's protocol (see `trainers.evaluation.leaderboard`): English, greedy,
            without utterances that have an empty reference, and without telling the model the language. Its figures
            stand under `leaderboard` in the result, and its manifest beside the other files.
    Returns:
        The content of `metrics.json`.
    Raises:
        UserError: when no reference has a word (`leaderboard`).
    """
    pipe = pipe if pipe is not None else load_pipeline(model)
    request: dict[str, Any] = {"language": language, "generate_kwargs": generate_kwargs}
    whole = len(dataset)
    if leaderboard:
        kept = scored_utterances(dataset["text"])
        dataset, language, normalizer = dataset.select(kept), language or "en", normalizer or "en"
        request = {"generate_kwargs": {**(generate_kwargs or {}), "num_beams": 1, "do_sample": False}}
    folder, request = Path(output_dir), {name: value for name, value in request.items() if value is not None}
    tell_language = not leaderboard
    key = _journal_key(model, pipe, dataset, {**request, "batch_size": batch_size, "tell_language": tell_language})
    with open_journal(folder, key) as journal:
        if journal.rows and not quiet:
            print(
                f"going on after the {len(journal.rows):,} utterances that an interrupted evaluation has transcribed",
                flush=True,
            )
        decoded = transcribe_dataset(
            pipe, dataset, batch_size=batch_size, tell_language=tell_language, quiet=quiet, journal=journal, **request
        )
        rows, board = decoded.rows, {}
        # The files of two at once would be of one another's rows.
        with lock_file(folder / "evaluation.lock", wait=True):
            if leaderboard:
                rows = [row | {"seconds": decoded.speed["wall_seconds"] / len(rows)} for row in rows]
                board = {"leaderboard": {**leaderboard_score(rows), "ignored_utterances": whole - len(rows)}}
                data = dict(dataset_name or {})
                write_manifest(
                    folder,
                    rows,
                    model_id=f"local/{Path(model).resolve().name}" if Path(model).is_dir() else os.fspath(model),
                    dataset="_".join(part for part in (data.get("name", "local/dataset"), data.get("config")) if part),
                    split=data.get("split", "test"),
                )
            metrics = evaluate_rows(
                rows,
                folder,
                normalizer=normalizer,
                language=language,
                title=f"Evaluation of {Path(model).name if Path(model).is_dir() else model}",
                speed=decoded.speed,
                extra={
                    **({"dataset": dict(dataset_name)} if dataset_name else {}),
                    **({"left_out": left_out} if left_out else {}),
                    **board,
                    **system_figures(pipe, request.get("generate_kwargs")),
                    "eval_rtfx": decoded.speed["rtfx"],
                    "audio_seconds": decoded.speed["audio_seconds"],
                    "damaged_recordings": len(decoded.damaged),
                },
                bootstrap=resamples,
                seed=seed,
            )
            if Path(model).is_dir():
                metrics = cast(Metrics, stamp(metrics, Path(model), folder / "predictions.jsonl"))
                write_json(folder / "metrics.json", metrics)
    return metrics


def _journal_key(model: str | os.PathLike[str], pipe: AsrPipeline, dataset: Dataset, request: Mapping[str, Any]) -> str:
    """64 hex digits of all that a transcript depends on."""
    content = [
        PACKAGE_VERSION,
        model_fingerprint(os.fspath(model)) if Path(model).is_dir() else os.fspath(model),
        pipe.source.commit if pipe.source else None,
        str(pipe.model.dtype),
        system_figures(pipe),
        pipe.processor.around_audio(),
        request,
        dataset.remove_columns("audio").to_dict(),
    ]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


class SystemFigures(TypedDict):
    """Size of a system, and the settings that it decodes with."""

    decoding: dict[str, Any]
    total_params: int
    encoder_params: int
    trainable_params: int


def system_figures(pipe: AsrPipeline, generate_kwargs: Mapping[str, Any] | None = None) -> SystemFigures:
    """Those of the evaluated system; `generate_kwargs` go before the model's own."""
    report = parameters_of(pipe)
    special = ("transformers_version", "bos_token_id", "eos_token_id", "pad_token_id")
    settings = pipe.model.generation_config.to_diff_dict()
    return {
        "decoding": {
            **{name: value for name, value in settings.items() if name not in special},
            **(generate_kwargs or {}),
        },
        "total_params": report["total"],
        "encoder_params": report["encoder"],
        "trainable_params": report["trainable"],
    }
