"""The look-alike's routes that move files: preupload, LFS, commits, downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .store import HubError, State, git_blob_id

if TYPE_CHECKING:
    from .handler import Handler

LFS_SUFFIXES = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|npz|npy|parquet|zip|tar|gz|model|wav|flac|mp3)$")
LFS_SIZE = 10 * 1024 * 1024


def preupload(handler: Handler, state: State, revision: str) -> None:
    commit = handler.store.resolve(state, revision)
    files, rows = state["commits"][commit]["files"], []
    for file in handler.json_body()["files"]:
        binary = b"\0" in base64.b64decode(file.get("sample") or "")
        lfs = bool(LFS_SUFFIXES.search(file["path"])) or file["size"] > LFS_SIZE or binary
        row = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if known := files.get(file["path"]):
            row["oid"] = known.get("sha256") or known["oid"]
        rows.append(row)
    handler.reply(200, {"files": rows, "commitOid": commit})


def lfs_batch(handler: Handler) -> None:
    store, body = handler.store, handler.json_body()
    store.repo(handler.kind, handler.repo_id, handler.user, write="ref" in body)
    if not handler.user:
        raise HubError(401, "Invalid username or password.")
    objects = []
    for wanted in body["objects"]:
        row: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
        if not (store.root / "lfs" / wanted["oid"]).exists():
            base = f"{handler.base_url()}/lfs"
            row["actions"] = {
                "upload": {"href": f"{base}/put/{wanted['oid']}", "header": {}},
                "verify": {"href": f"{base}/verify/{wanted['oid']}", "header": {}},
            }
        objects.append(row)
    handler.reply(200, {"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")


def lfs_transfer(handler: Handler, path: str) -> None:
    what, oid = path.split("/")[2:4]
    final = handler.store.root / "lfs" / oid
    if what == "put":
        temporary, digest = handler.store.temporary(), hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                for piece in handler.body_pieces():
                    file.write(piece)
                    digest.update(piece)
            if digest.hexdigest() != oid:
                raise HubError(400, "content does not match the oid")
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        return handler.reply(200)
    if what == "verify":
        if not final.exists() or final.stat().st_size != handler.json_body()["size"]:
            raise HubError(404, "object not found")
        return handler.reply(200, {})
    raise HubError(404, "no such route")


def commit(handler: Handler, revision: str) -> None:
    """Read and check the whole commit, then make it visible in one step."""
    store = handler.store
    lines = [json.loads(line) for line in handler.body().splitlines() if line.strip()]
    header, operations = lines[0]["value"], lines[1:]
    if not handler.user:
        raise HubError(401, "Invalid username or password.")
    with store.lock:
        state = store.repo(handler.kind, handler.repo_id, handler.user)
        parent = store.resolve(state, revision)
        pull_request = handler.query.get("create_pr") == "1"
        names = (name for name in (revision, f"refs/heads/{revision}") if name in state["refs"])
        reference = next(names, None)
        if reference is None and not pull_request:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if header.get("parentCommit") not in (None, parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(state["commits"][parent]["files"])
        for operation in operations:
            _apply(handler, files, operation["key"], operation["value"])
        title, message = header["summary"], header.get("description", "")
        oid = store.add_commit(state, parent, files, title, message, handler.user[0])
        reply = {"success": True, "commitOid": oid, "commitUrl": f"{handler.repo_url()}/commit/{oid}"}
        if pull_request:
            state["pulls"].append({"title": title, "author": handler.user[0]})
            reference = f"refs/pr/{len(state['pulls'])}"
            reply["pullRequestUrl"] = f"{handler.repo_url()}/discussions/{len(state['pulls'])}"
        state["refs"][reference] = oid
        store.save(handler.kind, handler.repo_id, state)
    handler.reply(200, {**reply, "hookOutput": ""})


def _apply(handler: Handler, files: dict[str, Any], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if path.startswith("/") or ".." in path.split("/") or path.split("/")[0] == ".git":
        raise HubError(400, f"bad path {path}")
    if key == "file":
        raw = value["content"]
        data = base64.b64decode(raw) if value.get("encoding") == "base64" else raw.encode()
        files[path] = {"oid": handler.store.put_blob(data), "size": len(data)}
    elif key == "lfsFile":
        stored = handler.store.root / "lfs" / value["oid"]
        if not stored.exists():
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
        size = stored.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n"
        files[path] = {"oid": git_blob_id(pointer.encode()), "size": size, "sha256": value["oid"]}
    elif key == "deletedFile" and path in files:
        del files[path]
    elif key in ("deletedFile", "deletedFolder"):
        inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
        if not inside:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in inside:
            del files[name]
    else:
        raise HubError(400, f"unknown operation {key}")


def resolve_file(handler: Handler, revision: str, path: str) -> None:
    state = handler.store.repo(handler.kind, handler.repo_id, handler.user)
    commit = handler.store.resolve(state, revision)
    entry = state["commits"][commit]["files"].get(path)
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
    headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(entry["size"])}
    if "sha256" in entry:
        headers["X-Linked-ETag"] = f'"{entry["sha256"]}"'
        return send_file(handler, handler.store.root / "lfs" / entry["sha256"], entry["sha256"], headers)
    headers["X-Linked-ETag"] = f'"{entry["oid"]}"'
    headers["Location"] = f"/api/resolve-cache/{handler.kind}s/{handler.repo_id}/{commit}/{quote(path)}"
    handler.reply(307, b"", "text/plain", headers)


def resolve_cached(handler: Handler, commit: str, path: str) -> None:
    state = handler.store.repo(handler.kind, handler.repo_id, handler.user)
    entry = state["commits"].get(commit, {"files": {}})["files"].get(path)
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
    send_file(handler, handler.store.root / "blobs" / entry["oid"], entry["oid"], {"X-Repo-Commit": commit})


def send_file(handler: Handler, path: Path, etag: str, headers: dict[str, str]) -> None:
    """A file or the range of it that the request names."""
    size = path.stat().st_size
    headers = {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    status, start, end = 200, 0, size
    if match := re.match(r"bytes=(\d+)-(\d*)$", handler.headers.get("Range") or ""):
        status, start = 206, int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if start >= size:
            return handler.reply(416, b"", headers={**headers, "Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    data = b""
    if handler.command != "HEAD":
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
    handler.reply(status, data, "application/octet-stream", headers, length=end - start)
