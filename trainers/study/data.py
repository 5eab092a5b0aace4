"""Data sets and encoder states that the runs of a study share."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from modeling_slam_asr import SlamAsrConfig
from modeling_slam_asr.configuration_slam_asr import kept_layers
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from trainers.data.prepare import MAX_BAD_FRACTION, DataReport, prepare
from trainers.data.spec import DataSpec
from trainers.embedded.base_models import base_model
from trainers.encoder_depth.block_measures import profile_encoder
from trainers.encoder_depth.healing import trained_blocks
from trainers.encoder_depth.loading import LoadedEncoder, load_encoder
from trainers.encoder_depth.selection import PROFILE, TRAINED, DepthProfile, choose_blocks, needs_of
from trainers.feature_cache import FeatureCache, build_cache
from trainers.files import lock_file, write_json
from trainers.provenance import DataCounts
from trainers.recipe import Recipe
from trainers.recipes.checked_dataclasses import content
from trainers.recipes.recipe_values import DATA_ROLES
from trainers.study.plan import PlannedRun, folder_mark
from trainers.study.recipe import StudyRecipe
from trainers.training.models import build_processor

DATA_SEED = 42  # which rows `max_samples` keeps must not differ between the seeds that are compared


class StudyData:
    """
    Prepared data, block profiles and feature caches, each made once in a process and kept on disk for all.

    Args:
        runs: all runs of the study; a cache holds every depth that one of them needs.
    """

    def __init__(self, study: StudyRecipe, runs: Sequence[PlannedRun], quiet: bool = False) -> None:
        self.study, self.runs, self.quiet = study, runs, quiet
        self._rows: dict[str, tuple[Dataset, DataReport]] = {}
        self._caches: dict[str, FeatureCache] = {}
        self._profiles: dict[str, DepthProfile] = {}
        self._encoder: tuple[str, LoadedEncoder] | None = None

    def rows(self, recipe: Recipe, role: str) -> Dataset | None:
        """The prepared data set of a role, or None where the recipe has none."""
        specs = getattr(recipe, role)
        return self.prepared(specs, role, recipe.max_bad_fraction)[0] if specs else None

    def describe(self, recipe: Recipe) -> dict[str, DataCounts]:
        """What became of the rows of each role that the recipe has, as for a run's `metrics.json`."""
        return {
            role: self.prepared(getattr(recipe, role), role, recipe.max_bad_fraction)[1].as_dict()
            for role in DATA_ROLES
            if getattr(recipe, role)
        }

    def prepared(
        self, specs: Sequence[DataSpec], role: str, max_bad_fraction: float = MAX_BAD_FRACTION
    ) -> tuple[Dataset, DataReport]:
        """The rows of some sources, checked and filtered, and the report on them."""
        mark = _mark([role, *map(content, specs), max_bad_fraction])
        if mark not in self._rows:
            folder = self.study.folder / "data" / mark[:16]
            self._rows[mark] = prepare(
                specs, role, seed=DATA_SEED, max_bad_fraction=max_bad_fraction, output_dir=folder, quiet=self.quiet
            )
            if not self.quiet:
                print(self._rows[mark][1].describe(), flush=True)
        return self._rows[mark]

    # ------------------------------------------------------------------ which blocks

    def kept_blocks(self, run: PlannedRun, profile: DepthProfile | None = None) -> tuple[int, ...]:
        """The encoder blocks that a run keeps.

        Args:
            profile: for selection by the loss without each block, which needs a trained model.
        """
        blocks = len(self.encoder(run.recipe).encoder.layers)
        prune, method = run.recipe.prune_encoder_layers, run.point["selection"]
        if not isinstance(prune, list):
            if needs_of(method) == PROFILE and prune:
                profile = self.profile(run.recipe)
            prune = choose_blocks(method, prune, blocks, profile)
        return tuple(kept_layers(prune, blocks))

    def profile(self, recipe: Recipe) -> DepthProfile:
        """The similarity profile of a recipe's encoder on a sample of its training data."""
        specs = [dataclasses.replace(spec, max_samples=None) for spec in recipe.train]
        measures = [field.name for field in dataclasses.fields(DepthProfile)]
        names = [base_model(recipe.audio_model), *(spec.dataset for spec in recipe.train)]
        read = [self.encoder_mark(recipe), *map(content, specs), *map(folder_mark, names)]
        mark = _mark(["profile", measures, read, self.study.profile_samples])
        if mark not in self._profiles:
            path = self.study.folder / "profiles" / f"{mark[:16]}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock_file(path.with_suffix(".lock"), wait=True):
                if not path.is_file():
                    loaded = self.encoder(recipe)
                    train, _ = self.prepared(recipe.train, "train", recipe.max_bad_fraction)
                    sample = sample_rows(train, self.study.profile_samples)
                    profile = profile_encoder(
                        loaded.encoder, sample, build_processor(recipe).extract_features, quiet=self.quiet
                    )
                    write_json(path, dataclasses.asdict(profile))
                self._profiles[mark] = DepthProfile(**json.loads(path.read_text(encoding="utf-8")))
        return self._profiles[mark]

    # ------------------------------------------------------------------ encoder states

    def encoder(self, recipe: Recipe) -> LoadedEncoder:
        """The recipe's full encoder; the last one asked for stays in memory."""
        mark = self.encoder_mark(recipe)
        if self._encoder is None or self._encoder[0] != mark:
            loaded = load_encoder(recipe.audio_model, device=recipe.loading_device, revision=recipe.audio_revision)
            loaded.encoder.to(getattr(torch, recipe.dtype))
            self._encoder = (mark, loaded)
        return self._encoder[1]

    def release_encoder(self) -> None:
        """Let go of the encoder; whoever asks for it next reads it anew."""
        self._encoder = None

    def encoder_mark(self, recipe: Recipe) -> str:
        """What tells one base encoder, and the form of its input, from another."""
        unit = SlamAsrConfig(**recipe.projector.to_config()).audio_geometry.frames_per_token
        return _mark([recipe.audio_model, recipe.audio_revision, recipe.dtype, unit, recipe.pad_to_30s])

    def features(self, recipe: Recipe, role: str, depths: Sequence[tuple[int, ...]]) -> FeatureCache:
        """The cache of a role's data with `depths`, and with those that other runs on the same data and encoder need.

        Depths that only a trained model can choose are not known beforehand; they get a cache of their own.
        """
        dataset = self.rows(recipe, role)
        assert dataset is not None
        known = self.known_depths(recipe, role)
        wanted = known if set(depths) <= known else set(depths)
        mark = _mark([self.encoder_mark(recipe), role, *map(content, getattr(recipe, role)), sorted(wanted)])
        if mark not in self._caches:
            self._caches[mark] = self.build_cache(dataset, self.encoder(recipe).encoder, recipe, sorted(wanted))
        return self._caches[mark]

    def build_cache(
        self, rows: Any, encoder: SlamAsrEncoder, recipe: Recipe, depths: Sequence[tuple[int, ...]]
    ) -> FeatureCache:
        """A cache in the study's folder, with its settings."""
        settings = self.study.cache
        return build_cache(
            settings.directory or self.study.folder / "features", rows, encoder, build_processor(recipe), depths,
            dtype=settings.dtype, batch_seconds=settings.batch_seconds, max_gigabytes=settings.max_gigabytes, quiet=self.quiet,
        )  # fmt: skip

    def known_depths(self, recipe: Recipe, role: str) -> set[tuple[int, ...]]:
        """Every set of kept blocks that the study's runs with this encoder and these data need."""
        alike = [
            run
            for run in self.runs
            if self.encoder_mark(run.recipe) == self.encoder_mark(recipe)
            and getattr(run.recipe, role) == getattr(recipe, role)
            and needs_of(run.point["selection"]) != TRAINED
        ]
        healed_on_these_data = role == "train" and self.study.heal is not None and not self.study.heal.speech
        depths: set[tuple[int, ...]] = set()
        for run in alike:
            depths.update(self.elastic_depth(run, depth) for depth in run.depths)
            if run.point["healing"] not in ("encoder", "lora"):
                depths.add(self.kept_blocks(run))
            elif healed_on_these_data:
                depths.update(self.healing_depths(run, self.kept_blocks(run)))
        return depths

    def healing_depths(self, run: PlannedRun, kept: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The blocks below the first one that healing trains, and all blocks: what it reads, and what it aims at."""
        assert self.study.heal is not None
        below = kept[: len(kept) - trained_blocks(self.study.heal, kept)]
        return below, tuple(self.encoder(run.recipe).encoder.kept_layers)

    def elastic_depth(self, run: PlannedRun, depth: int | tuple[int, ...]) -> tuple[int, ...]:
        """The blocks that one of an elastic run's depths keeps."""
        return tuple(kept_layers(depth, len(self.encoder(run.recipe).encoder.layers)))


def sample_rows(rows: Dataset, count: int) -> Dataset:
    """A seeded choice of `count` rows."""
    if len(rows) <= count:
        return rows
    return rows.shuffle(seed=DATA_SEED).select(range(count))


def _mark(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
