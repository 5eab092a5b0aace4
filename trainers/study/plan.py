"""The runs of a study: the grid expanded, each run with its recipe and the hash of all that its result depends on."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict, cast

from trainers.embedded.base_models import base_model
from trainers.errors import UserError
from trainers.provenance import file_sha256
from trainers.recipe import Recipe, from_dict
from trainers.recipes.checked_dataclasses import content, nearest
from trainers.recipes.recipe_values import DATA_ROLES, apply_overrides, matches, run_values
from trainers.study.recipe import StudyRecipe


class GridPoint(TypedDict):
    """A run's value on each axis of the grid. The axes' order is that of the runs: the last one changes first."""

    seed: int
    audio_model: str
    text_model: str
    language: str
    prune_encoder_layers: int | list[int]
    selection: str
    healing: str
    lora: bool


@dataclass(frozen=True)
class PlannedRun:
    """
    One run of a study.

    Attributes:
        point: its value on each axis of the grid.
        recipe: its training recipe; `prune_encoder_layers` is a count until blocks are chosen by `selection`.
        depths: for an elastic run, all that it serves, as values of `prune_encoder_layers`.
        key: SHA-256 of all that the result depends on.
        folder: where it is kept.
    """

    point: GridPoint
    recipe: Recipe
    depths: tuple[Any, ...]
    key: str
    folder: Path

    @property
    def name(self) -> str:
        """Readable, and in a study the folder's: with the beginning of the key."""
        return self.recipe.name

    @property
    def model_folder(self) -> Path:
        """Where its model is trained and stays."""
        return Path(self.recipe.output_dir)


def plan_runs(study: StudyRecipe) -> list[PlannedRun]:
    """Every run of the grid, once, in the grid's order (seeds last, so that each seed's comparison is complete early).

    Raises:
        UserError: a run's recipe is not valid.
    """
    runs: dict[str, PlannedRun] = {}
    for point in grid_points(study):
        recipe = run_recipe(study, point)
        depths = (
            tuple(_frozen(value) for value in study.grid.prune_encoder_layers) if point["healing"] == "elastic" else ()
        )
        key = run_key(study, point, recipe, depths)
        folder = run_folder(study.folder / "runs", run_name(study, point), key)
        recipe.name, recipe.output_dir = folder.name, str(folder / "model")
        runs.setdefault(key, PlannedRun(point, recipe, depths, key, folder))
    if not runs:
        raise UserError("The study has no run: `skip` leaves nothing of the grid.")
    return list(runs.values())


def run_folder(runs: Path, name: str, key: str) -> Path:
    """The folder of a run: the one that has its key, whatever name a larger or smaller grid gave it, else a new one."""
    own = runs / f"{name}-{key[:8]}"
    return own if own.is_dir() else next(iter(sorted(runs.glob(f"*-{key[:8]}"))), own)


def grid_points(study: StudyRecipe) -> list[GridPoint]:
    """The grid's combinations without those that `skip` names and those that differ in name only."""
    axes: dict[str, Sequence[Any]] = {name: getattr(study.grid, name) for name in GridPoint.__annotations__}
    for name in ("audio_model", "text_model"):
        axes[name] = axes[name] or [study.run.get(name)]
    points: dict[str, GridPoint] = {}
    for values in itertools.product(*axes.values()):
        point = cast(GridPoint, dict(zip(axes, values, strict=True)))
        if any(matches(point, condition) for condition in study.skip):
            continue
        if point["healing"] == "elastic":
            point["prune_encoder_layers"] = 0
            point["selection"] = "last"
        elif isinstance(point["prune_encoder_layers"], list):
            point["selection"] = "listed"
        elif point["prune_encoder_layers"] == 0:
            point["selection"], point["healing"] = "last", "none"
        points.setdefault(json.dumps(point, sort_keys=True), point)
    return list(points.values())


def run_recipe(study: StudyRecipe, point: GridPoint) -> Recipe:
    """The training recipe of one point of the grid: `run`, the rules that fit, and the point's own values."""
    values = run_values(study.run, study.rules, point)
    if point["healing"] in ("encoder", "lora"):
        values["checkpoint_form"] = "standalone"  # the healed blocks are in no repository
    try:
        recipe = from_dict(values)
    except UserError as error:
        raise UserError(f"The run {run_name(study, point)} of the study: {error}") from error
    if recipe.model.get("encoder_lora") is not None and study.cache.enabled:
        raise UserError("model.encoder_lora is trained from sound, not from cached states: set cache.enabled to false.")
    if not recipe.test and not recipe.validation:
        raise UserError("run.test is empty: a study needs data to score its runs on.")
    return recipe


