"""From a trained run to its rows of `results.jsonl`, or of the quickstart's `results.json`: scored from its saved model."""

import gc
from pathlib import Path

import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration
from trainers.inference.evaluate import evaluate
from trainers.inference.torch_engine import load_pipeline
from trainers.provenance import RunMetrics, hardware
from trainers.recipe import Recipe
from trainers.results import Metrics, ResultRow, figures_of
from trainers.study.data import StudyData
from trainers.study.plan import PlannedRun

BOOTSTRAP_SEED = 42


def score_run(
    run: PlannedRun,
    recipe: Recipe,
    training: RunMetrics,
    data: StudyData,
    folder: Path,
    prune: int | list[int] | None = None,
) -> list[ResultRow]:
    """Result rows of a trained run: the saved model, loaded anew (pruned further if `prune` says so), transcribes sound.

    Args:
        training: what `run_training` returned.
        folder: receives `evaluation/`.
    """
    role = "test" if run.recipe.test else "validation"
    rows = data.rows(run.recipe, role)
    assert rows is not None
    evaluation = folder / "evaluation"
    data.release_encoder()  # no part of what is measured, nor is what training left
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # LoRA stays apart for the counts of what is pruned further.
    pipe = load_pipeline(run.model_folder, device=recipe.loading_device, merge_lora=False)
    if prune is not None:
        pipe.model.prune_encoder_layers(prune)
    metrics = evaluate(
        run.model_folder, rows, evaluation, pipe=pipe, batch_size=recipe.eval_batch_size, normalizer=recipe.normalizer,
        seed=BOOTSTRAP_SEED, quiet=data.quiet,
    )  # fmt: skip
    place = evaluation.relative_to(data.study.folder).as_posix()
    return result_rows(run, role, training, metrics, pipe.model, place, prune)


def result_rows(
    run: PlannedRun,
    split: str,
    training: RunMetrics,
    metrics: Metrics,
    model: SlamAsrForConditionalGeneration,
    place: str,
    prune: int | list[int] | None = None,
) -> list[ResultRow]:
    """One row for all languages together and one for each, or the one row where there is but one language.

    Args:
        split: the role of the data that were scored.
        place: the evaluation's folder, relative to the study's.
        prune: what was pruned beyond the run's own value.
    """
    point, kept = run.point, model.config.kept_encoder_layers
    report = model.parameter_report()
    on_gpu = model.device.type == "cuda"
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    tables = metrics.get("by_language", {}) if point["language"] == "all" else {}
    found = dict(tables) if len(tables) == 1 else {point["language"]: metrics, **tables}
    sources = metrics.get("by_source", {})
    rows: list[ResultRow] = []
    for language, table in found.items():
        row = ResultRow(
            name=run.name if prune is None else f"{run.name}@{prune}",
            audio_model=point["audio_model"],
            text_model=point["text_model"],
            language=language,
            prune_encoder_layers=point["prune_encoder_layers"] if prune is None else prune,
            encoder_layers=len(kept),
            kept_encoder_layers=kept,
            selection=point["selection"],
            healing=None if point["healing"] == "none" else point["healing"],
            lora=point["lora"],
            seed=point["seed"],
            **figures_of(table),
            total_params=report["total"],
            trainable_params=training["trainable_params"],
            encoder_params=report["encoder"],
            saving=report["saving"],
            saving_paper=report["paper"]["saving"],
            steps=training["steps"],
            train_seconds=training["train_seconds"],
            best_validation_wer=training["best_validation_wer"],
            split=split,
            eval_rtfx=metrics["eval_rtfx"],
            memory_gib=(torch.cuda.max_memory_allocated() if on_gpu else weights) / 2**30,
            memory_kind="peak of the GPU" if on_gpu else "weights",
            hardware=hardware(),
            run=place,
            key=run.key,
        )
        if len(found) == 1 and len(sources) > 1:  # test sets of one language; several languages share none of them
            row["by_source"] = {source: figures_of(each) for source, each in sources.items()}
        rows.append(row)
    return rows
