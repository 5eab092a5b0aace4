"""Common Voice from its files: transcripts in tsv, clips in tar files of mp3 (release 22 on the Hub) or loose, as Mozilla has them."""

import dataclasses
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trainers.data.hub import HUB_ERRORS, first_line
from trainers.data.rows import Utterance, details_of, optional_text, text_of
from trainers.data.spec import DataSpec
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.data.tables import read_table
from trainers.errors import UserError

SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev"}

logger = logging.getLogger(__name__)


def is_common_voice(spec: DataSpec) -> bool:
    """True for the layout `transcript/{language}/{split}.tsv` with `audio/{language}/{split}/*.tar`, and for Mozilla's:
    `{language}/{split}.tsv` with `{language}/clips/`, named by the release's folder or by the language's."""
    folder = spec.path
    if (folder / "transcript").is_dir() and (folder / "audio").is_dir():
        return True
    return _is_mozillas(folder) or bool(_languages(folder))


def load_common_voice(spec: DataSpec) -> list[Utterance]:
    """Rows of one language and split, from a folder or a Hub repository; clips stay in their tar files.

    Also reads Mozilla's own layout. A clip that the tsv names and that is not there becomes a row without a file, counted
    later as damaged.
    """
    root = spec.path
    language = _language(spec, root)
    split = SPLIT_NAMES.get(spec.split, spec.split)
    own = _mozillas(root, language)
    if own is not None:
        return _with_clips(_rows(_require(own / f"{split}.tsv"), language, spec), own / "clips")
    if root.is_dir():
        transcripts = _require(root / "transcript" / language / f"{split}.tsv")
        archives = sorted((root / "audio" / language / split).glob("*.tar"))
    else:
        transcripts, archives = _download(spec, language, split)
    if not archives:
        raise UserError(f"{spec.dataset} has no tar files under audio/{language}/{split}/.")
    return _join(list(_rows(transcripts, language, spec)), archives[: spec.max_shards], partial=bool(spec.max_shards))


def transcripts_only(spec: DataSpec) -> list[Utterance]:
    """The split's rows without their audio: what a dry run can learn without downloading the clips."""
    root = spec.path
    language = _language(spec, root)
    split = SPLIT_NAMES.get(spec.split, spec.split)
    if root.is_dir():
        folder = _mozillas(root, language) or root / "transcript" / language
        return list(_rows(_require(folder / f"{split}.tsv"), language, spec))
    return list(_rows(_fetch(spec, f"transcript/{language}/{split}.tsv"), language, spec))


def _is_mozillas(folder: Path) -> bool:
    """Whether a folder is a language of Mozilla's layout."""
    return (folder / "clips").is_dir() and next(folder.glob("*.tsv"), None) is not None


def _languages(root: Path) -> list[str]:
    """The languages of a release's folder."""
    return sorted(path.parent.name for path in root.glob("*/clips") if _is_mozillas(path.parent))


def _language(spec: DataSpec, root: Path) -> str:
    language = spec.language or spec.config
    if language is None and _is_mozillas(root):
        return root.resolve().name
    if language is None:
        there = _languages(root) if root.is_dir() else []
        found = f" Languages there: {', '.join(there)}." if there else ""
        raise UserError(f"Common Voice needs a language: set `language`, such as da, nl or en.{found}")
    return language


def _mozillas(root: Path, language: str) -> Path | None:
    """The folder with a language's tsv files and clips in Mozilla's layout, or None."""
    if (root / language / "clips").is_dir():
        return root / language
    if _is_mozillas(root):
        return root
    if there := _languages(root):
        raise UserError(f"{root} has no language {language!r}. Languages there: {', '.join(there)}.")
    return None


