"""Is this folder fit to be published? Every file is looked into; what is found is listed whole, then refused."""

import fnmatch
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .client import PublishError
from .secrets import Leak, find_emails, find_in_binary, find_paths, find_tokens, python_words

# Artefacts of training and evaluation that stay on this machine: never published, so only looked at for tokens.
LOCAL_ONLY = (
    "checkpoint-*/*", "best/*", "scan-*.jsonl", "bad_files.jsonl", "runs/*", "events.out.tfevents.*", "*/events.out.tfevents.*", "predictions*.jsonl",
    "*/predictions*.jsonl", "trainer_state.json", "__pycache__/*", "*/__pycache__/*",
    "*.log", ".*", "*/.*", "report.html", "*/report.html",
)  # fmt: skip
PICKLE_SUFFIXES = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".dill",
    ".mar",
    ".nemo",
    ".h5",
    ".keras",
)
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".zst", ".rar", ".whl")
ARCHIVE_MAGIC = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")
OPTIMISER_FILES = (
    "optimizer*", "*optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*", "*optim_states*", "training_args.bin",
    "global_step*", "zero_pp_rank*", "*.distcp",
)  # fmt: skip
OPTIMISER_TENSORS = re.compile(r"(^|[./])(exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|optimizer)([./]|$)")
TEXT_LIMIT = 64 * 1024 * 1024
COMMIT = re.compile(r"^[0-9a-f]{40}$")
VOCABULARY_FILES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")
PATH_KEYS = ("_name_or_path", "name_or_path", "audio_model_id", "text_model_id")
RECIPE_PATH_KEYS = ("audio_model", "text_model", "dataset", "output_dir")


@dataclass(frozen=True)
class Finding:
    """One reason not to publish."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. {self.remedy}"


def is_local_only(path: str) -> bool:
    """Whether a file, by its path in the folder, is an artefact that is never published."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in LOCAL_ONLY)


def publishable_files(folder: Path) -> list[Path]:
    """The files of `folder` that a push would publish."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path for path in files if not is_local_only(path.relative_to(folder).as_posix()))


def refuse_unfit(folder: Path, own_token: str | None = None, allow_local_bases: bool = False) -> None:
    """
    Raises:
        PublishError: listing everything in `folder` that must not be published, with the remedies.
    """
    findings = check_folder(folder, own_token, allow_local_bases)
    if findings:
        shown = " ".join(f"({number}) {finding}" for number, finding in enumerate(findings[:30], 1))
        more = f" And {len(findings) - 30} more." if len(findings) > 30 else ""
        raise PublishError(f"{folder} holds what must not be published, and nothing was sent: {shown}{more}")


def check_folder(folder: Path, own_token: str | None = None, allow_local_bases: bool = False) -> list[Finding]:
    """
    Everything in `folder` that must not be published.

    Args:
        own_token: the token in use; it is refused whatever its shape.
        allow_local_bases: let pass the paths of base models and data in `config.json` and `recipe.yaml`, which a build
            replaces by names.
    """
    findings: list[Finding] = []
    for path in publishable_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            findings.append(
                Finding(name, "is a link to a file outside the folder", "Copy the file, or take the link away.")
            )
            continue
        findings += check_file(path, name, own_token, allow_local_bases)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if is_local_only(name) and not fnmatch.fnmatch(name, "checkpoint-*/*") and path.stat().st_size <= TEXT_LIMIT:
            text = path.read_bytes().decode("latin-1")
            findings += [_leak(name, leak) for leak in find_tokens(text, own_token)]
    return findings


def check_file(path: Path, name: str, own_token: str | None, allow_local_bases: bool = False) -> Iterator[Finding]:
    """What is wrong with one file; `name` is its path in the folder."""
    base = path.name.lower()
    if any(fnmatch.fnmatch(base, pattern) or fnmatch.fnmatch(name.lower(), pattern) for pattern in OPTIMISER_FILES):
        yield Finding(name, "is optimiser or trainer state", "Delete it, or move it out of the folder.")
        return
    if base.endswith(PICKLE_SUFFIXES) or looks_like_pickle(path):
        yield Finding(
            name, "is a pickle, which can run code when it is loaded", "Save weights as safetensors and delete it."
        )
        return
    if base.endswith(ARCHIVE_SUFFIXES) or starts_as_archive(path):
        yield Finding(name, "is an archive, whose content cannot be checked", "Unpack it, or take it away.")
        return
    if base.endswith(".safetensors"):
        yield from _check_safetensors(path, name, own_token)
        return
    if base.endswith((".npy", ".npz")):
        yield Finding(name, "is a NumPy file, which may hold pickled objects", "Save it as safetensors, JSON or CSV.")
        return
    text = read_text(path)
    if text is None:
        yield from _check_binary(path, name, own_token)
        return
    readable = _readable_part(path, text, allow_local_bases)
    leaks = list(find_tokens(text, own_token)) or list(find_tokens(readable, own_token))
    if base not in VOCABULARY_FILES:  # a vocabulary's entries look like anything
        leaks += [*find_emails(readable), *find_paths(readable)]
    yield from (_leak(name, leak) for leak in leaks)
    if base == "config.json" and name == "config.json":
        yield from _check_config(name, text, allow_local_bases)


def _leak(name: str, leak: Leak) -> Finding:
    where = f"{name}:{leak.line}" if leak.line else name
    remedies = {
        "an absolute path": "Write a name or a relative path in its place.",
        "an e-mail address": "Take it out.",
    }
    return Finding(where, f"holds {leak.kind}, {leak.shown}", remedies.get(leak.kind, "Take it out, and revoke it."))


def read_text(path: Path) -> str | None:
    """A file's text, in UTF-8 or UTF-16; None for binary data and for files above 64 MiB."""
    if path.stat().st_size > TEXT_LIMIT:
        return None
    data = path.read_bytes()
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    return None


