"""Which kind of data set a name, file or folder is."""

import pkgutil
from pathlib import Path

from trainers.data.kinds import DATA_KINDS, KIND_NAMES
from trainers.data.spec import DataSpec
from trainers.data.tables import KINDS
from trainers.errors import UserError


def detect_format(spec: DataSpec) -> str:
    """The spec's format, found from what `dataset` is when it says `auto`."""
    if spec.format != "auto":
        return KIND_NAMES[spec.format]
    for name, kind in DATA_KINDS.items():
        if kind.recognizer is not None and pkgutil.resolve_name(kind.recognizer)(spec):
            return name
    path = Path(spec.dataset).expanduser()
    if path.is_dir():
        return "hub"
    if path.exists():
        raise UserError(
            f"The data set {spec.dataset!r} is a file of no known kind. Give a manifest ({KINDS}), or a folder; "
            "a manifest of JSON lines with another name is read with `format: manifest`."
        )
    if path.is_absolute() or spec.dataset.startswith((".", "~")) or spec.dataset.count("/") > 1:
        raise UserError(
            f"The data set {spec.dataset!r} does not exist. Give an existing folder, a manifest ({KINDS}) or a Hub id."
        )
    return "hub"