def _rows(transcripts: Path, language: str, spec: DataSpec) -> Iterator[Utterance]:
    table = read_table(transcripts)
    column = spec.text_column or "sentence"
    for name in ("path", column):
        if name not in table.columns:
            raise UserError(f"{transcripts} has no column {name!r}. The columns there: {', '.join(table.columns)}.")
    for row in table.rows:
        clip = PurePosixPath(row.values.get("path", "")).name
        fault = row.fault
        if not clip and fault is None:
            fault = f"Line {row.line} of {transcripts} names no clip under 'path'. Complete it, or get the file again."
        if clip and PurePosixPath(clip).suffix.lower() not in SOUND_SUFFIXES:
            clip = f"{clip}.mp3"  # earlier releases left it out
        yield Utterance(
            id=clip or f"{transcripts.name}:{row.line}",
            audio=None,
            text=text_of(row.values.get(column), f"Line {row.line} of {transcripts}"),
            language=language,
            speaker_id=optional_text(row.values.get("client_id")),
            source="common_voice",
            details=details_of(row.values),
            fault=fault,
        )


def _with_clips(rows: Iterator[Utterance], clips: Path) -> list[Utterance]:
    """Each row with its clip's file; one that was converted goes by another suffix than the tsv says."""
    try:
        there = {path.name for path in clips.iterdir()}
    except OSError as error:
        raise UserError(f"{clips} cannot be read: {error.strerror or error}.") from error
    return [
        dataclasses.replace(row, audio=clips / (_converted(row.id, there) or row.id)) if row.fault is None else row
        for row in rows
    ]


def _converted(name: str, there: set[str] | dict[str, tuple[Path, int, int]]) -> str | None:
    """The name that a clip has among those `there`, or None."""
    stem = name.rpartition(".")[0]
    return next((each for each in (name, *(f"{stem}{suffix}" for suffix in SOUND_SUFFIXES)) if each in there), None)


def _join(rows: list[Utterance], archives: list[Path], partial: bool) -> list[Utterance]:
    """Each row with the place of its clip: the archive, and the first byte and size of the clip within it."""
    places: dict[str, tuple[Path, int, int]] = {}
    for archive in archives:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    if member.isreg() and not member.issparse():  # a sparse member's bytes are not those of a clip
                        places[PurePosixPath(member.name).name] = (archive, member.offset_data, member.size)
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            raise UserError(f"The archive {archive} cannot be read ({error}). Download it again.") from error
    joined = []
    used = set()
    for row in rows:
        name = _converted(row.id, places)
        if name is not None:
            archive, offset, size = places[name]
            joined.append(dataclasses.replace(row, audio=archive, audio_offset=offset, audio_size=size))
            used.add(name)
        elif not partial or row.fault is not None:
            joined.append(dataclasses.replace(row, audio=archives[0].parent / row.id))
    if len(used) < len(places):
        logger.warning(f"{archives[0].parent}: {len(places) - len(used)} clips are named by no row and left out.")
    if len(joined) < len(rows):
        logger.warning(f"{archives[0].parent}: {len(rows) - len(joined)} rows have their clips in archives not read.")
    return joined


def _require(path: Path) -> Path:
    if not path.is_file():
        there = sorted(item.stem for item in path.parent.glob("*.tsv"))
        found = f" Splits there: {', '.join(there)}." if there else ""
        raise UserError(f"Common Voice: {path} does not exist.{found}")
    return path


def _download(spec: DataSpec, language: str, split: str) -> tuple[Path, list[Path]]:
    from huggingface_hub import HfApi

    folder = f"audio/{language}/{split}"
    try:
        tree = HfApi().list_repo_tree(spec.dataset, folder, repo_type="dataset", revision=spec.revision)
        names = [item.path for item in tree if item.path.endswith(".tar")]
    except HUB_ERRORS as error:
        raise UserError(
            f"{spec.dataset!r} has no folder {folder}/ on the Hub, or cannot be reached ({first_line(error)}). "
            "Check the language and split, your connection, and `hf auth login`; a local copy's folder works too."
        ) from error
    names.sort(key=lambda name: (len(name), name))  # shard 10 after shard 9
    return _fetch(spec, f"transcript/{language}/{split}.tsv"), [_fetch(spec, name) for name in names[: spec.max_shards]]


def _fetch(spec: DataSpec, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(spec.dataset, name, repo_type="dataset", revision=spec.revision))
    except HUB_ERRORS as error:
        raise UserError(f"{name} of {spec.dataset!r} cannot be downloaded: {first_line(error)}") from error
