"""Healed encoders in a study: one for each set of kept blocks, shared by the runs that use it."""

import copy
import hashlib
import json
from dataclasses import asdict
from typing import Any

from modeling_slam_asr import SlamAsrForConditionalGeneration
from trainers.build import build_model, build_processor
from trainers.feature_cache import build_cache
from trainers.feature_cache.depths import check_depths
from trainers.feature_cache.keys import audio_fingerprints, cache_key, encoder_fingerprint, mel_settings
from trainers.feature_cache.store import lock_file
from trainers.healing import heal, untranscribed
from trainers.recipe import Recipe
from trainers.study.data import StudyData, features_folder
from trainers.study.plan import PlannedRun
from trainers.study.recipe import StudyRecipe


def healed_model(
    study: StudyRecipe, run: PlannedRun, recipe: Recipe, kept: tuple[int, ...], data: StudyData
) -> SlamAsrForConditionalGeneration:
    """The recipe's model with its pruned encoder healed; the first run that needs that encoder trains it."""
    assert study.heal is not None
    spec, method = study.heal, run.point["healing"]
    below, whole = data.healing_depths(run, kept)
    full = data.encoder(run.recipe).encoder
    if spec.speech:
        cache = build_cache(
            features_folder(study), untranscribed(spec.speech, data.quiet), full, build_processor(recipe), [below, whole],
            dtype=study.cache.dtype, batch_seconds=study.cache.batch_seconds, max_gigabytes=study.cache.max_gigabytes,
            quiet=data.quiet,
        )  # fmt: skip
    else:
        cache = data.features(run.recipe, "train", [below, whole])
    assert cache.rows is not None
    # By content, and apart from the other depths of the cache: a grid that grows keeps its healed encoders.
    content = cache_key(
        encoder_fingerprint(full), check_depths([below, whole], full), mel_settings(build_processor(recipe)),
        study.cache.dtype, audio_fingerprints(cache.rows),
    )  # fmt: skip
    mark = json.dumps([content, list(kept), method, asdict(spec)], sort_keys=True)
    folder = study.folder / "healed" / hashlib.sha256(mark.encode()).hexdigest()[:16]
    model = build_model(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / "healing.lock", wait=True):
        # Healing works on a float32 copy: small steps vanish in bfloat16 weights.
        encoder = copy.deepcopy(model.audio_encoder).float()
        heal(encoder, cache.dataset(below), cache.dataset(whole), spec, folder, method=method, quiet=data.quiet)
    model.audio_encoder.load_state_dict(encoder.state_dict())
    return model


def healed_features(
    study: StudyRecipe, recipe: Recipe, model: SlamAsrForConditionalGeneration, data: StudyData
) -> dict[str, Any]:
    """Training and validation data as the healed encoder sees them."""
    kept = tuple(model.config.kept_encoder_layers)
    found = {}
    for role in ("train", "validation"):
        rows = data.rows(recipe, role)
        if rows is None:
            continue
        if not study.cache.enabled:
            found[role] = rows
            continue
        cache = build_cache(
            features_folder(study), rows, model.audio_encoder, build_processor(recipe), [kept],
            dtype=study.cache.dtype, batch_seconds=study.cache.batch_seconds, max_gigabytes=study.cache.max_gigabytes,
            quiet=data.quiet,
        )  # fmt: skip
        found[role] = cache.dataset(kept)
    return found
