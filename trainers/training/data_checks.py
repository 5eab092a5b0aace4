"""What to look at in data before training: transcripts as they are trained on, odd speaking rates, overlap between the roles."""

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from trainers.data.rows import read_audio
from trainers.errors import UserError, listed
from trainers.evaluation.normalizers import get_normalizer, normalizer_for_language

_SHOWN = 10
_NAMED = 5
# A rate is odd when it is this many times above or below the median of its data set.
_TIMES = 3.0


@dataclass
class DataChecks:
    """
    What a dry run tells of the data.

    Attributes:
        transcripts: (as in the source, as trained on) of ten training utterances in which something is said.
        wordless: how many training utterances have no transcript.
        garbled: by role, the transcripts that were decoded as another encoding than they were written in.
        outliers: (role, id, characters a second) of utterances far from their set's median rate, the oddest first.
        outlier_count: how many there are in all.
        shared_recordings: for two roles, the ids in the second of recordings that the first has too.
        shared_speakers: for two roles, the speakers that both have.
        shared_texts: by role that is scored, its normalised transcripts that the training data have too, spoken by anybody.
        without_language: by role that is scored, how many utterances do not say their language.
    """

    transcripts: list[tuple[str, str]] = field(default_factory=list)
    wordless: int = 0
    garbled: dict[str, list[str]] = field(default_factory=dict)
    outliers: list[tuple[str, str, float]] = field(default_factory=list)
    outlier_count: int = 0
    shared_recordings: dict[str, list[str]] = field(default_factory=dict)
    shared_speakers: dict[str, list[str]] = field(default_factory=dict)
    shared_texts: dict[str, list[str]] = field(default_factory=dict)
    without_language: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        lines = []
        if self.transcripts:
            without = f"; {self.wordless} utterances have none" if self.wordless else ""
            lines.append(f"transcripts  as trained on (and in the source, where it differs){without}:")
            lines += [f"  {text}" + (f"   <- {source}" if source != text else "") for source, text in self.transcripts]
        for role, texts in self.garbled.items():
            quoted = listed([repr(text) for text in texts])
            lines.append(
                f"characters   {len(texts)} transcripts of {role} were once read in a wrong encoding: {quoted}. Mend them, or export the "
                "table as UTF-8 again."
            )
        if self.outlier_count:
            named = ", ".join(f"{name} ({role}, {rate:.1f})" for role, name, rate in self.outliers)
            lines.append(
                f"rates        {self.outlier_count} utterances with {_TIMES:.0f} times more or fewer characters a second than "
                f"the median: {named}{' ...' if self.outlier_count > len(self.outliers) else ''}. Does the text fit the sound?"
            )
        lines += [f"overlap      {line}" for line in overlap_lines(self.shared_recordings)]
        for pair, speakers in self.shared_speakers.items():
            lines.append(f"speakers     {len(speakers)} are in {pair}: {listed(speakers)}")
        for role, texts in self.shared_texts.items():
            quoted = listed([repr(text) for text in texts])
            lines.append(
                f"texts        {len(texts)} transcripts of {role} are in train too, whoever speaks them: {quoted}"
            )
        lines += [f"language     {line}" for line in language_lines(self.without_language)]
        return lines


