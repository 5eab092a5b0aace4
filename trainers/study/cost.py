"""What the runs of a study would take before any is started: hours, GPU memory and money, from sizes alone."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import Qwen2Config, WhisperConfig

from modeling_slam_asr.projector_slam_asr import ENCODER_FRAMES_PER_SECOND
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.recipe import Recipe
from trainers.recipes.checked_dataclasses import plain
from trainers.recipes.recipe_values import DATA_ROLES
from trainers.study.plan import PlannedRun
from trainers.study.recipe import StudyRecipe
from trainers.training.dry_run import SECONDS_A_CLIP, describe, estimate_memory, plan_run, positions_a_second, skeleton

# Generating a token reads all weights for few products: it reaches about this share of the speed of training.
_DECODING_SPEED = 0.1
# Sizes of the paper's base models, so that its grid is planned without a network.
_KNOWN = {
    **{
        f"openai/whisper-{size}": WhisperConfig(
            num_mel_bins=80, d_model=width, encoder_layers=layers, encoder_attention_heads=width // 64,
            encoder_ffn_dim=4 * width,
        )
        for size, width, layers in (("small", 768, 12), ("medium", 1024, 24), ("large-v2", 1280, 32))
    },
    "Qwen/Qwen2.5-3B": Qwen2Config(
        vocab_size=151_936, hidden_size=2048, intermediate_size=11_008, num_hidden_layers=36, num_attention_heads=16,
        num_key_value_heads=2, tie_word_embeddings=True,
    ),
}  # fmt: skip
_DANISH = ("fsicoli/common_voice_22_0", "da", "train", None)
_DANISH_HOURS = 4.2  # of that split (arXiv 2603.27981); the only training set of the grid without max_hours
_SHARE_OF_TRAINING = 0.2  # what a validation or test set of unknown length is taken for


@dataclass(frozen=True)
class RunCost:
    """Of one run: hours of one GPU (None where the amount of data is not known), GiB of its memory."""

    hours: float | None
    memory_gib: float


@dataclass(frozen=True)
class Sizes:
    """Parameters of an unpruned model, of one of its encoder's blocks, and the GiB that training takes."""

    total: int
    encoder: int
    trainable: int
    block: int
    memory_gib: float


class CostModel:
    """
    Costs of a study's runs.

    A position of a frozen LLM takes 2 products a parameter forward and 2 backward; the encoder 2 a parameter and frame,
    once for all runs when its states are cached, and then not counted here. Early stopping is not foreseen.

    Args:
        tflops: 10^12 products and sums that the device does in a second of training.
    """

    def __init__(self, study: StudyRecipe, tflops: float) -> None:
        self.study, self.tflops = study, tflops
        self._sizes: dict[str, Sizes] = {}

    def of(self, run: PlannedRun) -> RunCost:
        """
        Raises:
            UserError, OSError: the base models' configurations cannot be read.
        """
        recipe = run.recipe
        cached = self.study.cache.enabled
        sizes = self._sizes_of(recipe)
        pruned = recipe.prune_encoder_layers
        removed = sizes.block * (pruned if isinstance(pruned, int) else len(pruned))
        llm = sizes.total - sizes.encoder - sizes.trainable
        memory = sizes.memory_gib
        if not cached:
            memory -= removed * (2 if recipe.dtype == "bfloat16" else 4) / 2**30
        trained, epochs = self._trained_seconds(recipe)
        if trained is None:
            return RunCost(None, memory)
        each = positions_a_second(recipe)
        work = trained * each * (4 * llm + 6 * sizes.trainable)
        if not cached:
            work += trained * ENCODER_FRAMES_PER_SECOND * 2 * (sizes.encoder - removed)
        validations = max(1.0, epochs)
        each_set = [hours(specs) for specs in (recipe.validation, recipe.test)]
        guess = _SHARE_OF_TRAINING * trained / 3600 / validations
        validation, test = (guess if known is None else known for known in each_set)
        heard = 3600 * (validation * validations + test)
        work += heard * each * 2 * llm * recipe.decoding.num_beams / _DECODING_SPEED
        return RunCost(work / (self.tflops * 1e12) / 3600, memory)

    def _sizes_of(self, recipe: Recipe) -> "Sizes":
        """Those of the model with all blocks: the same for all depths and languages, as making it takes seconds."""
        longest = max((spec.max_duration for spec in recipe.train), default=None)
        kind = [recipe.audio_model, recipe.text_model, plain(recipe.projector), recipe.model, recipe.dtype, longest]
        batch = [recipe.batch_size, recipe.batch_seconds, recipe.batch_tokens, recipe.gradient_checkpointing]
        key = json.dumps([kind, batch, recipe.lora and plain(recipe.lora)], default=str)
        if key not in self._sizes:
            model = skeleton(dataclasses.replace(recipe, prune_encoder_layers=0), _KNOWN)
            report = model.parameter_report()
            self._sizes[key] = Sizes(
                total=report["total"],
                encoder=report["encoder"],
                trainable=report["trainable"],
                block=sum(parameter.numel() for parameter in model.audio_encoder.layers[0].parameters()),
                memory_gib=estimate_memory(recipe, model, longest, cached=self.study.cache.enabled)["total"],
            )
        return self._sizes[key]

    def _trained_seconds(self, recipe: Recipe) -> tuple[float | None, float]:
        """Seconds of speech that the run goes through, and how many epochs that is (0: not known)."""
        known = hours(recipe.train)
        if recipe.max_steps is None:
            return (None, 0.0) if known is None else (3600 * known * recipe.num_epochs, recipe.num_epochs)
        batch = recipe.batch_seconds or recipe.batch_size * SECONDS_A_CLIP
        if recipe.batch_tokens is not None:
            batch = recipe.batch_tokens / positions_a_second(recipe)
        seconds = recipe.max_steps * recipe.gradient_accumulation_steps * batch
        return seconds, seconds / (3600 * known) if known else 0.0


