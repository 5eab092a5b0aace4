"""LibriSpeech and Multilingual LibriSpeech (MLS) as OpenSLR hands them out."""

from collections.abc import Iterator
from pathlib import Path

from trainers.data.folders import named_split
from trainers.data.kaldi import entries
from trainers.data.places import Place
from trainers.data.rows import Utterance, with_fault
from trainers.data.spec import DataSpec
from trainers.errors import UserError

# Transcripts in a split's folder: of MLS one for all, which names `1_2_000003` what lies at `audio/1/2/1_2_000003.flac`, or `.opus`;
# of LibriSpeech one in each chapter's folder, beside its sound.
_OF_SPLIT, _OF_CHAPTER = "transcripts.txt", "*/*/*.trans.txt"


def is_librispeech(spec: DataSpec) -> bool:
    """True for a folder of splits in one of the two layouts, and for a split's own."""
    root = spec.path
    return any(next(_transcripts(root, above), None) for above in ("", "*/"))


def load_librispeech(spec: DataSpec) -> list[Utterance]:
    """The utterances of a split; the language is the spec's.

    Raises:
        UserError: the split is not there.
    """
    root = spec.path
    there = sorted({file.relative_to(root).parts[0] for file in _transcripts(root, "*/")})
    folder = root / (named_split(spec.split, there) or ".")
    files = sorted(_transcripts(folder))
    if not files:
        raise UserError(f"{root} has no split {spec.split!r}. Splits there: {', '.join(there) or 'none'}.")
    place = Place(spec, folder, root=folder)
    found = []
    for file in files:
        for key, (line, text) in entries(file).items():
            if file.name == _OF_SPLIT:
                inner = Path("audio", *key.split("_")[:2], f"{key}.flac")
                inner = inner if (folder / inner).is_file() else inner.with_suffix(".opus")
            else:
                inner = file.parent.relative_to(folder) / f"{key}.flac"
            audio, fault = place.find(str(inner), f"Line {line} of {file}")
            speaker = key.replace("_", "-").partition("-")[0]
            row = Utterance(key, audio, text, language=spec.language, speaker_id=speaker, source=root.name)
            found.append(with_fault(row, fault))
    return found


def _transcripts(folder: Path, above: str = "") -> Iterator[Path]:
    for pattern in (_OF_SPLIT, _OF_CHAPTER):
        yield from folder.glob(above + pattern)
