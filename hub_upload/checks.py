"""Is this folder, as it was built from the allow-list, fit to be published? What is found is listed whole, then refused."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modeling_slam_asr.checkpoint_slam_asr import open_tensors
from trainers.credentials import Leak, find_emails, find_in_binary, find_paths, find_random, find_tokens, python_words

from .client import PublishError
from .published import VOCABULARY

OPTIMISER_TENSORS = re.compile(r"(^|[./])(exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|optimizer)([./]|$)")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One reason not to publish."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. {self.remedy}"


def refuse_unfit(folder: Path, own_token: str | None = None, shown_as: Path | None = None) -> None:
    """
    Args:
        own_token: the token in use; it is refused whatever its shape.
        shown_as: the folder's name in the message: that which it was built from.
    Raises:
        PublishError: with a line for each of the first findings, and the remedies.
    """
    findings = check_folder(folder, own_token)
    if findings:
        more = [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
        raise PublishError(
            f"{shown_as or folder} holds what must not be published, and nothing was sent:",
            details=[*map(str, findings[:SHOWN]), *more],
        )


def check_folder(folder: Path, own_token: str | None = None) -> list[Finding]:
    """Everything in `folder` that must not be published."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return [finding for path in files for finding in check_file(path, path.relative_to(folder).as_posix(), own_token)]


def check_file(path: Path, name: str, own_token: str | None = None) -> Iterator[Finding]:
    """What is wrong with one file; `name` is its path in the folder."""
    for leak in (*find_tokens(name, own_token), *find_emails(name)):
        yield Finding("the name of a file", f"holds {leak.kind}, {leak.shown}", "Rename it.")
    if path.suffix == ".safetensors":
        yield from _check_safetensors(path, name, own_token)
        return
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        if path.suffix not in (".model", ".png"):
            yield Finding(name, "is no text in UTF-8, as a file of this name must be", "Save it again.")
        yield from (_leak(name, leak) for leak in find_in_binary(data, own_token))
        return
    try:
        readable = _readable_part(path, text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        yield Finding(name, f"cannot be read ({reason})", "Save it again.")
        return
    leaks = list(find_tokens(text, own_token)) or list(find_tokens(readable, own_token))
    if path.name not in VOCABULARY or path.name == "tokenizer.json":  # a vocabulary's entries look like anything
        leaks += [*find_emails(readable), *find_paths(readable)]
        leaks += [] if leaks else find_random(readable)
    yield from (_leak(name, leak) for leak in leaks)
    if name == "config.json":
        yield from _check_config(json.loads(text))


def _leak(name: str, leak: Leak) -> Finding:
    where = f"{name}:{leak.line}" if leak.line else name
    remedies = {
        "an absolute path": "Write a name or a relative path in its place.",
        "an e-mail address": "Take it out.",
    }
    return Finding(where, f"holds {leak.kind}, {leak.shown}", remedies.get(leak.kind, "Take it out, and revoke it."))


def _readable_part(path: Path, text: str) -> str:
    """The part of a text file that people wrote: not a vocabulary, not Python's operators."""
    if path.suffix == ".py":
        return python_words(text)
    if path.suffix != ".json":
        return text
    value = json.loads(text)
    if path.name == "tokenizer.json":
        return json.dumps(_without(value, ("vocab", "merges")), indent=0, ensure_ascii=False)
    return json.dumps(value, indent=0, ensure_ascii=False) if "\\u" in text or "\\/" in text else text


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def _check_safetensors(path: Path, name: str, own_token: str | None) -> Iterator[Finding]:
    try:
        with open_tensors(path) as file:
            tensors, metadata = file.keys(), file.metadata() or {}
    except ValueError:
        problem = "is no safetensors file, though it is called one, or is cut short or has data behind its tensors"
        yield Finding(name, problem, "Save the weights again.")
        return
    written = json.dumps(metadata, indent=0, ensure_ascii=False) + "\n" + "\n".join(tensors)
    leaks = [*find_tokens(written, own_token), *find_emails(written), *find_paths(written)]
    leaks += [] if leaks else find_random(written)
    yield from (_leak(f"{name} (metadata)", Leak(leak.kind, leak.shown)) for leak in leaks)
    if any(OPTIMISER_TENSORS.search(tensor) for tensor in tensors):
        yield Finding(name, "holds optimiser state", "Save the model alone, with save_pretrained.")


def _check_config(config: dict[str, Any]) -> Iterator[Finding]:
    adapter = config.get("checkpoint_form") == "adapter"
    for part in ("audio", "text"):
        model_id, revision = config.get(f"{part}_model_id"), config.get(f"{part}_model_revision")
        if adapter and (not model_id or not is_hub_id(str(model_id))):
            yield Finding(
                "config.json",
                f"{part}_model_id is {model_id!r}, which is not on the Hub, so nobody else could load the adapter form",
                "Push with --standalone, which holds every weight, or say with --base where it is on the Hub.",
            )
        elif model_id and is_hub_id(str(model_id)) and not COMMIT.match(str(revision or "")) and (adapter or revision):
            yield Finding(
                "config.json",
                f"{part}_model_revision is {revision!r}, so {model_id} is not pinned and may change under the model",
                "Set it to the 40-digit commit that the model was trained with, or train again from the Hub.",
            )


def is_hub_id(model_id: str) -> bool:
    """Whether this is a repository's `namespace/name` (or a canonical bare name), and no path."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model_id))
