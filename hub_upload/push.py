"""Publish a model folder: build, load back, one commit on the expected parent, tag, and the proof that a stranger can use it."""

import filecmp
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from trainers.errors import UserError, is_disk_full, listed, reading_files_of
from trainers.files import scratch_folder

from . import checks, user_text
from .build import BuildOptions, build_folder, complete_with_card, source_to_load
from .card import CardOptions, local_texts
from .checks import is_hub_id
from .client import ConflictError, PublishError, call, connect, request_timeout
from .client_environment import HUB_TIMEOUT, VERIFY_TIMEOUT
from .facts import is_hub_data, licence_parts
from .foreign import foreign_metadata
from .licences import readable_identifier
from .markdown import one_line
from .published import CODE, SETTINGS, loaded_files, read_json, read_recipe
from .remote import Commit, RepoState, commit_folder, compare, local_tree, read_repo, tag_commit, tagged_commit
from .retries import VERIFY_ATTEMPTS, attempts
from .rights import check_repo_id, check_rights, open_repo
from .verify import Observed, differences, observe

MAIN = "main"
CARD_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True)
class PushOptions:
    """
    What to publish, where and how. `private` holds for a repository that is made; `revision` is a branch; `recording` the sound
    file of the proof (a synthetic one when None); `user_text` says whose text counts when both were edited (`local`, `hub`);
    `timeout` is in seconds of silence of the Hub, `verify_timeout` in seconds for each fresh process.
    """

    folder: Path
    repo_id: str
    build: BuildOptions = field(default_factory=BuildOptions)
    private: bool = False
    revision: str = MAIN
    create_pr: bool = False
    tag: str | None = None
    dry_run: bool = False
    message: str = "Publish with slam-asr"
    recording: Path | None = None
    user_text: str | None = None
    timeout: float = HUB_TIMEOUT
    verify_timeout: float = VERIFY_TIMEOUT


@dataclass(frozen=True)
class PushResult:
    """What stands on the Hub after a push; `commit` is None after a dry run."""

    url: str
    commit: str | None
    made: bool
    difference: list[str]
    pull_request: str | None = None


def push_model(options: PushOptions, report: Callable[[str], None] = print) -> PushResult:
    """
    Publish a model and prove that it works.

    Nothing is sent before the folder is complete, checked and loaded back; everything becomes visible in one commit. With the
    same content a second push makes no commit, and proves the first one again.

    Args:
        report: called with a line at each step.
    Raises:
        UserError, PublishError: with what is on the Hub now and what to do.
    """
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name the one that `slam-asr train` or save_pretrained wrote.")
    check_repo_id(options.repo_id)
    api = connect(options.timeout)
    if not options.dry_run:
        name = check_rights(api, options.repo_id, create_pr=options.create_pr)
        report(f"{name} may write to {options.repo_id}")
    state = read_repo(api, options.repo_id, options.revision)
    if options.create_pr and state.head is None:
        raise PublishError(f"{options.repo_id} has no branch {options.revision!r} that a pull request could change.")
    with scratch_folder("push") as scratch:
        target = scratch / options.repo_id.split("/")[1]
        try:
            build_for(api, options, state, target)
        except OSError as error:
            if is_disk_full(error):
                raise PublishError(
                    f"There is no room in {tempfile.gettempdir()} to build what is published ({error.strerror}). Nothing was sent. "
                    "Make room, or set TMPDIR to a folder with more."
                ) from error
            raise
        report(f"built {len(local_tree(target))} files; loading them back in a fresh process")
        if other := describe_changes(folder, target):
            report(other)
        expected = load_back(options, target)
        local = local_tree(target)
        lines = compare(local, state.tree).lines(local, state.tree)
        url = f"{api.endpoint}/{options.repo_id}"
        if options.dry_run:
            describe_dry_run(options, state, lines, report)
            report(describe_left(folder, target))
            return PushResult(url, None, False, lines)
        commit = publish(api, options, state, target)
        where = f" as {commit.pull_request}" if commit.pull_request else ""
        report(f"{'committed' if commit.made else 'unchanged, already at'} {commit.oid}{where}")
        if options.tag:
            new = tag_commit(api, options.repo_id, options.tag, commit.oid)
            report(f"{'tagged' if new else 'already tagged'} {options.tag}")
        verify_published(api, options, target, commit, expected)
        report(f"verified: a fresh process with an empty cache loads {url} at {commit.oid} and transcribes the same")
        return PushResult(url, commit.oid, commit.made, lines, commit.pull_request)


