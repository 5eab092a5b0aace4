"""Repositories on the Hub as trees of hashes, and the one commit that makes a repository equal to a folder."""

import fnmatch
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from .client import ConflictError, PublishError, TransientError, call, reason, refusal, request_timeout, sentence
from .published import EVIDENCE
from .retries import COMMIT_ATTEMPTS, FIRST_PAUSE, attempts, is_transient

LOOK_BACK = 20  # commits or pull requests in which a commit whose reply was lost is looked for
# What decides how a repository loads, and what its card rests on. A file of this kind that the new content lacks would
# be taken for a part of it, so it is deleted; other files (pictures, notes) stay.
MANAGED_FILES = (
    "*.py", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*config.json",
    "tokenizer*", "*.jinja", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
    *(name for name in EVIDENCE if name != "README.md"), "predictions.jsonl", "slam-asr.yaml",
)  # fmt: skip


@dataclass(frozen=True)
class FileHash:
    """A file's size in bytes, id in git and SHA-256; of a remote file one of the two hashes is unknown."""

    size: int
    git_id: str | None
    sha256: str | None

    def same_content(self, other: "FileHash") -> bool:
        """Whether both are the same bytes, by whichever hash both have."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.size == other.size and self.git_id is not None and self.git_id == other.git_id


Tree = Mapping[str, FileHash]


@dataclass(frozen=True)
class Difference:
    """What a commit would do to a repository, by path."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.added or self.changed or self.deleted)

    def lines(self, local: Tree, remote: Tree) -> list[str]:
        """One line a file, as `--dry-run` prints them."""
        size = {path: entry.size for tree in (remote, local) for path, entry in tree.items()}
        rows = [f"  + {path} ({size[path]:,} bytes)" for path in self.added]
        rows += [f"  ~ {path} ({remote[path].size:,} -> {size[path]:,} bytes)" for path in self.changed]
        rows += [f"  - {path}" for path in self.deleted]
        return rows + [f"  = {path} (not from this folder; stays)" for path in self.kept]


@dataclass(frozen=True)
class RepoState:
    """A repository as it was read: `head` is the commit of the wanted revision, None where there is none yet."""

    exists: bool
    private: bool = False
    head: str | None = None
    tree: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """The commit that holds the folder; `made` is false when it stood there before."""

    oid: str
    made: bool
    pull_request: str | None = None


def local_tree(folder: Path) -> dict[str, FileHash]:
    """The hashes of all files below `folder`, by path with forward slashes."""
    tree = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        git, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                git.update(piece)
                sha256.update(piece)
        tree[path.relative_to(folder).as_posix()] = FileHash(size, git.hexdigest(), sha256.hexdigest())
    return tree


def remote_tree(api: HfApi, repo_id: str, revision: str, repo_type: str = "model") -> dict[str, FileHash]:
    """The hashes of a repository's files at a revision."""
    entries = call(
        f"listing the files of {repo_id}",
        lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type)),
    )
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    return {
        file.path: FileHash(file.size, None if file.lfs else file.blob_id, file.lfs.sha256 if file.lfs else None)
        for file in files
    }


def read_repo(api: HfApi, repo_id: str, revision: str, repo_type: str = "model") -> RepoState:
    """The state of a repository at a branch; a repository or branch that is not there is a state, not an error."""

    def info(wanted: str | None) -> object:
        return api.repo_info(repo_id, revision=wanted, repo_type=repo_type, timeout=request_timeout())

    step = f"reading {repo_id}"
    try:
        found = call(step, lambda: info(revision))
    except RevisionNotFoundError:
        found = call(step, lambda: info(None))
        return RepoState(exists=True, private=bool(getattr(found, "private", False)))
    except RepositoryNotFoundError:
        return RepoState(exists=False)
    head = str(getattr(found, "sha", ""))
    return RepoState(True, bool(getattr(found, "private", False)), head, remote_tree(api, repo_id, head, repo_type))


def compare(local: Tree, remote: Tree) -> Difference:
    """What must happen to `remote` so that it holds `local` and nothing else that decides how it loads."""
    extra = [path for path in remote if path not in local and path != ".gitattributes"]
    managed = [path for path in extra if _is_managed(path)]
    return Difference(
        added=[path for path in local if path not in remote],
        changed=[path for path, entry in local.items() if path in remote and not entry.same_content(remote[path])],
        deleted=managed,
        kept=[path for path in extra if path not in managed],
    )


def _is_managed(path: str) -> bool:
    return any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in MANAGED_FILES)


def find_commit(api: HfApi, repo_id: str, local: Tree, revision: str, since: str, repo_type: str) -> str | None:
    """The first commit of a branch after `since` that holds this content, or None; the newest `LOOK_BACK` are read."""
    step = f"reading the history of {repo_id}"
    history = call(step, lambda: list(api.list_repo_commits(repo_id, revision=revision, repo_type=repo_type)))
    newer = [commit.commit_id for commit in history]
    newer = newer[: newer.index(since)] if since in newer else newer
    for commit in reversed(newer[:LOOK_BACK]):
        if compare(local, remote_tree(api, repo_id, commit, repo_type)).empty:
            return commit
    return None


