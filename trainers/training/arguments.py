"""A recipe in the terms of `Seq2SeqTrainer`: its arguments and its batches."""

import math
import os
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import IterableDataset
from transformers import Seq2SeqTrainingArguments
from transformers.integrations import get_available_reporting_integrations

from modeling_slam_asr import SlamAsrProcessor
from modeling_slam_asr.projector_slam_asr import ENCODER_SECONDS
from modeling_slam_asr.windows_slam_asr import WINDOW_SECONDS
from trainers.data.batching import EpochBatchSampler
from trainers.errors import UserError
from trainers.provenance import cpu_cores
from trainers.recipe import Recipe
from trainers.training.trainer import utterance_seconds, utterance_transcripts


def training_arguments(
    recipe: Recipe, sampler: EpochBatchSampler | None, has_validation: bool
) -> Seq2SeqTrainingArguments:
    """The trainer's arguments. Evaluating and saving are counted in steps, so that a checkpoint never stands before an
    evaluation of the same step."""
    total, each_epoch = planned_steps(recipe, sampler)
    schedule_options = {"min_lr_rate": recipe.min_lr_fraction} if recipe.schedule == "cosine_with_min_lr" else {}
    eval_steps = recipe.eval_steps or each_epoch
    own: dict[str, Any] = dict(  # noqa: C408 (argument names)
        output_dir=recipe.output_dir,
        run_name=recipe.name or None,
        seed=recipe.seed,
        max_steps=total,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.eval_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        lr_scheduler_type=recipe.schedule,
        lr_scheduler_kwargs=schedule_options,
        warmup_steps=math.ceil(recipe.warmup_fraction * total),
        bf16=uses_autocast(recipe),
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        eval_strategy="steps" if has_validation else "no",
        eval_steps=eval_steps if has_validation else None,
        metric_for_best_model="wer" if has_validation else None,
        greater_is_better=False,
        predict_with_generate=True,
        save_strategy="steps",
        save_steps=recipe.save_steps or eval_steps,
        logging_steps=recipe.logging_steps,
        logging_nan_inf_filter=False,  # the trainer stops at them
        report_to=recipe.report_to or "none",
        dataloader_num_workers=min(recipe.num_workers, cpu_cores()),  # the order of the data does not depend on them
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=has_idle_head(recipe),
        disable_tqdm=True,  # the project has its own progress line
        use_cpu=recipe.device == "cpu" or not torch.accelerator.is_available(),
        push_to_hub=False,  # `slam-asr train` publishes when the run is over
    )
    try:
        return Seq2SeqTrainingArguments(**{**own, **recipe.trainer})
    except (ValueError, TypeError, ImportError) as error:
        if not recipe.trainer:
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in recipe.trainer.items())
        raise UserError(f"trainer: the trainer does not take {given}: {' '.join(str(error).split())}") from error


def check_environment(recipe: Recipe) -> None:
    """Refuse, before anything is read, what this machine or launch cannot do.

    Raises:
        UserError: several GPUs in one process, one process where several were asked for, or a tracker that is not there.
    """
    refuse_data_parallel(recipe)
    refuse_lone_process()
    available = get_available_reporting_integrations()
    for name in recipe.report_to:
        if name not in available:
            raise UserError(
                f"report_to names {name!r}, which is not installed or not known. Those here: {', '.join(available) or 'none'}. "
                f"`pip install {name}` adds a known one, such as tensorboard, trackio or wandb."
            )


def uses_autocast(recipe: Recipe) -> bool:
    """Whether products are computed in bfloat16: as the recipe says, else when its weights are."""
    return recipe.bf16 if recipe.bf16 is not None else recipe.dtype == "bfloat16"


def has_idle_head(recipe: Recipe) -> bool:
    """Whether the projector has a CTC head that no loss of the run reaches: DDP then has to look for it in each step."""
    projector = recipe.projector.to_config()
    return (
        bool(projector.get("projector_ctc"))
        and recipe.ctc_weight == 0
        and projector.get("projector_compress") != "tokens"
    )