def hours(specs: Sequence[DataSpec]) -> float | None:
    """Hours of speech as far as the recipe says; None where only reading the data would tell."""
    total = 0.0
    for spec in specs:
        papers = (spec.dataset, spec.language, spec.split, spec.max_samples) == _DANISH
        known = spec.max_hours if spec.max_hours is not None else _DANISH_HOURS if papers else None
        if known is None:
            return None
        total += known
    return total


def describe_costs(study: StudyRecipe, runs: Sequence[PlannedRun], tflops: float, price: float) -> str:
    """A line a run with its hours, memory and price, and their sum; without the costs, a line that says why."""
    model = CostModel(study, tflops)
    try:
        costs = [model.of(run) for run in runs]
    except (UserError, OSError) as error:
        names = "\n".join(run.name for run in runs)
        reason = " ".join(str(error).split())
        return f"{names}\n{len(runs)} runs in {study.folder}\nHours, memory and cost are not known here: {reason}"
    width = max(len(run.name) for run in runs)
    lines = [f"{'run':<{width}}  {'GPU hours':>9}  {'GiB':>6}  {'cost':>8}"]
    for run, cost in zip(runs, costs, strict=True):
        shown = ("?", "?") if cost.hours is None else (f"{cost.hours:.2f}", f"{cost.hours * price:.2f}")
        lines.append(f"{run.name:<{width}}  {shown[0]:>9}  {cost.memory_gib:>6.1f}  {shown[1]:>8}")
    known = [cost.hours for cost in costs if cost.hours is not None]
    total = sum(known)
    lines.append(f"{len(runs)} runs in {study.folder}: {total:.1f} GPU hours, {total * price:.0f} at {price:g} an hour")
    if len(known) < len(runs):
        lines.append(
            f"({len(runs) - len(known)} of them not counted: how much they train on is not known before it is read)"
        )
    lines.append(
        f"Estimates from sizes, at {tflops:g} TFLOP/s sustained (--tflops) and {price:g} a GPU hour (--price), without early "
        "stopping; "
        + ("the one pass of the encoder for the cache is not counted." if study.cache.enabled else "no cache.")
    )
    return "\n".join(lines)


def try_kinds(runs: Sequence[PlannedRun]) -> None:
    """Print the dry run of the first run of each kind: of each pair of base models, data and LoRA or not."""
    seen = set()
    for run in runs:
        data = [plain(spec) for role in DATA_ROLES for spec in getattr(run.recipe, role)]
        kind = json.dumps([run.point["audio_model"], run.point["text_model"], run.point["lora"], data], default=str)
        if kind not in seen:
            seen.add(kind)
            print(f"== {run.name}, for the runs of its kind\n{describe(plan_run(run.recipe))}\n", flush=True)
