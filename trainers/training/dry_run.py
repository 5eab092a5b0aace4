"""What a run would do, without doing it: data, steps, parameters, memory, minutes."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate import PartialState
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, PreTrainedConfig

from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.lora_slam_asr import ParameterReport, refuse_unfit_targets
from trainers.data.common_voice import transcripts_only
from trainers.data.kinds import DATA_KINDS
from trainers.data.prepare import prepare
from trainers.data.sources import detect_format
from trainers.data.spec import DataSpec
from trainers.embedded.base_models import base_model
from trainers.errors import UserError
from trainers.recipe import Recipe
from trainers.recipes.recipe_values import DATA_ROLES
from trainers.training.arguments import check_environment, make_sampler, planned_steps, uses_autocast
from trainers.training.data_checks import DataChecks, check_data
from trainers.training.models import build_processor, config_settings, reading_base_models
from trainers.training.timing import Measured, measure

SECONDS_A_CLIP = 4.5  # of Common Voice, for an estimate before its audio is downloaded
_GIB = 2**30


class RolePlan(TypedDict):
    """Data of one role. `known` is False where hours are estimated from the number of transcripts."""

    utterances: int
    hours: float
    dropped: dict[str, int]
    known: bool


class Plan(TypedDict):
    """What a run would do. Where the training data are not here yet, `epochs` and `steps_per_epoch` may be None."""

    recipe: str | None
    output_dir: str
    data: dict[str, RolePlan]
    steps: int
    steps_per_epoch: int | None
    epochs: float | None
    processes: int
    parameters: ParameterReport
    encoder_layers: int
    memory_gib: dict[str, float]
    checks: DataChecks
    measured: Measured | None


def plan_run(recipe: Recipe) -> Plan:
    """Everything that `--dry-run` prints. Local data are read and checked; of Common Voice on the Hub the transcripts are.

    Raises:
        UserError: data or base models that the run would not find either, what else would stop it here, or another data set
            that is still on the Hub.
    """
    check_environment(recipe)
    processor, model = build_processor(recipe), skeleton(recipe)  # before the data: a wrong name shows at once
    data: dict[str, RolePlan] = {}
    datasets: dict[str, Any] = {}
    for role in DATA_ROLES:
        specs = getattr(recipe, role)
        if specs:
            data[role], dataset = _plan_role(recipe, specs, role)
            if dataset is not None:
                datasets[role] = dataset
    train_set = datasets.get("train")
    steps, each_epoch = _steps(recipe, train_set, data["train"], processor)
    return {
        "recipe": recipe.name,
        "output_dir": recipe.output_dir,
        "data": data,
        "steps": steps,
        "steps_per_epoch": each_epoch,
        "epochs": round(steps / each_epoch, 2) if each_epoch else None,
        "processes": PartialState().num_processes,
        "parameters": model.parameter_report(),
        "encoder_layers": len(model.config.kept_encoder_layers),
        "memory_gib": estimate_memory(recipe, model, max(train_set["seconds"]) if train_set is not None else None),
        "checks": check_data(datasets, recipe.normalizer),
        "measured": _measured(recipe, datasets) if datasets.keys() == data.keys() else None,
    }


def _measured(recipe: Recipe, datasets: dict[str, Any]) -> Measured | None:
    """Where the base models' weights are on this machine, how long the run takes; a dry run downloads none."""
    models = ((recipe.audio_model, recipe.audio_revision), (recipe.text_model, recipe.text_revision))
    if not all(_is_here(base_model(name), revision) for name, revision in models):
        return None
    print("Measuring a few steps ...", file=sys.stderr, flush=True)
    return measure(recipe, datasets)