def _readable_part(path: Path, text: str, allow_local_bases: bool) -> str:
    """The part of a text file that people wrote: not a vocabulary, not Python's operators, not known path settings."""
    if path.suffix == ".py":
        return python_words(text)
    if path.suffix == ".json":
        try:
            value = json.loads(text)
        except ValueError:
            return text
        dropped: tuple[str, ...] = ("vocab", "merges") if path.name == "tokenizer.json" else ()
        if allow_local_bases and path.name == "config.json":
            dropped += PATH_KEYS
        if dropped:
            return json.dumps(_without(value, dropped), indent=0, ensure_ascii=False)
        return json.dumps(value, indent=0, ensure_ascii=False) + "\n" if "\\u" in text or "\\/" in text else text
    if allow_local_bases and path.name == "recipe.yaml":
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            return text
        return yaml.safe_dump(_without(value, RECIPE_PATH_KEYS), allow_unicode=True, width=10_000)
    return text


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def looks_like_pickle(path: Path) -> bool:
    """Whether the content is a pickle, a torch archive of pickles, or NumPy data with pickled objects, by any name."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        return _has_pickle_opcodes(head)
    if head[:1] in (b"(", b"c", b"]", b"}") and path.suffix.lower() not in (".json", ".md", ".txt", ".py", ".jinja"):
        return path.stat().st_size < TEXT_LIMIT and _is_whole_pickle(path.read_bytes())
    return False


def _has_pickle_opcodes(head: bytes) -> bool:
    count = 0
    try:
        for _ in pickletools.genops(head):
            count += 1
            if count >= 3:
                return True
    except (ValueError, KeyError, IndexError, UnicodeDecodeError):
        return count >= 3
    return True


def _is_whole_pickle(data: bytes) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(data)) >= 3
    except (ValueError, KeyError, IndexError, UnicodeDecodeError):
        return False


def starts_as_archive(path: Path) -> bool:
    """Whether the content is that of an archive or compressed file, by any name."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith(ARCHIVE_MAGIC) or head[257:262] == b"ustar"


def _check_binary(path: Path, name: str, own_token: str | None) -> Iterator[Finding]:
    overlap, tail = 512, b""
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            yield from (_leak(name, leak) for leak in find_in_binary(tail + piece, own_token))
            tail = piece[-overlap:]


def _check_safetensors(path: Path, name: str, own_token: str | None) -> Iterator[Finding]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 2 <= length <= min(size - 8, 100_000_000) else b""
    try:
        entries = json.loads(header)
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        yield Finding(name, "is no safetensors file, though it is called one", "Save the weights again.")
        return
    metadata = json.dumps(entries.pop("__metadata__", {}), ensure_ascii=False)
    leaks = (*find_tokens(metadata, own_token), *find_emails(metadata), *find_paths(metadata))
    yield from (_leak(f"{name} (metadata)", Leak(leak.kind, leak.shown)) for leak in leaks)
    if any(OPTIMISER_TENSORS.search(tensor) for tensor in entries):
        yield Finding(name, "holds optimiser state", "Save the model alone, with save_pretrained.")
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if 8 + length + end != size:
        yield Finding(name, "is cut short or has data behind its tensors", "Save the weights again.")


def _check_config(name: str, text: str, allow_local_bases: bool) -> Iterator[Finding]:
    try:
        config = json.loads(text)
    except ValueError as error:
        yield Finding(name, f"is no JSON ({error})", "Save the model again with save_pretrained.")
        return
    adapter = config.get("checkpoint_form") == "adapter"
    for part in ("audio", "text"):
        model_id, revision = config.get(f"{part}_model_id"), config.get(f"{part}_model_revision")
        if adapter and (not model_id or not is_hub_id(str(model_id))):
            yield Finding(
                name,
                f"{part}_model_id is {model_id!r}, which is not on the Hub, so nobody else could load the adapter form",
                "Push with --standalone, which holds every weight.",
            )
        elif model_id and is_hub_id(str(model_id)) and not COMMIT.match(str(revision or "")) and (adapter or revision):
            yield Finding(
                name,
                f"{part}_model_revision is {revision!r}, so {model_id} is not pinned and may change under the model",
                "Set it to the 40-digit commit that the model was trained with, or train again from the Hub.",
            )


def is_hub_id(model_id: str) -> bool:
    """Whether this is a repository's `namespace/name` (or a canonical bare name), and no path."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model_id))
