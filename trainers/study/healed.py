"""Healed encoders in a study: one for each set of kept blocks, shared by the runs that use it."""

import copy
import dataclasses
import hashlib
import json
from typing import Literal

from modeling_slam_asr import SlamAsrForConditionalGeneration
from trainers.encoder_depth.healing import HealSpec, heal, untranscribed
from trainers.files import lock_file
from trainers.provenance import HealingRecord
from trainers.recipe import Recipe
from trainers.study.data import StudyData
from trainers.study.plan import PlannedRun
from trainers.study.recipe import StudyRecipe
from trainers.training.models import build_model


def healed_model(
    study: StudyRecipe, run: PlannedRun, recipe: Recipe, kept: tuple[int, ...], data: StudyData
) -> tuple[SlamAsrForConditionalGeneration, HealingRecord | None]:
    """
    The recipe's model with its pruned encoder healed, and what that took; the first run that needs that encoder trains it.

    There is no record of an encoder that an older version healed.
    """
    assert study.heal is not None
    spec = study.heal
    method: Literal["encoder", "lora"] = "lora" if run.point["healing"] == "lora" else "encoder"
    below, whole = data.healing_depths(run, kept)
    if spec.speech:
        rows = untranscribed(spec.speech, data.quiet, spec.audio_root, spec.segments)
        full = data.encoder(run.recipe).encoder
        cache = data.build_cache(rows, full, recipe, [below, whole])
    else:
        cache = data.features(run.recipe, "train", [below, whole])
    # By content, and apart from the other depths of the cache: a grid that grows keeps its healed encoders.
    # Where the rows were found shows in their content, and how often is saved changes nothing: both stand at their defaults,
    # so that encoders which are healed already keep their folders.
    settings = dataclasses.asdict(dataclasses.replace(spec, speech=[], save_steps=HealSpec.save_steps))
    settings = {key: value for key, value in settings.items() if key not in ("audio_root", "segments")}
    mark = json.dumps([cache.key_of([below, whole]), list(kept), method, settings], sort_keys=True)
    folder = study.folder / "healed" / hashlib.sha256(mark.encode()).hexdigest()[:16]
    model = build_model(recipe)
    model.audio_encoder.to(data.encoder(run.recipe).encoder.conv1.weight.device)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / "healing.lock", wait=True):
        # Healing works on a float32 copy: small steps vanish in bfloat16 weights.
        encoder = copy.deepcopy(model.audio_encoder).float()
        healed = heal(
            encoder, cache.dataset(below), cache.dataset(whole), spec, folder, method=method, quiet=data.quiet
        )
    model.audio_encoder.load_state_dict(encoder.state_dict())
    return model, {"steps": healed["steps"], "seconds": healed["seconds"]} if "seconds" in healed else None
