"""The look-alike's routes for accounts, repositories, references, commits' history, discussions and collections."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml

from .store import HubError, State, now

if TYPE_CHECKING:
    from .handler import Handler

REFERENCE_KINDS = {"refs/heads": "branches", "refs/tags": "tags", "refs/pr": "pullRequests"}


def whoami(handler: Handler) -> None:
    if not handler.user:
        raise HubError(401, "Invalid username or password.")
    name, organisations, role = handler.user
    orgs = [{"type": "org", "name": org, "fullname": org, "roleInOrg": "write"} for org in organisations]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    handler.reply(200, {"type": "user", "id": "0" * 24, "name": name, "fullname": name, "orgs": orgs, "auth": token})


def front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card; an error for metadata that is no mapping."""
    match = re.match(r"^\s*---[ \t]*\r?\n(.*?)\r?\n---", text, re.S)
    data = yaml.safe_load(match[1]) if match else {}
    if not isinstance(data, dict):
        raise ValueError("metadata must be a mapping")
    return data


def validate_yaml(handler: Handler) -> None:
    errors = []
    try:
        data = front_matter(handler.json_body().get("content", ""))
        if data.get("base_model_relation") not in (None, "adapter", "merge", "quantized", "finetune"):
            errors.append({"message": "base_model_relation must be one of adapter, merge, quantized, finetune"})
        errors += [{"message": "model-index needs a name"} for row in data.get("model-index", []) if not row["name"]]
        if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
            errors.append({"message": "license other needs license_name and license_link"})
    except (ValueError, yaml.YAMLError) as error:
        errors.append({"message": str(error)})
    handler.reply(400 if errors else 200, {"errors": errors, "warnings": []})


def create(handler: Handler) -> None:
    store, body = handler.store, handler.json_body()
    if not handler.user:
        raise HubError(401, "Invalid username or password.")
    handler.repo_id = f"{body.get('organization') or handler.user[0]}/{body['name']}"
    handler.kind = body.get("type") or "model"
    known = {"url": handler.repo_url(), "name": handler.repo_id}
    with store.lock:
        if not store.can_write(handler.user, handler.repo_id):
            raise HubError(403, "You don't have the rights to create a repository under this namespace")
        if store.load(handler.kind, handler.repo_id):
            raise HubError(409, "You already created this repo", body={"error": "You already created it", **known})
        private = body.get("visibility") == "private" or bool(body.get("private"))
        state: State = {"private": private, "created": now(), "refs": {}, "commits": {}, "pulls": [], "sdk": None}
        state["id"], state["sdk"] = uuid.uuid4().hex[:24], body.get("sdk")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        files = {".gitattributes": {"oid": store.put_blob(attributes), "size": len(attributes)}}
        state["refs"]["refs/heads/main"] = store.add_commit(state, None, files, "initial commit", "", handler.user[0])
        store.save(handler.kind, handler.repo_id, state)
    handler.reply(200, {**known, "id": state["id"]})


def delete(handler: Handler) -> None:
    body = handler.json_body()
    kind, repo_id = body.get("type") or "model", f"{body.get('organization')}/{body['name']}"
    handler.store.repo(kind, repo_id, handler.user, write=True)
    (handler.store.root / kind / f"{repo_id}.json").unlink()
    handler.reply(200, {})