def planned_steps(recipe: Recipe, sampler: EpochBatchSampler | None) -> tuple[int, int]:
    """Optimiser steps of the run, and of an epoch (for a stream, a tenth of the run stands for an epoch)."""
    if sampler is None:
        assert recipe.max_steps is not None
        return recipe.max_steps, max(1, recipe.max_steps // 10)
    each_epoch = max(1, math.ceil(len(sampler) / recipe.gradient_accumulation_steps))
    return recipe.max_steps or math.ceil(recipe.num_epochs * each_epoch), each_epoch


def make_sampler(recipe: Recipe, dataset: Any, processor: SlamAsrProcessor) -> EpochBatchSampler | None:
    """This process's batches of the training set; None for a stream."""
    if isinstance(dataset, IterableDataset):
        return None
    state = PartialState()
    place: dict[str, Any] = {"rank": state.process_index, "world_size": state.num_processes}
    if recipe.batch_seconds is None and recipe.batch_tokens is None:
        return EpochBatchSampler(len(dataset), seed=recipe.seed, batch_size=recipe.batch_size, **place)
    seconds = padded_seconds(recipe, dataset)
    if recipe.batch_seconds is not None:
        return EpochBatchSampler(len(dataset), seed=recipe.seed, costs=seconds, budget=recipe.batch_seconds, **place)
    costs = token_costs(dataset, seconds, processor)
    return EpochBatchSampler(len(dataset), seed=recipe.seed, costs=costs, budget=recipe.batch_tokens, **place)


def trained_window(train_set: Any) -> float:
    """Seconds that 99 of 100 training utterances stay below: longer windows would be new to the model. 3 s to `WINDOW_SECONDS`."""
    seconds = float(np.quantile(utterance_seconds(train_set), 0.99))
    return min(WINDOW_SECONDS, max(3.0, math.ceil(10 * seconds) / 10))


def padded_seconds(recipe: Recipe, dataset: Any) -> list[float]:
    """Seconds that each row takes at the most, with what augmentation may add."""
    if recipe.pad_to_30s:
        return [ENCODER_SECONDS] * len(dataset)
    changes = recipe.augmentation
    slowest = min(changes.speed_factors) if changes.speed_factors else 1.0
    silence = 2 * changes.silence.max_seconds if changes.silence is not None else 0.0
    return [min(ENCODER_SECONDS, seconds / min(1.0, slowest) + silence) for seconds in utterance_seconds(dataset)]


def token_costs(dataset: Any, seconds: list[float], processor: SlamAsrProcessor) -> list[float]:
    """Positions of the LLM that each row takes: audio, prompt and transcript."""
    geometry = processor.audio_geometry
    prompt = len(processor.prompt_ids(0)) - geometry.token_count(0)
    return [
        float(prompt + geometry.token_count(2 * geometry.encoder_frames(length)) + len(processor.transcript_ids(text)))
        for length, text in zip(seconds, utterance_transcripts(dataset), strict=True)
    ]


def refuse_data_parallel(recipe: Recipe) -> None:
    """Several GPUs in one process would be used through `nn.DataParallel`, which this trainer does not support."""
    visible = torch.cuda.device_count() if recipe.device != "cpu" else 0
    if visible > 1 and PartialState().num_processes == 1:
        raise UserError(
            f"{visible} GPUs are visible to one process. Use one with CUDA_VISIBLE_DEVICES=0, or all of them: for a run "
            f"`accelerate launch --num_processes {visible} -m trainers.train RECIPE.yaml`, for a study `--jobs {visible}`."
        )


def refuse_lone_process() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process without a word, which would train on half the batch."""
    asked_for_more = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ
    if asked_for_more and PartialState().num_processes == 1:
        raise UserError(
            "Several CPU processes were asked for, but `accelerate launch --cpu` has started one. Use "
            "`accelerate launch --config_file accelerate_configs/cpu.yaml --num_processes 2 -m trainers.train ...` "
            "or `torchrun --nproc_per_node 2 -m trainers.train ...`."
        )