def check_data(datasets: Mapping[str, Any], normalizer: str | None = None) -> DataChecks:
    """
    Args:
        datasets: prepared data sets by role, with the columns of `trainers.data.prepare`.
        normalizer: that all are scored with; each language's own when None.
    """
    checks = DataChecks()
    train = datasets.get("train")
    if train is not None:
        said = [pair for pair in zip(train["text"], train["transcript"], strict=True) if pair[1]]
        checks.wordless = len(train) - len(said)
        checks.transcripts = said[:: max(1, len(said) // _SHOWN)][:_SHOWN]
    garbled = {role: [text for text in rows["text"] if text and _is_garbled(text)] for role, rows in datasets.items()}
    checks.garbled = {role: texts for role, texts in garbled.items() if texts}
    odd = [(distance, role, name, rate) for role, rows in datasets.items() for distance, name, rate in _odd_rates(rows)]
    odd.sort(reverse=True)
    checks.outliers, checks.outlier_count = [entry[1:] for entry in odd[:_NAMED]], len(odd)
    checks.shared_recordings = shared_recordings(datasets)
    checks.shared_texts = _shared_texts(datasets, normalizer)
    checks.without_language = without_language(datasets, normalizer)
    for one, other in combinations(datasets, 2):
        speakers = {name for name in datasets[one]["speaker_id"] if name} & set(datasets[other]["speaker_id"])
        if speakers:
            checks.shared_speakers[f"{one} and {other}"] = sorted(speakers)
    return checks


def shared_recordings(datasets: Mapping[str, Any]) -> dict[str, list[str]]:
    """For two roles, the ids in the second of recordings that the first has too."""
    found = {
        f"{one} and {other}": _shared_recordings(datasets[one], datasets[other])
        for one, other in combinations(datasets, 2)
    }
    return {pair: ids for pair, ids in found.items() if ids}


def overlap_lines(shared: Mapping[str, list[str]]) -> list[str]:
    """What `shared_recordings` found, for people."""
    return [
        f"{len(ids)} recordings are in {pair}: {listed(ids)}. The figures will be too good."
        for pair, ids in shared.items()
    ]


def without_language(datasets: Mapping[str, Any], normalizer: str | None) -> dict[str, int]:
    """By role that is scored, how many utterances do not say their language, where the language is to choose the normalizer."""
    if normalizer is not None:
        return {}
    found = {role: sum(not name for name in rows["language"]) for role, rows in datasets.items() if role != "train"}
    return {role: count for role, count in found.items() if count}


def language_lines(counts: Mapping[str, int]) -> list[str]:
    """What `without_language` found, for people."""
    return [
        f"{count} utterances of the {role} data do not say their language: they are scored with the normalizer 'basic', which knows no "
        "numbers, fillers or spellings. Name it, for instance with language=da."
        for role, count in counts.items()
    ]


def _is_garbled(text: str) -> bool:
    """Whether a text has signs for lost characters, or was UTF-8 and read as Windows' or Latin-1 ("Ã©" for "é")."""
    if text.isascii():
        return False
    for encoding in ("cp1252", "latin-1"):
        try:
            text.encode(encoding).decode("utf-8")
            return True
        except UnicodeError:
            pass
    return "\ufffd" in text


def _odd_rates(rows: Any) -> list[tuple[float, str, float]]:
    columns = (rows[name] for name in ("id", "transcript", "seconds"))
    # Where nothing is said there is no rate: sounds without a word are empty on purpose.
    rates = [(name, len(text) / seconds) for name, text, seconds in zip(*columns, strict=True) if text]
    middle = statistics.median(rate for _, rate in rates) if rates else 0.0
    found = []
    for name, rate in rates:
        distance = max(rate / middle, middle / rate)
        if distance > _TIMES:
            found.append((distance, name, rate))
    return found


def _shared_recordings(one: Any, other: Any) -> list[str]:
    """Ids in `other` of recordings that `one` has too. Only sounds of one length and text are compared, sample by sample."""
    places: dict[tuple[float, str], list[int]] = {}
    for index, key in enumerate(_keys(one)):
        places.setdefault(key, []).append(index)
    found = []
    for index, key in enumerate(_keys(other)):
        if key in places:
            mark = _mark(other[index])
            if mark is not None and any(_mark(one[place]) == mark for place in places[key]):
                found.append(str(other[index]["id"]))
    return found


def _shared_texts(datasets: Mapping[str, Any], normalizer: str | None) -> dict[str, list[str]]:
    """By role that is scored, its transcripts, as they are scored, that `train` has too."""
    if "train" not in datasets or len(datasets) == 1:
        return {}
    texts = {role: _scored_texts(rows, normalizer) for role, rows in datasets.items()}
    trained = texts.pop("train")
    return {role: sorted(own & trained) for role, own in texts.items() if own & trained}


def _scored_texts(rows: Any, normalizer: str | None) -> set[str]:
    """The distinct transcripts of `rows`, normalised as for scoring, without empty ones."""
    pairs = set(zip(rows["text"], rows["language"], strict=True))
    functions = {
        language: get_normalizer(normalizer or normalizer_for_language(language))
        for language in {row[1] for row in pairs}
    }
    return {functions[language](text) for text, language in pairs if text} - {""}


def _keys(rows: Any) -> list[tuple[float, str]]:
    return [(round(seconds, 3), text) for seconds, text in zip(rows["seconds"], rows["transcript"], strict=True)]


def _mark(row: Mapping[str, Any]) -> bytes | None:
    try:
        return hashlib.sha256(read_audio(row).tobytes()).digest()
    except (UserError, OSError, ValueError):  # counted as damaged elsewhere
        return None
