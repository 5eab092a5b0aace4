"""The content of the look-alike Hub: repositories as one JSON file each, blobs by their hash, all below one folder.

A commit becomes visible by one rename of its repository's file, so nothing half-made can be seen.
"""

import hashlib
import json
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

State = dict[str, Any]
User = tuple[str, list[str], str]

TOKENS: dict[str, User] = {
    "hf_write": ("user", ["acme"], "write"),
    "hf_read": ("reader", ["acme"], "read"),
    "hf_other": ("other", [], "write"),
}


def now() -> str:
    """The time in the Hub's form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_blob_id(data: bytes) -> str:
    """The SHA-1 that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubError(Exception):
    """An error reply: status, message, the Hub's own error code, extra headers and body."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers, self.body = status, message, code, headers or {}, body


class Store:
    """Everything the look-alike knows. `log` lists the requests, `faults` those still to be injected."""

    def __init__(self, root: Path, tokens: dict[str, User] | None = None) -> None:
        self.root = root
        for name in ("blobs", "lfs", "tmp", "model", "dataset", "space", "collection"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.tokens = tokens or TOKENS
        self.lock = threading.RLock()
        self.log: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []

    def load(self, kind: str, repo_id: str) -> State | None:
        """The state of a repository or collection, or None."""
        path = self.root / kind / f"{repo_id}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def save(self, kind: str, repo_id: str, state: State) -> None:
        """Make a new state visible, in one step."""
        path = self.root / kind / f"{repo_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.temporary()
        temporary.write_text(json.dumps(state))
        temporary.replace(path)

    def all(self, kind: str) -> list[str]:
        """The ids of all repositories of a kind."""
        folder = self.root / kind
        return sorted(str(path.relative_to(folder))[: -len(".json")] for path in folder.rglob("*.json"))

    def temporary(self) -> Path:
        return self.root / "tmp" / uuid.uuid4().hex

    def put_blob(self, data: bytes) -> str:
        """Keep a regular file's content; its git id."""
        blob_id = git_blob_id(data)
        path = self.root / "blobs" / blob_id
        if not path.exists():
            temporary = self.temporary()
            temporary.write_bytes(data)
            temporary.replace(path)
        return blob_id

    def user(self, authorization: str | None) -> User | None:
        """Who a request comes from: None without a token, 401 with a wrong one."""
        if not authorization:
            return None
        token = authorization.split(" ", 1)[-1]
        if token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    @staticmethod
    def is_member(user: User | None, repo_id: str) -> bool:
        return user is not None and repo_id.split("/")[0] in [user[0], *user[1]]

    def can_write(self, user: User | None, repo_id: str) -> bool:
        return user is not None and user[2] == "write" and self.is_member(user, repo_id)

    def repo(self, kind: str, repo_id: str, user: User | None, write: bool = False) -> State:
        """The state of a repository that `user` may read (or write), else the Hub's own error."""
        state = self.load(kind, repo_id)
        if state is None or (state["private"] and not self.is_member(user, repo_id)):
            if user:
                raise HubError(404, "Repository not found", "RepoNotFound")
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        if write and not self.can_write(user, repo_id):
            if not user:
                raise HubError(401, "Invalid username or password.")
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return state

    @staticmethod
    def resolve(state: State, revision: str) -> str:
        """The commit that a branch, tag, pull request or commit id names."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}", f"refs/{revision}"):
            if name in state["refs"]:
                return state["refs"][name]
        if revision in state["commits"]:
            return revision
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    @staticmethod
    def add_commit(state: State, parent: str | None, files: dict[str, Any], title: str, message: str, by: str) -> str:
        """Add a commit to `state` (not yet to a branch); its id."""
        content = json.dumps([parent, files, title, message, time.time_ns()], sort_keys=True)
        commit = hashlib.sha1(content.encode()).hexdigest()
        state["commits"][commit] = {
            "id": commit, "parent": parent, "files": files, "title": title, "message": message, "date": now(),
            "author": by,
        }  # fmt: skip
        return commit

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, Any]:
        """For tests: path -> entry of the files at a revision."""
        state = self.load(kind, repo_id)
        assert state is not None, f"no repository {repo_id}"
        return state["commits"][self.resolve(state, revision)]["files"]

    def read(self, repo_id: str, path: str, revision: str = "main", kind: str = "model") -> bytes:
        """For tests: the content of a file at a revision."""
        entry = self.files(repo_id, revision, kind)[path]
        folder, name = ("lfs", entry["sha256"]) if "sha256" in entry else ("blobs", entry["oid"])
        return (self.root / folder / name).read_bytes()

    def commits(self, repo_id: str, kind: str = "model", revision: str = "main") -> list[str]:
        """For tests: titles of the commits of a branch, newest first."""
        state = self.load(kind, repo_id)
        assert state is not None, f"no repository {repo_id}"
        titles, commit = [], self.resolve(state, revision)
        while commit:
            titles.append(state["commits"][commit]["title"])
            commit = state["commits"][commit]["parent"]
        return titles

    def move_head(self, repo_id: str, path: str, data: bytes, kind: str = "model") -> str:
        """For tests: somebody else commits one file to main."""
        with self.lock:
            state = self.load(kind, repo_id)
            assert state is not None, f"no repository {repo_id}"
            parent = state["refs"]["refs/heads/main"]
            files = {**state["commits"][parent]["files"], path: {"oid": self.put_blob(data), "size": len(data)}}
            state["refs"]["refs/heads/main"] = self.add_commit(state, parent, files, "somebody else", "", "other")
            self.save(kind, repo_id, state)
            return state["refs"]["refs/heads/main"]
