"""A look at a study's base models before its runs are tried: what is wrong with them is wrong with every run."""

from collections.abc import Sequence

from transformers import AutoConfig, PreTrainedConfig

from modeling_slam_asr import SlamAsrConfig
from trainers.embedded.base_models import base_model
from trainers.errors import UserError
from trainers.study.plan import PlannedRun
from trainers.study.state import read_result
from trainers.training.models import reading_base_models


def check_bases(runs: Sequence[PlannedRun]) -> None:
    """Read the configurations of the base models that unfinished runs need; no weights.

    Raises:
        UserError: a model cannot be read, or its encoder has not the blocks that a run prunes.
    """
    configurations: dict[tuple[str, str | None], PreTrainedConfig] = {}
    for run in runs:
        if read_result(run) is not None:
            continue
        recipe = run.recipe
        names = ((recipe.audio_model, recipe.audio_revision), (recipe.text_model, recipe.text_revision))
        for name, revision in names:
            if (name, revision) not in configurations:
                with reading_base_models(recipe):
                    configurations[name, revision] = AutoConfig.from_pretrained(
                        base_model(name), revision=revision or "main"
                    )
        audio, text = (configurations[one] for one in names)
        for prune in run.depths or (recipe.prune_encoder_layers,):
            try:
                SlamAsrConfig(
                    audio_config=audio,
                    text_config=text,
                    prune_encoder_layers=list(prune) if isinstance(prune, tuple) else prune,
                )
            except ValueError as error:
                raise UserError(
                    f"The run {run.name} of the study: {error} `skip` leaves out what does not fit."
                ) from error
