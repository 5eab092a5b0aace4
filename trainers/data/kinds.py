"""The kinds of data sets: one table, which recipes, readers and checks read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataKind:
    """
    A kind of data set; a recipe names it in `format`.

    Attributes:
        reader: the function from a `DataSpec` to a list of `Utterance` or a `Dataset` of such rows, as `module:name`, since
            readers import the spec, whose choices are this table.
        recognizer: the function from a `DataSpec` to whether its `dataset` is of this kind; the first kind that says so is it,
            and `hub` what none does.
        place: where it lies: on this machine; on a server, to be downloaded, if not here; or made on the spot.
        older_names: names that mean it too.
    """

    reader: str
    place: Literal["local", "remote", "made"]
    recognizer: str | None = None
    older_names: tuple[str, ...] = ()


DATA_KINDS = {
    "hub": DataKind("trainers.data.hub:load_hub", "remote", "trainers.data.hub:holds_sound"),
    "embedded": DataKind("trainers.data.sources:load_embedded", "made", "trainers.data.sources:is_embedded"),
    "non_speech": DataKind(
        "trainers.data.non_speech:load_non_speech", "made", "trainers.data.non_speech:is_non_speech"
    ),
    "spoken": DataKind("trainers.data.spoken:load_spoken", "made", "trainers.data.spoken:is_spoken"),
    "common_voice": DataKind(
        "trainers.data.common_voice:load_common_voice", "remote", "trainers.data.common_voice:is_common_voice"
    ),
    "kaldi": DataKind("trainers.data.kaldi:load_kaldi", "local", "trainers.data.kaldi:is_kaldi"),
    "audiofolder": DataKind(
        "trainers.data.folders:load_audio_folder", "local", "trainers.data.folders:is_audio_folder"
    ),
    "librispeech": DataKind(
        "trainers.data.librispeech:load_librispeech", "local", "trainers.data.librispeech:is_librispeech"
    ),
    "beside": DataKind("trainers.data.beside:load_beside", "local", "trainers.data.beside:is_beside"),
    "manifest": DataKind(
        "trainers.data.manifests:load_manifest", "local", "trainers.data.manifests:is_manifest", ("jsonl",)
    ),
}
# Every name that `format` takes, by the kind's own.
KIND_NAMES = {each: name for name, kind in DATA_KINDS.items() for each in (name, *kind.older_names)}
