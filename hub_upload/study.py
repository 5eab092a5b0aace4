"""A study's chosen checkpoints as models on the Hub, in one collection, each card with a table that links the others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from huggingface_hub import Collection, HfApi

from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES
from trainers.errors import UserError
from trainers.results import STUDY_RESULTS, ResultRow, pareto_front

from .build import BuildOptions
from .card import word_error_rate
from .client import PublishError, TransientError, call, connect
from .client_environment import HUB_TIMEOUT, VERIFY_TIMEOUT
from .facts import find_results, read_depth_rows
from .push import PushOptions, PushResult, push_model
from .retries import attempts
from .rights import check_repo_id, check_rights

DESCRIPTION_LIMIT = 150
NOTE_LIMIT = 500


@dataclass(frozen=True)
class StudyOptions:
    """
    `prefix` is NAMESPACE/PREFIX: each model becomes `PREFIX-NAME`. `choose` names runs; none means, for each language, those
    that no other run beats in both error rate and parameters.
    """

    folder: Path
    prefix: str
    choose: Sequence[str] = ()
    title: str | None = None
    build: BuildOptions = field(default_factory=BuildOptions)
    private: bool = False
    dry_run: bool = False
    timeout: float = HUB_TIMEOUT
    verify_timeout: float = VERIFY_TIMEOUT


def push_study(options: StudyOptions) -> str | None:
    """
    Publish the chosen checkpoints, then the collection; the collection's address (None after a dry run).

    The collection is private until every model stands in it. A second call changes nothing.
    """
    results = find_results(options.folder)
    if results is None:
        raise UserError(
            f"{options.folder} has no {STUDY_RESULTS}, so it is no study. Name the output folder of `slam-asr study`."
        )
    rows = read_depth_rows(results)
    chosen = choose_runs(rows, options.choose)
    folders = {name: model_folder(options.folder, rows, name) for name in chosen}
    names = {name: f"{options.prefix}-{slug(name)}" for name in chosen}
    for repo_id in names.values():
        check_repo_id(repo_id)
    namespace = options.prefix.split("/")[0]
    title = options.title or options.prefix.split("/")[1]
    if not options.dry_run:
        check_rights(connect(options.timeout), next(iter(names.values())))
    print(f"{len(chosen)} of {len({row['name'] for row in rows})} runs: {', '.join(chosen)}")
    pushed: dict[str, PushResult] = {}
    for name, (folder, evaluation) in folders.items():
        print(f"{name} -> {names[name]}")
        build = replace(
            options.build,
            evaluations=(*options.build.evaluations, *([evaluation] if evaluation else [])),
            study=results,
            links=names,
        )
        pushed[name] = push_model(
            PushOptions(
                folder=folder,
                repo_id=names[name],
                build=build,
                private=options.private,
                dry_run=options.dry_run,
                timeout=options.timeout,
                verify_timeout=options.verify_timeout,
            )
        )
    if options.dry_run:
        print(f"would make the collection {title!r} of {namespace}")
        return None
    notes = {names[name]: note_of(name, rows) for name in chosen}
    collection = fill_collection(connect(options.timeout), namespace, title, notes, options.private)
    print(f"collection {collection.url}")
    return collection.url


def choose_runs(rows: Sequence[ResultRow], wanted: Sequence[str]) -> list[str]:
    """The named runs, or for each language those on the front of error rate against parameters."""
    names = list(dict.fromkeys(row["name"] for row in rows if "@" not in row["name"]))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"The study has no run {', '.join(map(repr, unknown))}. Its runs: {', '.join(names)}.")
    if wanted:
        return list(dict.fromkeys(wanted))
    front: list[str] = []
    for language in dict.fromkeys(row.get("language") for row in rows):
        same = [
            row
            for row in rows
            if row.get("language") == language
            and row["name"] in names
            and row.get("wer") is not None
            and "same_as" not in row  # the same model under another name
        ]
        front += [row["name"] for row in pareto_front(same, lambda row: row.get("total_params") or 0)]
    if not front:
        raise UserError("The study has no finished run that could be published.")
    return [name for name in names if name in front]


def model_folder(study: Path, rows: Sequence[ResultRow], name: str) -> tuple[Path, Path | None]:
    """The model of a run, and its evaluation when that lies outside of it."""
    run = next((row.get("run") for row in rows if row["name"] == name), None)
    places = [study / "runs" / name / "model", study / "runs" / name, study / name]
    if run:
        places.insert(0, (study / run).parent / "model")
    folder = next((place for place in places if (place / "config.json").is_file()), None)
    if folder is None:
        raise UserError(
            f"The model of the run {name!r} is not in {study / 'runs'}. Run the study again, or choose other runs."
        )
    evaluation = study / run if run else None
    outside = evaluation is not None and (evaluation / "metrics.json").is_file() and folder not in evaluation.parents
    return folder, evaluation if outside else None


def slug(name: str) -> str:
    """A run's name as part of a repository's."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.").replace("--", "-")


def note_of(name: str, rows: Sequence[ResultRow]) -> str:
    """The figures of a run, for its entry in the collection."""
    own = [row for row in rows if row["name"] == name]
    rates = "; ".join(
        f"{LANGUAGE_NAMES.get(row.get('language') or '', row.get('language') or 'all')} {word_error_rate(row)}"
        for row in own
    )
    first = own[0]
    kind = "projector and LoRA" if first.get("lora") else "projector only"
    return f"{first.get('encoder_layers')} encoder blocks, {kind}. WER: {rates}"[:NOTE_LIMIT]


def fill_collection(api: HfApi, namespace: str, title: str, notes: dict[str, str], private: bool) -> Collection:
    """
    The collection of that title with these models and notes; made, completed or left as it is.

    Other entries stay. It is private until it is complete.
    """
    collection = find_or_make(
        api, namespace, title, f"A study of encoder depth: {len(notes)} models, made with slam-asr."
    )
    step = f"filling the collection {title!r}"
    for repo_id, note in notes.items():
        known = next((item for item in collection.items if item.item_id == repo_id), None)
        if known is None:
            add = partial(api.add_collection_item, collection.slug, repo_id, "model", note=note, exists_ok=True)
            collection = call(step, add)
        elif known.note != note:
            call(step, partial(api.update_collection_item, collection.slug, known.item_object_id, note=note))
    collection = call(step, lambda: api.get_collection(collection.slug))
    missing = notes.keys() - {item.item_id for item in collection.items}
    if missing:
        raise PublishError(
            f"The collection {title!r} lacks {', '.join(sorted(missing))} after they were added. Run it again."
        )
    if collection.private and not private:
        call(step, lambda: api.update_collection_metadata(collection.slug, private=False))
        collection = call(step, lambda: api.get_collection(collection.slug))
    return collection


def find_or_make(api: HfApi, namespace: str, title: str, description: str) -> Collection:
    """The collection of this title, created as private if there is none; a creation whose reply is lost is found again."""
    step = f"making the collection {title!r}"

    def find() -> Collection | None:
        found = call(step, lambda: list(api.list_collections(owner=namespace)))
        match = next((one for one in found if one.title == title), None)
        return call(step, lambda: api.get_collection(match.slug)) if match else None

    for last in attempts():
        existing = find()
        if existing is not None:
            return existing
        try:
            return call(
                step,
                lambda: api.create_collection(
                    title, namespace=namespace, description=description[:DESCRIPTION_LIMIT], private=True
                ),
                most=1,
            )
        except TransientError:
            if last:
                raise
    raise AssertionError("unreachable")
