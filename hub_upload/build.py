"""The folder that is published: every file that loading needs, the evidence, the card; nothing of this machine."""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from trainers.errors import UserError
from trainers.files import write_json, write_text
from trainers.provenance import model_fingerprint, weight_files

from . import card, user_text
from .checks import PATH_KEYS, RECIPE_PATH_KEYS, publishable_files
from .client import PublishError
from .facts import (
    DEPTH_PLOT,
    ModelFacts,
    is_training_record,
    public_name,
    read_facts,
    read_json,
    read_recipe,
    read_training,
)
from .limits import measure_limits
from .plots import plot_depth

FORMS = ("adapter", "standalone")
PROCESSOR_FILES = ("processor_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class BuildOptions:
    """
    How a folder is built.

    form: `adapter` or `standalone`; None keeps the folder's own. merge: add LoRA into the weights (standalone only).
    evaluations: further `metrics.json` files, or folders with one. study: a `results.json` or `results.jsonl`.
    licences: by name of base model or data set. measure: measure the limits if `limits.json` is not there. links: repositories
    of a study's systems by name, for the study's table.
    """

    form: str | None = None
    merge: bool = False
    evaluations: tuple[Path, ...] = ()
    study: Path | None = None
    licences: dict[str, str] = field(default_factory=dict)
    measure: bool = True
    links: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CardOptions:
    """What a card needs beside the facts; see `card.make_card`. `texts` are the user's sections."""

    repo_id: str
    revision: str = "main"
    texts: dict[str, str] = field(default_factory=dict)
    extra_metadata: dict[str, Any] = field(default_factory=dict)


def build_folder(source: Path, target: Path, options: BuildOptions) -> str | None:
    """
    Copy or convert the model in `source` to the empty folder `target`, all but the card.

    Returns:
        What was converted, in words; None when the weights are byte for byte the source's.
    Raises:
        UserError: when the source is no complete model, or the form is not possible.
    """
    config = read_json(source / "config.json", required=True)
    form = wanted_form(config, options)
    conversion = describe_conversion(config, form, options.merge)
    target.mkdir(parents=True, exist_ok=True)
    if conversion:
        convert(source, target, form, options.merge)
    copy_files(source, target, weights=not conversion)
    add_evidence(target, options)
    hide_paths(target)
    if conversion:
        fingerprints = {
            "evaluated_fingerprint": model_fingerprint(source),
            "published_fingerprint": model_fingerprint(target),
        }
        write_json(target / "publication.json", {**fingerprints, "conversion": conversion})
    require_complete(target)
    return conversion


def wanted_form(config: dict[str, Any], options: BuildOptions) -> str:
    """The form to publish."""
    if options.form is not None and options.form not in FORMS:
        raise UserError(f"The form {options.form!r} is unknown. Choose one of {', '.join(FORMS)}.")
    if options.merge and options.form == "adapter":
        raise UserError(
            "--merge and --adapter exclude each other: the adapter form keeps LoRA apart. Use --standalone."
        )
    return options.form or ("standalone" if options.merge else config.get("checkpoint_form", "standalone"))


def describe_conversion(config: dict[str, Any], form: str, merge: bool) -> str | None:
    """What must be done to the weights, in words; None for nothing."""
    current = config.get("checkpoint_form", "standalone")
    has_lora = bool(config.get("lora") or config.get("encoder_lora"))
    steps = [f"{current} to {form} form"] if current != form else []
    if merge and has_lora:
        steps.append("LoRA merged into the weights")
    return ", ".join(steps) or None


def convert(source: Path, target: Path, form: str, merge: bool) -> None:
    """Load the model and save it in another form."""
    from modeling_slam_asr import SlamAsrForConditionalGeneration

    model = SlamAsrForConditionalGeneration.from_pretrained(source, dtype="auto")
    model.save_pretrained(target, checkpoint_form=form, merge_lora=merge)


def copy_files(source: Path, target: Path, weights: bool) -> None:
    """Copy what is published of `source`; the weights, code and configuration only when they were not converted."""
    own = {path.relative_to(source) for path in weight_files(source)}
    for path in publishable_files(source):
        name = path.relative_to(source)
        written = name in own or name.suffix == ".py" or name.name in ("config.json", "adapter_config.json")
        indexes = name.name.endswith(".safetensors.index.json")
        if name.as_posix() == "README.md" or (name.as_posix() == "publication.json" and not weights):
            continue
        if name.as_posix() == "metrics.json" and is_training_record(path):
            write_json(target / "training.json", read_training(source))
            continue
        if not weights and (written or indexes or name.name == "generation_config.json"):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)