def repo_api(handler: Handler, parts: list[str]) -> None:
    """`/api/models/<repo>/...`"""
    from . import transfers

    store, method = handler.store, handler.command
    head, rest = (parts[0], "/".join(parts[1:])) if parts else ("", "")
    pull_request = head in ("commit", "preupload") and handler.query.get("create_pr")
    reads = method == "GET" or head in ("paths-info", "discussions") or pull_request
    state = store.repo(handler.kind, handler.repo_id, handler.user, write=not reads)
    if method == "GET" and head in ("", "revision"):
        return info(handler, state, rest or "main")
    if head == "auth-check":
        if rest == "write" and not store.can_write(handler.user, handler.repo_id):
            raise HubError(403, "no write access")
        return handler.reply(200, {})
    if head == "tree" and method == "GET":
        return tree(handler, state, parts[1], "/".join(parts[2:]))
    if head == "paths-info" and method == "POST":
        return paths_info(handler, state, rest)
    if head == "refs" and method == "GET":
        groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for reference, commit in state["refs"].items():
            first, second, name = reference.split("/", 2)
            row = {"name": name, "ref": reference, "targetCommit": commit}
            groups[REFERENCE_KINDS[f"{first}/{second}"]].append(row)
        return handler.reply(200, groups)
    if head == "commits" and method == "GET":
        return history(handler, state, rest)
    if head in ("tag", "branch"):
        return change_reference(handler, head, rest)
    if head == "preupload" and method == "POST":
        return transfers.preupload(handler, state, rest)
    if head == "commit" and method == "POST":
        return transfers.commit(handler, rest)
    if head == "settings" and method == "PUT":
        body = handler.json_body()
        with store.lock:
            state["private"] = body.get("visibility") == "private" or bool(body.get("private"))
            store.save(handler.kind, handler.repo_id, state)
        return handler.reply(200, {})
    raise HubError(404, f"no such route: {'/'.join(parts)}")


def history(handler: Handler, state: State, revision: str) -> None:
    rows, commit = [], handler.store.resolve(state, revision)
    while commit:
        entry = state["commits"][commit]
        authors = [{"user": entry["author"]}]
        rows.append({"id": commit, "title": entry["title"], "message": entry["message"], "date": entry["date"]})
        rows[-1]["authors"] = authors
        commit = entry["parent"]
    handler.reply(200, rows)


def info(handler: Handler, state: State, revision: str) -> None:
    store = handler.store
    commit = store.resolve(state, revision)
    entry = state["commits"][commit]
    siblings = []
    for path, file in sorted(entry["files"].items()):
        row: dict[str, Any] = {"rfilename": path}
        if handler.query.get("blobs"):
            row |= {"size": file["size"], "blobId": file["oid"]}
            if "sha256" in file:
                row["lfs"] = {"sha256": file["sha256"], "size": file["size"], "pointerSize": 134}
        siblings.append(row)
    reply = {
        "_id": state["id"], "id": handler.repo_id, "modelId": handler.repo_id, "sha": commit, "siblings": siblings,
        "author": handler.repo_id.split("/")[0], "lastModified": entry["date"], "createdAt": state["created"],
        "private": state["private"], "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
    }  # fmt: skip
    readme = entry["files"].get("README.md")
    if readme and "sha256" not in readme:
        card = front_matter((store.root / "blobs" / readme["oid"]).read_text(encoding="utf-8"))
        reply |= {"cardData": card, "pipeline_tag": card.get("pipeline_tag"), "tags": card.get("tags") or []}
        if "library_name" in card:
            reply["library_name"] = card["library_name"]
    handler.reply(200, reply)


def tree_entry(path: str, file: dict[str, Any]) -> dict[str, Any]:
    entry = {"type": "file", "oid": file["oid"], "size": file["size"], "path": path}
    if "sha256" in file:
        entry["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": 134}
    return entry


def tree(handler: Handler, state: State, revision: str, prefix: str) -> None:
    commit = handler.store.resolve(state, revision)
    files = state["commits"][commit]["files"]
    prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
    recursive = handler.query.get("recursive", "").lower() in ("true", "1")
    rows: list[dict[str, Any]] = []
    folders: set[str] = set()
    for path, file in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        names = path[len(prefix) :].split("/")
        for depth in range(1, len(names) if recursive else min(2, len(names))):
            folder = prefix + "/".join(names[:depth])
            if folder not in folders:
                folders.add(folder)
                rows.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": folder})
        if recursive or len(names) == 1:
            rows.append(tree_entry(path, file))
    if prefix and not rows:
        raise HubError(404, f"{prefix} does not exist", "EntryNotFound", {"X-Repo-Commit": commit})
    handler.reply(200, rows)