def _is_here(model: str, revision: str | None) -> bool:
    """Whether a base model's weights are on this machine, in a folder or in the Hub's cache."""
    try:
        folder = model if Path(model).is_dir() else snapshot_download(model, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return False
    return any(Path(folder).glob("*.safetensors"))


def describe(plan: Plan) -> str:
    """The plan as lines for people."""
    lines = [f"run          {plan['recipe'] or '(no name)'} -> {plan['output_dir']}"]
    for role, item in plan["data"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in item["dropped"].items())
        hours = f"{item['hours']:.2f} h" if item["known"] else f"about {item['hours']:.0f} h (from the transcripts)"
        lines.append(
            f"{role:<12} {item['utterances']} utterances, {hours}{f' (left out: {dropped})' if dropped else ''}"
        )
    epochs = f" ({plan['epochs']} epochs of {plan['steps_per_epoch']})" if plan["steps_per_epoch"] else ""
    report = plan["parameters"]
    lines += [
        f"steps        {plan['steps']}{epochs}, {plan['processes']} process(es)",
        f"encoder      {plan['encoder_layers']} blocks kept, {report['encoder']:,} parameters",
        f"parameters   {report['total']:,} in all, {report['trainable']:,} trained "
        f"(projector {report['projector']:,}, LoRA {report['lora']:,})",
    ]
    memory = plan["memory_gib"]
    parts = ", ".join(f"{name} {value:.2f}" for name, value in memory.items() if name != "total")
    lines.append(f"memory       about {memory['total']:.2f} GiB a device ({parts}); an estimate, not a measurement")
    measured = plan["measured"]
    if measured is None:
        lines.append("time         not measured: data or base models are not on this machine yet")
    else:
        each = "" if measured.seconds_a_validation is None else f", {measured.seconds_a_validation:.1f} s a validation"
        warm = ", without the warm start before" if measured.warm_start else ""
        peak = "" if measured.peak_gib is None else f", {measured.peak_gib:.1f} GiB of the GPU at the peak"
        lines.append(
            f"time         about {measured.minutes:.1f} minutes here{warm} ({measured.seconds_a_step:.2f} s a step{each}{peak}; "
            "measured on a few steps)"
        )
    return "\n".join([*lines, *plan["checks"].lines()])


def estimate_memory(
    recipe: Recipe, model: SlamAsrForConditionalGeneration, longest: float | None = None, cached: bool = False
) -> dict[str, float]:
    """GiB that training takes on a device: weights, gradients with AdamW's two moments, activations, logits.

    `longest` is the longest utterance in seconds; the recipe's limit when it is not known. From `cached` states the
    encoder is not in memory.

    Activations are those that the LLM keeps for the backward pass: about 17 hidden vectors a layer and position, and 3 of
    the feed-forward width; with gradient checkpointing one hidden vector a layer. The frozen encoder keeps none.
    """
    report = model.parameter_report()
    frozen = report["total"] - report["trainable"] - (report["encoder"] if cached else 0)
    width = 2 if recipe.dtype == "bfloat16" else 4
    compute = 2 if uses_autocast(recipe) or width == 2 else 4
    text = model.config.text_config
    positions = _positions(recipe, longest or max(spec.max_duration for spec in recipe.train))
    layers, hidden = text.num_hidden_layers, text.hidden_size
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    kept = hidden if recipe.gradient_checkpointing else 17 * hidden + 3 * inner
    label_positions = positions / 3
    memory = {
        "weights": frozen * width / _GIB + report["trainable"] * 4 / _GIB,
        "optimiser": report["trainable"] * 12 / _GIB,
        "activations": positions * layers * kept * compute / _GIB,
        "logits": label_positions * text.vocab_size * 8 / _GIB,
    }
    return {**memory, "total": sum(memory.values())}


def _positions(recipe: Recipe, longest: float) -> float:
    """LLM positions of the largest batch."""
    if recipe.batch_tokens is not None:
        return float(recipe.batch_tokens)
    if recipe.batch_seconds is not None:
        return recipe.batch_seconds * positions_a_second(recipe)
    return recipe.batch_size * longest * positions_a_second(recipe, longest)


def _plan_role(recipe: Recipe, specs: list[DataSpec], role: str) -> tuple[RolePlan, Any]:
    remote = [spec for spec in specs if DATA_KINDS[detect_format(spec)].place == "remote" and not spec.path.exists()]
    if not remote:
        dataset, report = prepare(specs, role, seed=recipe.seed, max_bad_fraction=recipe.max_bad_fraction)
        return RolePlan(utterances=report.kept, hours=report.hours, dropped=report.dropped, known=True), dataset
    count = 0
    for spec in remote:
        if detect_format(spec) != "common_voice":
            raise UserError(
                f"A dry run cannot look into {spec.dataset!r} without downloading it. Give it a copy in a folder "
                "(`datasets.load_dataset(...).save_to_disk(FOLDER)`), or start the run: it checks its data before it trains."
            )
        found = len(transcripts_only(spec))
        wanted = spec.max_hours * 3600 / SECONDS_A_CLIP if spec.max_hours else found
        count += int(min(found, wanted, spec.max_samples or found))
    return RolePlan(utterances=count, hours=count * SECONDS_A_CLIP / 3600, dropped={}, known=False), None


def _steps(recipe: Recipe, train_set: Any, plan: RolePlan, processor: SlamAsrProcessor) -> tuple[int, int | None]:
    if train_set is not None:
        return planned_steps(recipe, make_sampler(recipe, train_set, processor))
    batch = recipe.batch_size
    if recipe.batch_seconds is not None or recipe.batch_tokens is not None:
        budget = recipe.batch_seconds or recipe.batch_tokens / positions_a_second(recipe)  # type: ignore[operator]
        batch = max(1, int(budget / SECONDS_A_CLIP))
    each_step = batch * PartialState().num_processes * recipe.gradient_accumulation_steps
    each_epoch = math.ceil(plan["utterances"] / each_step)
    return recipe.max_steps or math.ceil(recipe.num_epochs * each_epoch), each_epoch


def skeleton(recipe: Recipe, known: Mapping[str, PreTrainedConfig] | None = None) -> SlamAsrForConditionalGeneration:
    """The model without weights, from the base models' configurations alone.

    Args:
        known: configurations that need not be read, by the base model's name.
    Raises:
        UserError: a configuration cannot be read.
        ValueError: LoRA is to go on layers that the LLM or the encoder does not have.
    """
    known = known or {}
    with reading_base_models(recipe):
        audio, text = (
            known.get(name) or AutoConfig.from_pretrained(base_model(name), revision=revision or "main")
            for name, revision in (
                (recipe.audio_model, recipe.audio_revision),
                (recipe.text_model, recipe.text_revision),
            )
        )
    config = SlamAsrConfig(
        audio_config=audio,
        text_config=text,
        prune_encoder_layers=recipe.prune_encoder_layers,
        **config_settings(recipe),
    )
    with torch.device("meta"):
        model = SlamAsrForConditionalGeneration(config)
    for part, settings in ((model.language_model, config.lora), (model.audio_encoder, config.encoder_lora)):
        if settings is not None:
            refuse_unfit_targets(part, settings)
    return model


def positions_a_second(recipe: Recipe, seconds: float = SECONDS_A_CLIP) -> float:
    """LLM positions of a second of speech, in utterances of `seconds`: audio tokens, and about 6 of prompt and transcript."""
    geometry = SlamAsrConfig(**recipe.projector.to_config()).audio_geometry
    return float(1 / geometry.seconds_per_token(seconds)) + 6
