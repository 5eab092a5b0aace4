"""Which kind of data set a name, file or folder is, and reading utterances from one of any kind."""

import os
import pkgutil
from pathlib import Path

from datasets import Dataset

from trainers.data.kinds import DATA_KINDS, KIND_NAMES
from trainers.data.manifests import load_manifest
from trainers.data.rows import Utterance, from_rows
from trainers.data.spec import DataSpec
from trainers.data.tables import KINDS
from trainers.errors import UserError
from trainers.files import is_local_name


def detect_format(spec: DataSpec) -> str:
    """The spec's format, found from what `dataset` is when it says `auto`."""
    if spec.format != "auto":
        return KIND_NAMES[spec.format]
    for name, kind in DATA_KINDS.items():
        if kind.recognizer is not None and pkgutil.resolve_name(kind.recognizer)(spec):
            return name
    path = spec.path
    if path.is_dir():
        return "hub"
    if path.exists():
        raise UserError(
            f"The data set {spec.dataset!r} is a file of no known kind. Give a manifest ({KINDS}), or a folder; "
            "a manifest of JSON lines with another name is read with `format: manifest`."
        )
    if is_local_name(spec.dataset):
        raise UserError(
            f"The data set {spec.dataset!r} does not exist. Give an existing folder, a manifest ({KINDS}) or a Hub id."
        )
    return "hub"


def load_source(spec: DataSpec) -> Dataset:
    """All utterances that the spec names, unfiltered, with the columns of `trainers.data.rows`.

    Raises:
        UserError: nothing is found there, the split or a named column is missing, or a line cannot be read.
    """
    found = pkgutil.resolve_name(DATA_KINDS[detect_format(spec)].reader)(spec)
    return found if isinstance(found, Dataset) else from_rows(found)


def is_embedded(spec: DataSpec) -> bool:
    """True for the name of the corpus that is synthesised on the spot."""
    return spec.dataset == "embedded"


def load_embedded(spec: DataSpec) -> list[Utterance]:
    """A split of the corpus synthesised on the spot, spoken once and kept; `language` leaves the others out."""
    from trainers.embedded.corpus import build_corpus

    manifests = build_corpus(cache_folder() / "embedded-corpus")
    if spec.split not in manifests:
        raise UserError(f"The embedded corpus has no split {spec.split!r}. Splits there: {', '.join(manifests)}.")
    rows = load_manifest(DataSpec(dataset=str(manifests[spec.split])))
    kept = [row for row in rows if spec.language in (None, row.language)]
    if not kept:
        raise UserError(
            f"The embedded corpus has no language {spec.language!r}; it has {sorted({str(row.language) for row in rows})}."
        )
    return kept


def cache_folder() -> Path:
    """Where made data is kept: `$SLAM_ASR_CACHE`, else `~/.cache/slam-asr`."""
    return Path(os.environ.get("SLAM_ASR_CACHE", "~/.cache/slam-asr")).expanduser()