def paths_info(handler: Handler, state: State, revision: str) -> None:
    files = state["commits"][handler.store.resolve(state, revision)]["files"]
    paths = parse_qs(handler.body().decode()).get("paths", [])
    handler.reply(200, [tree_entry(path, files[path]) for path in paths if path in files])


def change_reference(handler: Handler, what: str, name: str) -> None:
    store, body = handler.store, handler.json_body()
    with store.lock:
        state = store.repo(handler.kind, handler.repo_id, handler.user, write=True)
        if what == "tag" and handler.command == "POST":
            reference, commit = f"refs/tags/{body['tag']}", store.resolve(state, name)
        else:
            reference = f"refs/{'tags' if what == 'tag' else 'heads'}/{name}"
            commit = store.resolve(state, body.get("startingPoint") or "main")
        if handler.command == "POST":
            if reference in state["refs"]:
                raise HubError(409, f"Reference {reference} already exists")
            state["refs"][reference] = commit
        elif state["refs"].pop(reference, None) is None:
            raise HubError(404, f"Reference {reference} not found", "RevisionNotFound")
        store.save(handler.kind, handler.repo_id, state)
    handler.reply(200, {})


def collections(handler: Handler, parts: list[str]) -> None:
    """`/api/collections[/<namespace>/<slug>[/items[/<id>]]]`"""
    store, method = handler.store, handler.command
    if not parts and method == "GET":
        rows = [store.load("collection", slug) or {} for slug in store.all("collection")]
        owner = handler.query.get("owner")
        readable = [row for row in rows if row["owner"]["name"] == owner or owner is None]
        return handler.reply(200, [{**row, "isUpvotedByUser": False} for row in readable])  # a list gives no position
    body = handler.json_body() if method != "GET" else {}
    slug = "/".join(parts[:2])
    if method != "GET" and not store.can_write(handler.user, slug if parts else f"{body['namespace']}/"):
        raise HubError(403 if handler.user else 401, "You don't have the rights to change this collection")
    with store.lock:
        if not parts:
            slug = f"{body['namespace']}/{re.sub(r'[^a-z0-9]+', '-', body['title'].lower())}-{uuid.uuid4().hex[:24]}"
            owner_row = {"name": body["namespace"], "type": "org"}
            state: State = {"slug": slug, "items": [], "lastUpdated": now(), "theme": "green", "upvotes": 0}
            state |= {key: body.get(key) for key in ("title", "description", "private")} | {"owner": owner_row}
        else:
            state = store.load("collection", slug) or {}
            if not state:
                raise HubError(404, "Collection not found")
        if len(parts) == 3 and method == "POST":
            item = body["item"]
            if any(known["id"] == item["id"] for known in state["items"]):
                raise HubError(409, "This item is already in the collection")
            if item["type"] == "model":
                store.repo("model", item["id"], handler.user)
            note = {"note": {"text": body["note"], "html": body["note"]}} if body.get("note") else {}
            position = len(state["items"])
            state["items"].append({"_id": uuid.uuid4().hex[:24], **item, "position": position, **note})
        elif len(parts) == 4 and method in ("PATCH", "DELETE"):
            item = next((known for known in state["items"] if known["_id"] == parts[3]), None)
            if item is None:
                raise HubError(404, "Item not found")
            if method == "DELETE":
                state["items"].remove(item)
            elif "note" in body:
                item["note"] = {"text": body["note"], "html": body["note"]}
        elif len(parts) == 2 and method == "PATCH":
            state |= {key: body[key] for key in ("title", "description", "private") if key in body}
        if method != "GET":
            store.save("collection", slug, state)
    reply = _collection_reply(state)
    handler.reply(200, {"success": True, "data": reply} if method == "PATCH" else reply)


def _collection_reply(state: State) -> dict[str, Any]:
    return {**state, "position": 0, "isUpvotedByUser": False}