def find_pull_request(api: HfApi, repo_id: str, local: Tree, repo_type: str) -> tuple[str, str] | None:
    """Reference and commit of the newest pull request that holds exactly this content, or None."""
    step = f"reading the pull requests of {repo_id}"
    refs = call(step, lambda: api.list_repo_refs(repo_id, repo_type=repo_type, include_pull_requests=True))
    pulls = sorted(refs.pull_requests or [], key=lambda pull: int(pull.ref.rsplit("/", 1)[-1]), reverse=True)
    for pull in pulls[:LOOK_BACK]:
        if compare(local, remote_tree(api, repo_id, pull.target_commit, repo_type)).empty:
            return pull.ref, pull.target_commit
    return None


def commit_folder(
    api: HfApi,
    repo_id: str,
    folder: Path,
    state: RepoState,
    *,
    title: str,
    revision: str = "main",
    repo_type: str = "model",
    create_pr: bool = False,
    pause: float = FIRST_PAUSE,
) -> Commit:
    """
    Make the repository equal to `folder` by one commit on the head that `state` was read from.

    A commit whose reply is lost is recognised by its content; nothing is committed twice, and nothing when the
    repository already holds the folder.

    Raises:
        ConflictError: when somebody else has moved the branch since `state` was read.
        TransientError: when the Hub kept failing; whether a commit stands is said in the message.
        PublishError: when the Hub refuses.
    """
    if state.head is None:
        raise ValueError(f"{repo_id} has no branch {revision!r} to commit to")
    parent, local = state.head, local_tree(folder)
    difference = compare(local, state.tree)
    if difference.empty and not create_pr:
        return Commit(parent, made=False)
    if create_pr and (known := find_pull_request(api, repo_id, local, repo_type)):
        return Commit(known[1], made=False, pull_request=known[0])

    def landed() -> Commit | None:
        """The commit, if it stands on the Hub after all; a conflict if another one does."""
        if create_pr:
            known = find_pull_request(api, repo_id, local, repo_type)
            return Commit(known[1], made=True, pull_request=known[0]) if known else None
        head = read_repo(api, repo_id, revision, repo_type).head
        if head == parent:
            return None
        oid = find_commit(api, repo_id, local, revision, parent, repo_type)
        if oid is None:
            raise ConflictError(
                f"{repo_id} was changed by somebody else during this push: its branch {revision!r} was at "
                f"{parent[:10]} and is now at {str(head)[:10]}. Nothing of this push was committed. Look at the "
                "change, then push again."
            )
        return Commit(oid, made=True)

    if earlier := landed():  # before any byte is sent: a stale parent is only refused after all of them
        return earlier
    step = f"committing to {repo_id}"
    for last in attempts(COMMIT_ATTEMPTS, pause):
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path, folder / path) for path in (*difference.added, *difference.changed)),
            *(CommitOperationDelete(path, is_folder=False) for path in difference.deleted),
        ]
        try:
            info = api.create_commit(
                repo_id, operations, commit_message=title, repo_type=repo_type, revision=revision, create_pr=create_pr,
                parent_commit=parent,
            )  # fmt: skip
            return Commit(info.oid, made=True, pull_request=info.pr_revision)
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            stale = isinstance(error, HfHubHTTPError) and error.response.status_code in (409, 412)
            if not stale and not is_transient(error):
                raise _refused(step, error) from error
            if found := _after_failure(landed, step, error):
                return found
            if last or isinstance(error, RuntimeError):  # an LFS upload was already retried
                raise TransientError(
                    f"{sentence(step)} failed: {reason(error)}. No commit was made; {repo_id} is as it was "
                    f"({parent[:10]}). Run the same command again."
                ) from error
    raise AssertionError("unreachable")


def _after_failure(landed: Callable[[], Commit | None], step: str, error: Exception) -> Commit | None:
    try:
        return landed()
    except TransientError as second:
        raise TransientError(
            f"{sentence(step)} got no answer ({reason(error)}) and the Hub cannot be read now, so whether the commit "
            "stands is not known. Run the same command again: a commit that stands is recognised, not repeated."
        ) from second


def _refused(step: str, error: Exception) -> PublishError:
    if isinstance(error, HTTPError):
        return refusal(step, error)
    return PublishError(f"{sentence(step)} failed: {' '.join(str(error).split())}")


def tag_commit(api: HfApi, repo_id: str, tag: str, commit: str) -> bool:
    """
    Name a commit; whether the tag is new.

    Raises:
        ConflictError: when the tag already names another commit.
    """
    existing = tagged_commit(api, repo_id, tag)
    if existing is None:
        step = f"tagging {repo_id} with {tag}"
        call(step, lambda: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))
        existing = tagged_commit(api, repo_id, tag)
        if existing == commit:
            return True
    if existing != commit:
        raise ConflictError(
            f"The tag {tag!r} of {repo_id} already names the commit {str(existing)[:10]}, not {commit[:10]}. "
            "Choose another tag, or delete the old one with `hf repos tag delete`."
        )
    return False


def tagged_commit(api: HfApi, repo_id: str, tag: str) -> str | None:
    """The commit that a tag names, or None."""
    refs = call(f"reading the tags of {repo_id}", lambda: api.list_repo_refs(repo_id))
    return next((row.target_commit for row in refs.tags if row.name == tag), None)
