"""Which kind of data set a name, file or folder is."""

from pathlib import Path

from trainers.data.common_voice import is_common_voice
from trainers.data.folders import is_audio_folder
from trainers.data.kaldi import is_kaldi
from trainers.data.kinds import KIND_NAMES
from trainers.data.spec import DataSpec
from trainers.data.tables import KINDS, table_suffix
from trainers.errors import UserError


def detect_format(spec: DataSpec) -> str:
    """The spec's format, found from what `dataset` is when it says `auto`."""
    if spec.format != "auto":
        return KIND_NAMES[spec.format]
    if spec.dataset == "embedded":
        return "embedded"
    path = Path(spec.dataset).expanduser()
    if path.is_dir():
        if is_common_voice(path):
            return "common_voice"
        if is_kaldi(path) or is_kaldi(path / spec.split):
            return "kaldi"
        return "audiofolder" if is_audio_folder(path) else "hub"
    if table_suffix(path) is not None:
        return "manifest"
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