def named_run(study: StudyRecipe, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of one run of a study by its name, in a folder of its own, for training it alone.

    Args:
        name: as `--plan` lists it, with or without the key at its end.
    Raises:
        UserError: no run has that name, or its encoder is chosen or healed in a way that only the study does.
    """
    points = {run_name(study, point): point for point in grid_points(study)}
    wanted = name if name in points else re.sub(r"-[0-9a-f]{8}$", "", name)
    point = points.get(wanted)
    if point is None:
        raise UserError(
            f"The study {study.name!r} has no run {name!r}.{nearest(name, points)} Its names are of the form {next(iter(points))!r}; "
            "`slam-asr study ... --plan` lists them all."
        )
    if point["healing"] != "none" or point["selection"] not in ("last", "listed"):
        raise UserError(f"The run {wanted} needs what the study makes first: `slam-asr study` does it, `train` cannot.")
    recipe = run_recipe(study, point)
    values = {**recipe.to_dict(), "name": wanted, "output_dir": f"runs/{wanted}"}
    return from_dict(apply_overrides(values, overrides))


def run_key(study: StudyRecipe, point: GridPoint, recipe: Recipe, depths: tuple[Any, ...]) -> str:
    """SHA-256 over recipe, selection, healing, base weights and data lists, as far as they can be read without a network."""
    values = recipe.outcome()
    for name in ("audio_model", "text_model"):  # by content, so that a folder may move
        values[name] = folder_mark(base_model(values[name])) or values[name]
    if values["init_from"] is not None:
        values["init_from"] = folder_mark(values["init_from"]) or values["init_from"]
    for role in DATA_ROLES:
        values[role] = [{**spec, "dataset": folder_mark(spec["dataset"]) or spec["dataset"]} for spec in values[role]]
    profiled, healed = point["selection"] not in ("last", "listed"), point["healing"] in ("encoder", "lora")
    marked: dict[str, Any] = {
        "recipe": values,
        "selection": [point["selection"], study.profile_samples if profiled else None],
        "healing": [point["healing"], depths, heal_content(study) if healed else None],
        "features": study.features,
    }
    return hashlib.sha256(json.dumps(marked, sort_keys=True, default=vars).encode()).hexdigest()


def contents(recipe: Recipe) -> list[str]:
    """The marks of a recipe's base models and of what is trained and validated on, as `folder_mark` gives them."""
    texts = recipe.warm_start.texts if recipe.warm_start is not None else []
    data = [spec.dataset for role in ("train", "validation") for spec in getattr(recipe, role)]
    return [
        folder_mark(name) for name in (base_model(recipe.audio_model), base_model(recipe.text_model), *data, *texts)
    ]


@lru_cache(maxsize=256)
def folder_mark(name: str) -> str:
    """What a path holds: a file's SHA-256; a folder's weights, configurations and tables, and its other files' sizes.

    Empty for what is not on this machine: a Hub repository's name (its `revision` pins it) or the embedded corpus.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        return ""
    read = (".safetensors", ".json", ".jsonl", ".csv", ".tsv")
    lines = [
        f"{file.relative_to(path).as_posix()} {file_sha256(file) if file.suffix in read else file.stat().st_size}"
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def run_name(study: StudyRecipe, point: GridPoint) -> str:
    """A short readable name of a point, such as `whisper-small-da-prune2-lora-seed42`; the LLM's is in it where a study has several."""
    prune = point["prune_encoder_layers"]
    models = [point["audio_model"]] + ([point["text_model"]] if len(study.grid.text_model) > 1 else [])
    parts = [str(model).rstrip("/").split("/")[-1] for model in models]
    parts += [point["language"]] if point["language"] != "all" else []
    parts += [
        "elastic"
        if point["healing"] == "elastic"
        else f"prune{'_'.join(map(str, prune)) if isinstance(prune, list) else prune}"
    ]
    parts += [point["selection"]] if point["selection"] not in ("last", "listed") else []
    parts += [f"healed_{point['healing']}"] if point["healing"] in ("encoder", "lora") else []
    parts += ["lora" if point["lora"] else "projector", f"seed{point['seed']}"]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts))


def in_shard(runs: Sequence[PlannedRun], shard: tuple[int, int] | None) -> list[PlannedRun]:
    """The runs of one machine: every n-th, beginning with the i-th; all without a shard."""
    return list(runs) if shard is None else list(runs[shard[0] - 1 :: shard[1]])


def parse_shard(text: str) -> tuple[int, int]:
    """`2/5` as (2, 5).

    Raises:
        UserError: it is not of that form, or there is no such shard.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text!r}: give which of how many machines, such as 1/4, 2/4, 3/4 and 4/4.")
    return int(match[1]), int(match[2])


def heal_content(study: StudyRecipe) -> list[Any]:
    """The settings of healing that change its outcome, and the marks of its speech."""
    assert study.heal is not None
    settings = content(study.heal, leave=("speech", "save_steps"))
    return [settings, [folder_mark(name) or name for name in study.heal.speech]]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