def add_evidence(target: Path, options: BuildOptions) -> None:
    """Copy evaluations and a study's results from elsewhere, and draw the study's plot."""
    for given in options.evaluations:
        path = given / "metrics.json" if given.is_dir() else given
        if not path.is_file():
            raise UserError(f"{given} is no metrics.json and no folder with one. Name what `slam-asr evaluate` wrote.")
        name = path.parent.resolve().name
        place = target / ("evaluation" if name == "evaluation" else f"evaluations/{name}") / "metrics.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    if options.study is not None:
        if options.study.suffix not in (".json", ".jsonl") or not options.study.is_file():
            raise UserError(f"{options.study} is no results.json or results.jsonl of a study.")
        shutil.copyfile(options.study, target / f"results{options.study.suffix}")


def hide_paths(target: Path) -> None:
    """
    Replace the paths of local base models and data in `config.json` and `recipe.yaml` by names.

    The weights of a standalone model are its own; of an adapter, the configuration must name bases that others can load.
    """
    recipe = read_recipe(target)
    if recipe and _hidden(recipe, RECIPE_PATH_KEYS) != recipe:
        text = yaml.safe_dump(_hidden(recipe, RECIPE_PATH_KEYS), allow_unicode=True, sort_keys=False)
        write_text(target / "recipe.yaml", text)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    if config.get("checkpoint_form") == "standalone":
        hidden = _hidden(config, PATH_KEYS)
        if hidden != config:
            write_json(target / "config.json", hidden)


def _hidden(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {
            key: public_name(item) if key in keys and isinstance(item, str) else _hidden(item, keys)
            for key, item in value.items()
        }
    return [_hidden(item, keys) for item in value] if isinstance(value, list) else value


def require_complete(target: Path) -> None:
    """
    Raises:
        PublishError: naming the files without which nobody could load the model.
    """
    config = read_json(target / "config.json", required=True)
    code = [value for value in config.get("auto_map", {}).values() if isinstance(value, str)]
    code += [entry["impl"] for entry in (config.get("custom_pipelines") or {}).values()]
    missing = sorted(
        {f"{name.split('.')[0]}.py" for name in code if not (target / f"{name.split('.')[0]}.py").is_file()}
    )
    missing += [name for name in (*PROCESSOR_FILES, "generation_config.json") if not (target / name).is_file()]
    if not code:
        missing.append("auto_map in config.json")
    if missing:
        raise PublishError(
            f"The model is not complete; it lacks {', '.join(missing)}. Save model and processor with save_pretrained into the "
            "same folder."
        )


def complete_with_card(
    target: Path, build: BuildOptions, options: CardOptions, output: Path | None = None
) -> ModelFacts:
    """Measure what is not measured, draw the plot, write README.md; the facts that the card was made from."""
    facts = read_facts(target, build.licences)
    if build.measure and not facts.limits:
        write_json(target / "limits.json", measure(target, facts.fingerprint))
    if facts.depth_rows and DEPTH_PLOT not in facts.plots:
        plot_depth(facts.depth_rows, target / DEPTH_PLOT)
    facts = read_facts(target, build.licences)
    made = card.make_card(
        facts,
        options.repo_id,
        revision=options.revision,
        texts=options.texts,
        extra_metadata=options.extra_metadata,
        links=build.links,
    )
    made.save(output or target / "README.md")
    return facts


def write_card(folder: Path, build: BuildOptions, options: CardOptions, output: Path | None = None) -> Path:
    """
    Write the card of a model folder, with the evidence and measurements that it rests on; its path.

    Args:
        output: in place of `README.md` in the folder; the plot is put beside it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name the one that `slam-asr train` or save_pretrained wrote.")
    read_json(folder / "config.json", required=True)
    add_evidence(folder, build)
    texts = {name: text.text for name, text in existing_texts(folder).items()}
    existing = folder / "README.md"
    keep = card.foreign_metadata(existing.read_text(encoding="utf-8") if existing.is_file() else None, str(existing))
    complete_with_card(folder, build, replace(options, texts=texts, extra_metadata=keep), output)
    if output is not None and (folder / DEPTH_PLOT).is_file():
        shutil.copyfile(folder / DEPTH_PLOT, output.with_name(DEPTH_PLOT))
    return output or folder / "README.md"


def measure(folder: Path, fingerprint: str) -> dict[str, Any]:
    """The limits of the model in `folder`."""
    import torch

    from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SlamAsrForConditionalGeneration.from_pretrained(folder, dtype="auto").to(device).eval()
    return measure_limits(model, SlamAsrProcessor.from_pretrained(folder), fingerprint)


def existing_texts(folder: Path) -> dict[str, user_text.UserText]:
    """The user's sections of the card in a folder."""
    return card.local_texts(folder)
