"""The manifest of an export: what its parts are, how they were checked, and the SHA-256 of every file. Needs neither torch nor numpy."""

import json
import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from trainers.errors import UserError
from trainers.provenance import EXPORT_MANIFEST, file_sha256

FORMAT = 1
_WEIGHTS = (".onnx", ".onnx.data", ".gguf", ".safetensors")


class FileRecord(TypedDict):
    """One file, by its content."""

    sha256: str
    bytes: int


class Part(TypedDict):
    """One artefact: `path` within the folder, `precision` of its weights, and the figures of its check against the torch model."""

    path: str
    precision: str
    check: dict[str, float]
    bounds: dict[str, float]


class PromptSettings(TypedDict):
    """What stands around the audio embeddings, as token ids, and the texts that it is made of."""

    before: list[int]
    after: list[int]
    languages: dict[str, dict[str, list[int]]]  # `before` and `after` by language; empty if that changes nothing
    text: str
    language_prompt: str | None
    context_prompt: str
    use_chat_template: bool


class AudioSettings(TypedDict):
    """From samples to audio embeddings. Lengths are in samples, rates in Hz."""

    sampling_rate: int
    n_fft: int
    hop_length: int
    mel_bins: int
    longest: int  # samples that one call takes
    unit: int  # a recording is padded with silence to a multiple of this many samples, at most to `longest`
    pad_to_longest: bool
    embedding_size: int
    seconds_per_embedding: float | None  # None: a fixed number of embeddings for a recording
    ctc_tokens: list[int] | None  # token ids of the CTC head's classes 1, 2, ...; None: no head
    ctc_whole_vocabulary: bool  # class i + 1 is token i, and `ctc_tokens` is None
    compress: str | None
    compress_keep: float
    encoder_size: NotRequired[int]  # width of the encoder


class GenerationSettings(TypedDict):
    """How the LLM is asked, and when it has to stop."""

    eos_token_ids: list[int]
    pad_token_id: int | None
    settings: dict[str, Any]  # those of `generation_config.json`
    tokens_per_second: float
    spare_tokens: int
    window_seconds: float
    uncut_seconds: float
    overlap_seconds: float


class ModelSettings(TypedDict):
    """What a manifest says of the model."""

    parameters: NotRequired[dict[str, int]]  # `total`, `encoder`, `trainable`
    audio: AudioSettings
    prompt: PromptSettings
    generation: GenerationSettings


class Manifest(ModelSettings):
    """The content of `manifest.json`."""

    format: int
    produced_by: str
    package_version: str
    model: str
    parts: dict[str, Part]
    files: dict[str, FileRecord]


def files_of(folder: Path) -> dict[str, FileRecord]:
    """SHA-256 and size of every file below `folder` but the manifest itself, by its path within it."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / EXPORT_MANIFEST
    }


def read_manifest(folder: str | os.PathLike[str], part: str | None = None) -> Manifest:
    """
    The manifest of an exported folder, its files checked.

    Args:
        part: check that the export has this part, and all files but the weights of other parts; None: all files.
    Raises:
        UserError: when there is none, it is of another format, or a file is missing or not the one that was written.
    """
    folder = Path(folder)
    try:
        manifest: Manifest = json.loads((folder / EXPORT_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no {EXPORT_MANIFEST} that can be read ({error}). Make one with `slam-asr export MODEL DIR`."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise UserError(
            f"{folder / EXPORT_MANIFEST} is of format {found!r}; this version reads {FORMAT}. Export the model again with `slam-asr export`."
        )
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("parts"), dict):
        raise UserError(
            f"{folder / EXPORT_MANIFEST} lists no files or parts. Export the model again with `slam-asr export`."
        )
    own = None if part is None else require_part(manifest, folder, part)["path"]
    for name, record in manifest["files"].items():
        if own is not None and name.endswith(_WEIGHTS) and not _belongs(name, own):
            continue
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder} lacks {name}, which its manifest lists. Copy the folder whole, or export again.")
        if path.stat().st_size != record["bytes"] or file_sha256(path) != record["sha256"]:
            raise UserError(f"{path} is not the file that was exported (its SHA-256 differs). Export the model again.")
    return manifest


def _belongs(name: str, path: str) -> bool:
    """Whether a file is the part at `path`, within it, or the data that ONNX keeps beside it."""
    return name in (path, f"{path}.data") or name.startswith(f"{path}/")


def require_part(manifest: Manifest, folder: Path, part: str) -> Part:
    """
    One part of an export.

    Raises:
        UserError: when it was exported without, or lies outside of the folder or of the files that the manifest vouches for.
    """
    if part not in manifest["parts"]:
        raise UserError(f"{folder} was exported without {part!r}; it has {', '.join(manifest['parts'])}. Export again.")
    path = manifest["parts"][part]["path"]
    listed = isinstance(path, str) and any(_belongs(name, path) for name in manifest["files"])
    if not listed or not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{folder / EXPORT_MANIFEST}: the part {part!r} lies at {path!r}, which is none of its files. Export again."
        )
    return manifest["parts"][part]
