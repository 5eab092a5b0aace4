"""A study as a YAML file: a training recipe, the grid of what varies, and rules for what varies with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainers.credentials import refuse_credentials
from trainers.encoder_depth.healing import HealSpec
from trainers.encoder_depth.selection import METHODS
from trainers.errors import UserError
from trainers.recipes.checked_dataclasses import build, expand_home, nearest
from trainers.recipes.recipe_values import Rule, apply_overrides, find_recipe, read_yaml, with_base

if TYPE_CHECKING:  # a type checker cannot read the table
    Selection = str
else:
    Selection = Literal[tuple(METHODS)]
Healing = Literal["none", "encoder", "lora", "elastic"]


@dataclass
class GridSpec:
    """What varies; every combination is a run. Empty lists of models mean the one of `run`.

    `language` "all" is the data as they are; another value keeps that language of the embedded corpus, and labels other
    data. `healing` says what is done to the pruned encoder before the projector is trained (see `heal`); `elastic` is one
    projector for all the depths of the grid. Ways to choose or heal make no difference to an encoder that is not pruned,
    so there they are one run.
    """

    audio_model: list[str] = field(default_factory=list)
    text_model: list[str] = field(default_factory=list)
    prune_encoder_layers: list[int | list[int]] = field(default_factory=lambda: [0])
    selection: list[Selection] = field(default_factory=lambda: ["last"])
    lora: list[bool] = field(default_factory=lambda: [False, True])
    healing: list[Healing] = field(default_factory=lambda: ["none"])
    language: list[str] = field(default_factory=lambda: ["all"])
    seed: list[int] = field(default_factory=lambda: [42])

    def __post_init__(self) -> None:
        for name in ("prune_encoder_layers", "selection", "lora", "healing", "language", "seed"):
            if not getattr(self, name):
                raise UserError(f"grid.{name} is empty: name at least one value.")


@dataclass
class CacheSpec:
    """The feature cache of a study; `directory` is the study's own when None, `max_gigabytes` counts each data set."""

    enabled: bool = True
    directory: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    max_gigabytes: float | None = 50.0
    batch_seconds: float = 60.0

    def __post_init__(self) -> None:
        expand_home(self, "directory")


@dataclass
class StudyRecipe:
    """
    A study.

    `run` holds a training recipe's keys, with `base` to start from another. `skip` lists grid values whose combination is
    left out. `profile_samples` is the number of training utterances that block selection looks at.
    """

    run: dict[str, Any]
    name: str = "study"
    output_dir: str = ""
    grid: GridSpec = field(default_factory=GridSpec)
    rules: list[Rule] = field(default_factory=list)
    skip: list[dict[str, Any]] = field(default_factory=list)
    cache: CacheSpec = field(default_factory=CacheSpec)
    heal: HealSpec | None = None
    profile_samples: int = 64
    keep_checkpoints: bool = False

    def __post_init__(self) -> None:
        self.output_dir = self.output_dir or f"studies/{self.name}"
        expand_home(self, "output_dir")
        names = list(GridSpec.__dataclass_fields__)
        for where, conditions in (("rules", [rule.when for rule in self.rules]), ("skip", self.skip)):
            for condition in conditions:
                for name in condition:
                    if name not in names:
                        raise UserError(
                            f"{where}: {name!r} is no axis of the grid.{nearest(name, names)} Axes: {', '.join(names)}."
                        )
        if set(self.grid.healing) & {"encoder", "lora"} and self.heal is None:
            raise UserError(
                f"grid.healing is {self.grid.healing}, but there is no `heal`: say on which speech, for instance "
                "`heal: {speech: [data/untranscribed]}`; `heal: {}` is on the training speech."
            )

    @property
    def folder(self) -> Path:
        """Where everything of the study is."""
        return Path(self.output_dir)

    @property
    def features(self) -> str | None:
        """In which form runs read encoder states; None where they read sound."""
        return self.cache.dtype if self.cache.enabled else None


def load_study(source: str | Path, overrides: Sequence[str] = ()) -> StudyRecipe:
    """The study in a YAML file, or of that name among those that come with the project, with `key=value` overrides.

    Where the grid names no `seed` or `prune_encoder_layers`, the value that `run` itself (not its base) gives is the grid's.

    Raises:
        UserError: no such recipe, or a key or value that does not fit.
    """
    path = find_recipe(source)
    try:
        values = apply_overrides(read_yaml(path), overrides)
        run = values.get("run")
        if run is None:
            raise UserError(
                "it has no `run`, so it is no study (`slam-asr train` takes recipes of one run). A study says what its runs "
                "share under `run:` and what varies under `grid:`."
            )
        values["run"] = with_base(run, path)
        refuse_credentials(values)
        own = {axis: run.get(axis) for axis in ("seed", "prune_encoder_layers")} if isinstance(run, dict) else {}
        own = {axis: value for axis, value in own.items() if value is not None}
        grid = values.get("grid") or {}
        if isinstance(grid, dict):
            values["grid"] = {**{axis: [value] for axis, value in own.items()}, **grid}
        study = build(StudyRecipe, values)
        for axis, value in own.items():
            if value not in getattr(study.grid, axis):
                raise UserError(f"run.{axis} is {value}, but grid.{axis} is {grid[axis]}: leave one of them out.")
        if study.run.get("push_to_hub") is not None:
            raise UserError(
                "run.push_to_hub: a study publishes nothing; `slam-asr push-study` does, when it is finished."
            )
        return study
    except UserError as error:
        raise UserError(f"Study {path.name}: {error}") from error
