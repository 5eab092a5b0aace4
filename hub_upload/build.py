"""The folder that is published: every file that loading needs, the evidence, the card; nothing of this machine."""

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from trainers.errors import UserError, reading_files_of
from trainers.files import read_jsonl, write_json, write_jsonl, write_text
from trainers.provenance import file_sha256, model_fingerprint, read_stamped
from trainers.results import QUICKSTART_RESULTS, RESULT_FILES, STUDY_RESULTS, evaluation_files

from . import published
from .card import CardOptions, local_texts, make_card
from .client import PublishError
from .facts import (
    DEPTH_PLOT,
    ModelFacts,
    evaluated_fingerprint,
    find_results,
    is_training_record,
    read_any_limits,
    read_config,
    read_depth_rows,
    read_facts,
    read_training,
)
from .foreign import foreign_metadata
from .limits import Limits, measure_limits
from .model_index import EVAL_RESULTS, eval_results
from .plots import plot_depth
from .published import (
    CODE,
    CONVERTED,
    EVIDENCE,
    PACKAGE,
    SETTINGS,
    WEIGHTS,
    hide_paths,
    loaded_files,
    read_json,
    read_recipe,
)

FORMS = ("adapter", "standalone")
# Paths here are refused, not hidden: others could not load the model.
ADAPTER_BASES = ("audio_model_id", "text_model_id")
SNAPSHOT = re.compile(r"[/\\\\]models--([^/\\\\]+)[/\\\\]snapshots[/\\\\]([0-9a-f]{40})[/\\\\]?$")
PROCESSOR_FILES = ("processor_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class BuildOptions:
    """
    How a folder is built.

    form: `adapter` or `standalone`; None keeps the folder's own. merge: add LoRA into the weights (standalone only).
    evaluations: further `metrics.json` files, or folders with one. study: a `results.json` or `results.jsonl`.
    licences: by name of base model or data set. measure: measure the limits if `limits.json` is not there. links: repositories
    of a study's systems by name, for the study's table. predictions: publish transcripts and clip names beside the figures.
    bases: for `audio` and `text`, repository and commit that hold the base model of a local folder.
    """

    form: str | None = None
    merge: bool = False
    evaluations: tuple[Path, ...] = ()
    study: Path | None = None
    licences: dict[str, str] = field(default_factory=dict)
    measure: bool = True
    predictions: bool = False
    bases: dict[str, tuple[str, str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def build_folder(source: Path, target: Path, options: BuildOptions) -> str | None:
    """
    Copy or convert the model in `source` to the empty folder `target`, all but the card.

    Returns:
        What was converted, in words; None when the weights are byte for byte the source's.
    Raises:
        UserError: when the source is no complete model, or the form is not possible.
    """
    refuse_outside_links(source)
    config = read_config(source)
    form = wanted_form(config, options)
    bases = base_repositories(config, form, options.bases)
    conversion = describe_conversion(config, form, options.merge, bases)
    target.mkdir(parents=True, exist_ok=True)
    if conversion:
        convert(source, target, form, options.merge, bases)
    copy_files(source, target, weights=not conversion)
    copy_evidence(source, target, options)
    if conversion:
        fingerprints = {
            "evaluated_fingerprint": evaluated_fingerprint(source, model_fingerprint(source)),
            "published_fingerprint": model_fingerprint(target),
        }
        lora = {key: config[key] for key in ("lora", "encoder_lora") if options.merge and config.get(key)}
        write_json(target / "publication.json", {**fingerprints, "conversion": conversion, **lora})
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


def base_repositories(
    config: dict[str, Any], form: str, given: dict[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """
    Repository and commit of each base model that the configuration names by a local folder, where an adapter needs them: as
    the user says, or as the path tells of a folder in the Hub's own cache.
    """
    if form != "adapter":
        return {}
    cached = {part: SNAPSHOT.search(str(config.get(f"{part}_model_id"))) for part in ("audio", "text")}
    found = {part: (match[1].replace("--", "/"), match[2]) for part, match in cached.items() if match}
    return {**found, **given}


def describe_conversion(
    config: dict[str, Any], form: str, merge: bool, bases: dict[str, tuple[str, str]]
) -> str | None:
    """What must be done to the weights, in words; None for nothing."""
    current = config.get("checkpoint_form", "standalone")
    has_lora = bool(config.get("lora") or config.get("encoder_lora"))
    steps = [f"{current} to {form} form"] if current != form else []
    if merge and has_lora:
        steps.append("LoRA merged into the weights")
    named = {part: (config.get(f"{part}_model_id"), config.get(f"{part}_model_revision")) for part in bases}
    if bases != named:
        steps.append("base models named by their repositories")
    return ", ".join(steps) or None


def convert(source: Path, target: Path, form: str, merge: bool, bases: dict[str, tuple[str, str]]) -> None:
    """Load the model and save it in another form."""
    from modeling_slam_asr import SlamAsrForConditionalGeneration

    with reading_files_of(str(source)):
        model = SlamAsrForConditionalGeneration.from_pretrained(source, dtype="auto")
    for part, (repo_id, commit) in bases.items():
        setattr(model.config, f"{part}_model_id", repo_id)
        setattr(model.config, f"{part}_model_revision", commit)
    model.save_pretrained(target, checkpoint_form=form, merge_lora=merge)


def refuse_outside_links(source: Path) -> None:
    """
    Raises:
        PublishError: for a file of the allow-list that lies behind a link to a place outside the folder.
    """
    metrics = evaluation_files(source)
    predictions = (path.with_name("predictions.jsonl") for path in metrics)
    for path in (*loaded_files(source), *(source / name for name in EVIDENCE), *metrics, *predictions):
        if not path.resolve().is_relative_to(source.resolve()):
            raise PublishError(f"{path} is a link to a file outside the folder. Copy the file, or take the link away.")


def copy_files(source: Path, target: Path, weights: bool) -> None:
    """
    Copy what a model is loaded from; the weights and configuration only when they were not converted. The code is this package's:
    the folder's own may be anybody's.
    """
    written = loaded_files(source, CODE if weights else CONVERTED)
    for path in loaded_files(PACKAGE, CODE):
        shutil.copyfile(path, target / path.name)
    for path in loaded_files(source):
        place = target / path.relative_to(source)
        if path in written or place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    for path in loaded_files(target, SETTINGS):
        value = read_json(path)
        try:
            safe = published.settings(path.name, value)
        except ValueError as error:
            raise PublishError(f"{source / path.relative_to(target)} cannot be published: {error}") from error
        pinned = ADAPTER_BASES if value.get("checkpoint_form") == "adapter" else ()
        hidden = {key: item if key in pinned else hide_paths(item) for key, item in safe.items()}
        if hidden != value:
            write_json(path, hidden)


def source_to_load(source: Path, target: Path) -> Path:
    """`target` with the model in `source`, its weights linked where that can be: it loads with this package's code, not with the folder's own."""
    target.mkdir(parents=True, exist_ok=True)
    copy_files(source, target, weights=False)
    for path in loaded_files(source, WEIGHTS):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        link(path, place)
    return target


def link(path: Path, place: Path) -> None:
    """`place` as a link to `path`; a copy where links are not to be had: Windows asks for a right, and a hard link for one disk."""
    for way in (os.symlink, os.link):
        try:
            return way(path, place)
        except OSError:
            continue
    shutil.copyfile(path, place)


def copy_evidence(source: Path, target: Path, options: BuildOptions) -> None:
    """Write what is published of the recipe, the training run, evaluations and the study."""
    fingerprint = evaluated_fingerprint(source, model_fingerprint(source))
    if limits := read_any_limits(source):
        write_json(target / "limits.json", limits)
    if publication := published.publication(read_json(source / "publication.json")):
        write_json(target / "publication.json", publication)
    if recipe := read_recipe(source):
        write_text(target / "recipe.yaml", yaml.safe_dump(hide_paths(recipe), allow_unicode=True, sort_keys=False))
    if record := read_training(source):
        write_json(target / "training.json", record)
    for path in evaluation_files(source):
        if not is_training_record(path):
            copy_metrics(path, target / path.relative_to(source), fingerprint, options.predictions)
    if results := find_results(source):
        copy_study(results, target)
    add_evidence(target, options, fingerprint)


def copy_metrics(path: Path, place: Path, fingerprint: str, predictions: bool) -> None:
    """Write what is published of a `metrics.json`, found to be of these weights, and of its predictions if asked for."""
    value = published.metrics(read_stamped(path, fingerprint))
    rows = path.with_name("predictions.jsonl")
    if predictions and rows.is_file():
        write_jsonl(place.with_name(rows.name), map(published.prediction, read_jsonl(rows)))
        value["predictions_sha256"] = file_sha256(place.with_name(rows.name))
    write_json(place, value)


def copy_study(path: Path, target: Path) -> None:
    """Write what is published of a study's rows."""
    rows = [published.study_row(row) for row in read_depth_rows(path)]
    if path.suffix == Path(STUDY_RESULTS).suffix:
        write_jsonl(target / STUDY_RESULTS, rows)
    else:
        write_json(target / QUICKSTART_RESULTS, rows)


def add_evidence(target: Path, options: BuildOptions, fingerprint: str) -> None:
    """Copy evaluations and a study's results from elsewhere."""
    for given in options.evaluations:
        path = given / "metrics.json" if given.is_dir() else given
        if not path.is_file():
            raise UserError(f"{given} is no metrics.json and no folder with one. Name what `slam-asr evaluate` wrote.")
        name = path.parent.resolve().name
        place = target / ("evaluation" if name == "evaluation" else f"evaluations/{name}") / "metrics.json"
        copy_metrics(path, place, fingerprint, options.predictions)
    if options.study is not None:
        if options.study.suffix not in {Path(name).suffix for name in RESULT_FILES} or not options.study.is_file():
            raise UserError(f"{options.study} is no {' or '.join(RESULT_FILES)} of a study.")
        copy_study(options.study, target)


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
    if facts.depth_rows:
        plot_depth(facts.depth_rows, target / DEPTH_PLOT)
    facts = read_facts(target, build.licences)
    make_card(facts, options, build.links).save(output or target / "README.md")
    if output is None and (results := eval_results(facts)):
        write_text(target / EVAL_RESULTS, yaml.safe_dump(results, allow_unicode=True, sort_keys=False))
    return facts


def write_card(folder: Path, build: BuildOptions, options: CardOptions, output: Path | None = None) -> Path:
    """
    Write the card of a model folder, with the evidence and measurements that it rests on; its path.

    Args:
        output: in place of `README.md` in the folder; the plot is put beside it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name the one that `slam-asr train` or save_pretrained wrote.")
    with reading_files_of(str(folder)):
        read_config(folder)
        add_evidence(folder, build, evaluated_fingerprint(folder, model_fingerprint(folder)))
        texts = {name: text.text for name, text in local_texts(folder).items()}
        existing = folder / "README.md"
        keep = foreign_metadata(existing.read_text(encoding="utf-8") if existing.is_file() else None, str(existing))
        complete_with_card(folder, build, replace(options, texts=texts, extra_metadata=keep), output)
    if output is not None and (folder / DEPTH_PLOT).is_file():
        shutil.copyfile(folder / DEPTH_PLOT, output.with_name(DEPTH_PLOT))
    return output or folder / "README.md"


def measure(folder: Path, fingerprint: str) -> Limits:
    """The limits of the model in `folder`."""
    import torch

    from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SlamAsrForConditionalGeneration.from_pretrained(folder, dtype="auto").to(device).eval()
    return measure_limits(model, SlamAsrProcessor.from_pretrained(folder), fingerprint)