def build_for(api: HfApi, options: PushOptions, state: RepoState, target: Path) -> None:
    """Build the folder, with the user's text and foreign metadata of the card that is on the Hub now."""
    licences = {**hub_licences(api, options), **options.build.licences}
    build = replace(options.build, licences=licences, bases=pinned_bases(api, options.build.bases))
    there = remote_card(api, options.repo_id, state)
    where = f"the card of {options.repo_id}"
    remote_texts = user_text.extract(there, where) if there else {}
    texts = user_text.merge(local_texts(options.folder), remote_texts, options.user_text)
    card = CardOptions(
        options.repo_id, revision=options.tag or MAIN, texts=texts, extra_metadata=foreign_metadata(there, where)
    )
    with reading_files_of(str(options.folder)):
        build_folder(options.folder, target, build)
        checks.refuse_unfit(target, get_token(), options.folder)  # before minutes of measuring
        complete_with_card(target, build, card)
    checks.refuse_unfit(target, get_token(), options.folder)


def pinned_bases(api: HfApi, bases: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The base models' repositories at commits: a branch, tag or nothing is taken at the commit that it names now."""
    found = {}
    for part, (repo_id, revision) in bases.items():
        check_repo_id(repo_id)
        state = read_repo(api, repo_id, revision or MAIN)
        if state.head is None:
            raise PublishError(f"--base {part}: {repo_id} at {revision or MAIN!r} is not on the Hub.")
        found[part] = (repo_id, state.head)
    return found


def remote_card(api: HfApi, repo_id: str, state: RepoState) -> str | None:
    """The README.md at the head that was read, or None."""
    if state.head is None or "README.md" not in state.tree:
        return None
    size = state.tree["README.md"].size
    if size > CARD_LIMIT:
        raise ConflictError(
            f"The card of {repo_id} has {size:,} bytes; cards of up to {CARD_LIMIT:,} are read. Shorten it on the Hub, then push again."
        )
    with scratch_folder("card") as cache:
        try:
            path = call(
                f"reading the card of {repo_id}",
                lambda: api.hf_hub_download(repo_id, "README.md", revision=state.head, cache_dir=cache),
            )
        except EntryNotFoundError:
            return None
        try:
            return Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConflictError(
                f"The card of {repo_id} is no text in UTF-8 ({error.reason} at byte {error.start}). Save it anew on the Hub, then push again."
            ) from error


def hub_licences(api: HfApi, options: PushOptions) -> dict[str, str]:
    """Licences of base models and data sets as their cards on the Hub say: those know better than this project's table."""
    config = read_json(options.folder / "config.json", required=True)
    found = {}
    for part in licence_parts(config, read_recipe(options.folder), options.build.licences):
        if is_hub_data(part.name) if part.role == "data" else is_hub_id(part.name):
            repo_type = "dataset" if part.role == "data" else "model"
            licence = _card_licence(api, part.name, repo_type)
            if licence:
                found[part.name] = licence
    return found


def _card_licence(api: HfApi, name: str, repo_type: str) -> str | None:
    try:
        info = call(f"reading {name}", lambda: api.repo_info(name, repo_type=repo_type, timeout=request_timeout()))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    return readable_identifier((getattr(info, "card_data", None) or {}).get("license"))


def load_back(options: PushOptions, target: Path) -> Observed:
    """
    What a fresh process sees of the built folder, found equal to the source where the form was changed.

    Raises:
        PublishError: when the folder does not load, or a converted model differs from the source.
    """
    settings: dict[str, Any] = {"recording": options.recording, "timeout": options.verify_timeout}
    expected = observe(str(target), token_for=base_repositories(target), **settings)
    if (target / "publication.json").is_file():
        with scratch_folder("source") as scratch:
            source = source_to_load(options.folder.resolve(), scratch)
            before = observe(str(source), token_for=base_repositories(options.folder), **settings)
        problems = differences(before, expected)
        if problems:
            raise PublishError(
                f"The converted model is not equal to {options.folder}: {'; '.join(problems)}. Nothing was sent. Push the form "
                "that the folder has, or save it in float32 before LoRA is merged."
            )
    return expected


def base_repositories(folder: Path) -> list[str]:
    """Repositories that the frozen parts of an adapter come from; they may be private or gated."""
    config = read_json(folder / "config.json")
    names = (str(config.get(f"{part}_model_id") or "") for part in ("audio", "text"))
    return [name for name in names if is_hub_id(name)] if config.get("checkpoint_form") == "adapter" else []


def publish(api: HfApi, options: PushOptions, state: RepoState, target: Path) -> Commit:
    """Create the repository if need be and commit."""
    if options.tag and state.exists:
        taken = tagged_commit(api, options.repo_id, options.tag)
        if taken is not None and not (taken == state.head and compare(local_tree(target), state.tree).empty):
            raise ConflictError(
                f"The tag {options.tag!r} of {options.repo_id} already names the commit {taken[:10]}, which is not this content. "
                f"Nothing was sent. Choose another tag, or delete it with `hf repos tag delete {options.repo_id} {options.tag}`."
            )
    if options.create_pr:
        opened = state
    else:
        opened = open_repo(api, options.repo_id, private=options.private, revision=options.revision)
        if state.head is not None:
            opened = state  # the parent that this folder was built for
    return commit_folder(
        api,
        options.repo_id,
        target,
        opened,
        title=options.message,
        revision=options.revision,
        create_pr=options.create_pr,
    )


def verify_published(api: HfApi, options: PushOptions, target: Path, commit: Commit, expected: Observed) -> None:
    """
    Load the published commit as a stranger does and compare with what was built.

    Raises:
        PublishError: when it does not load or differs; the message says what stands on the Hub.
    """
    stands = f"The commit {commit.oid} stands in {options.repo_id}, but it was not verified"
    private = read_repo(api, options.repo_id, commit.oid).private
    for last in attempts(VERIFY_ATTEMPTS):
        try:
            seen = observe(
                options.repo_id,
                revision=commit.oid,
                recording=options.recording,
                empty_cache=True,
                token_for=[*base_repositories(target), *([options.repo_id] if private else [])],
                timeout=options.verify_timeout,
            )
            break
        except PublishError as error:
            if last:
                raise PublishError(
                    f"{stands}. {error} Run the same command again: it verifies without a new commit."
                ) from error
    problems = differences(expected, seen)
    if problems:
        raise PublishError(
            f"{stands}: it differs from what was built. {'; '.join(problems)}. Restore the commit before it on the Hub, and "
            "report this."
        )


def describe_dry_run(options: PushOptions, state: RepoState, lines: list[str], report: Callable[[str], None]) -> None:
    """What a push would do."""
    if not state.exists:
        report(f"would create the {'private' if options.private else 'public'} repository {options.repo_id}")
    elif state.head is None:
        report(f"would create the branch {options.revision}")
    changes = [line for line in lines if not line.startswith("  =")]
    what = "open a pull request on" if options.create_pr else "commit to"
    report(f"would {what} {options.repo_id} ({options.revision}):" if changes else "would change nothing:")
    for line in lines or ["  (all files are the same)"]:
        report(line)
    if options.tag:
        report(f"would tag the commit {options.tag}")


def describe_changes(source: Path, target: Path) -> str | None:
    """Code and settings that are published otherwise than they stand in the model folder, in a line; None for none."""
    names = [path.name for path in loaded_files(source, CODE)]
    _, differ, missing = filecmp.cmpfiles(source, target, names, shallow=False)
    changed = sorted([*differ, *missing])
    for path in loaded_files(target, SETTINGS):
        before = read_json(source / path.relative_to(target))
        keys = changed_keys(before, read_json(path)) if before else []
        changed += [f"{path.relative_to(target).as_posix()} ({', '.join(keys)})"] if keys else []
    return f"not published as in the folder: {', '.join(map(one_line, changed))}" if changed else None


def changed_keys(before: dict[str, Any], after: dict[str, Any], where: str = "") -> list[str]:
    """The keys of settings whose values differ, with dots between the levels."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed_keys(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key}")
    return found


def describe_left(source: Path, target: Path) -> str:
    """What of the model folder is not on the allow-list, in a line."""
    files = (path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    left = sorted(name for name in files if not (target / name).exists())
    return f"stays here: {listed(left)}" if left else "all of the folder is published"


def push_run(output_dir: str | Path, repo_id: str, report: Callable[[str], None] = print, **options: Any) -> PushResult:
    """
    Publish what a training run wrote: the same path as `slam-asr push`, for `push_to_hub` in a recipe.

    Args:
        options: further fields of `PushOptions`.
    """
    return push_model(PushOptions(folder=Path(output_dir), repo_id=repo_id, **options), report)
