"""Common Voice from its files: transcripts in tsv, clips in tar files of mp3 (release 22 on the Hub) or loose."""

import csv
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.data.hub_errors import HUB_ERRORS, first_line
from trainers.data.spec import DataSpec
from trainers.errors import UserError

SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev"}


def is_common_voice(folder: Path) -> bool:
    """True for the layout `transcript/{language}/{split}.tsv` with `audio/{language}/{split}/*.tar`."""
    return (folder / "transcript").is_dir() and (folder / "audio").is_dir()


def load_common_voice(spec: DataSpec) -> list[dict[str, Any]]:
    """Rows of one language and split, from a folder or a Hub repository; clips stay in their tar files.

    Also reads Mozilla's own layout, `{language}/{split}.tsv` with `{language}/clips/*.mp3`. A clip that the tsv names and
    no archive holds becomes a row without a file, counted later as damaged.
    """
    language = spec.language or spec.config
    if language is None:
        raise UserError("Common Voice needs a language: set `language`, such as da, nl or en.")
    split = SPLIT_NAMES.get(spec.split, spec.split)
    root = Path(spec.dataset).expanduser()
    if (root / language / "clips").is_dir():
        transcripts = _require(root / language / f"{split}.tsv")
        clips = root / language / "clips"
        rows = _rows(transcripts, language, spec)
        return [{**row, "audio": clips / row["id"]} for row in rows]
    if root.is_dir():
        transcripts = _require(root / "transcript" / language / f"{split}.tsv")
        archives = sorted((root / "audio" / language / split).glob("*.tar"))
    else:
        transcripts, archives = _download(spec, language, split)
    if not archives:
        raise UserError(f"{spec.dataset} has no tar files under audio/{language}/{split}/.")
    return _join(list(_rows(transcripts, language, spec)), archives[: spec.max_shards], partial=bool(spec.max_shards))


def transcripts_only(spec: DataSpec) -> list[dict[str, Any]]:
    """The split's rows without their audio: what a dry run can learn without downloading the clips."""
    language = spec.language or spec.config or ""
    split = SPLIT_NAMES.get(spec.split, spec.split)
    root = Path(spec.dataset).expanduser()
    if root.is_dir():
        return list(_rows(_require(root / "transcript" / language / f"{split}.tsv"), language, spec))
    return list(_rows(_fetch(spec, f"transcript/{language}/{split}.tsv"), language, spec))


def _rows(transcripts: Path, language: str, spec: DataSpec) -> Iterator[dict[str, Any]]:
    with transcripts.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = reader.fieldnames or []
        for name in ("path", spec.text_column or "sentence"):
            if name not in columns:
                raise UserError(f"{transcripts} has no column {name!r}. The columns there: {', '.join(columns)}.")
        for row in reader:
            name = row["path"] if row["path"].endswith(".mp3") else f"{row['path']}.mp3"
            yield {
                "id": name,
                "text": row[spec.text_column or "sentence"] or "",
                "language": language,
                "speaker_id": row.get("client_id"),
                "source": "common_voice",
            }


def _join(rows: list[dict[str, Any]], archives: list[Path], partial: bool) -> list[dict[str, Any]]:
    """Each row with the place of its clip: the archive, and the first byte and size of the clip within it."""
    places: dict[str, tuple[Path, int, int]] = {}
    for archive in archives:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        places[Path(member.name).name] = (archive, member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"The archive {archive} cannot be read ({error}). Download it again.") from error
    joined = []
    for row in rows:
        if row["id"] in places:
            archive, offset, size = places[row["id"]]
            joined.append({**row, "audio": archive, "audio_offset": offset, "audio_size": size})
        elif not partial:
            joined.append({**row, "audio": archives[0].parent / row["id"]})
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
        names = sorted(item.path for item in tree if item.path.endswith(".tar"))
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
