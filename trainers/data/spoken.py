"""Sentences of a text file, spoken by eSpeak NG: **synthetic speech** to train on beside real speech, as much as there is text.

`{dataset: texts/da.txt, language: da, max_samples: 5000}` in a recipe's `train`. It brings words that the recordings do not have; its
voices are no people's. A tenth of the sentences each, by their own content, is kept for the splits `validation` and `test`.
"""

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from trainers.data.rows import Utterance
from trainers.data.sources import cache_folder
from trainers.data.spec import DataSpec
from trainers.data.tables import read_text
from trainers.errors import UserError

SUFFIXES = (".txt", ".txt.gz")
COUNT = 5_000
"""sentences where `max_samples` does not say"""
LEAST, MOST = 15, 100  # characters of a sentence that is spoken
SOURCE = "espeak_ng_synthetic"
# What begins the lines of a corpus's transcripts: an id such as 19-198-0001 or 1_2_000000, or a tab after the first cell.
_TRANSCRIPT = re.compile(r"(?=\S*\d)\S*\w[-_]\w\S*\s|[^\t]*\S\t")
_TENTHS = {0: "test", 1: "validation"}


def is_spoken(spec: DataSpec) -> bool:
    """True for the name of a text file."""
    return spec.dataset.lower().endswith(SUFFIXES) and not spec.path.is_dir()


def load_spoken(spec: DataSpec) -> list[Utterance]:
    """`max_samples` sentences of a split, a seeded choice, spoken once and kept; the same sentence always sounds the same.

    Raises:
        UserError: no language is named, eSpeak NG has no voice for it, or no sentence of the split is there.
    """
    from trainers.embedded import corpus
    from trainers.embedded.speech import SPLIT_VARIANTS

    path = spec.path
    if not path.is_file():
        raise UserError(f"The text file {spec.dataset!r} does not exist.")
    if spec.language is None:
        raise UserError(f"{spec.dataset} is text to be spoken: say in which language, such as `language: da`.")
    if spec.split not in SPLIT_VARIANTS:
        raise UserError(
            f"{spec.dataset} has no split {spec.split!r}: text that is spoken has train, validation and test."
        )
    sentences = [text for text in sentences_of(path) if split_of(text) == spec.split]
    if not sentences:
        raise UserError(
            f"{path} has no sentence of {LEAST} to {MOST} characters for the split {spec.split!r}. Write a sentence a line."
        )
    random.Random(0).shuffle(sentences)
    jobs = []
    for text in sentences[: spec.max_samples or COUNT]:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        item = corpus.Utterance(name, text, spec.language, spec.split, 0)
        sound = hashlib.sha256(repr(item.sound).encode()).hexdigest()[:8]
        jobs.append((item, str(cache_folder() / "spoken" / spec.language / spec.split / f"{name}-{sound}.wav")))
    Path(jobs[0][1]).parent.mkdir(parents=True, exist_ok=True)
    spoken = tqdm(corpus.speak_files(jobs), total=len(jobs), desc="speaking", unit="utt")
    return [
        Utterance(item.id, file, item.text, language=item.language, speaker_id=voice, source=SOURCE, duration=duration)
        for (item, file), (voice, duration) in zip(jobs, spoken, strict=True)
    ]


def sentences_of(path: Path) -> Iterator[str]:
    """The distinct lines of a fair length, as they are written.

    Raises:
        UserError: most lines are a table's, or begin with an id, as transcripts of recordings do.
    """
    written = [line for line in read_text(path).splitlines() if line.strip()]
    marked = [line for line in written if _TRANSCRIPT.match(line)]
    if len(marked) > len(written) / 2:
        raise UserError(
            f"{path} is no text to be spoken, but a table or a corpus's transcripts: {marked[0][:60]!r}. Name the corpus's folder, "
            "a manifest (.tsv where cells are parted by tabs), or a file with a sentence a line."
        )
    lines = dict.fromkeys(" ".join(line.split()) for line in written)
    return (line for line in lines if LEAST <= len(line) <= MOST and _has_words(line))


def _has_words(line: str) -> bool:
    """Whether at least half of what is written are letters, their marks, or digits."""
    kinds = [unicodedata.category(sign)[0] in "LMN" for sign in line if sign != " "]
    return 2 * sum(kinds) >= len(kinds)


def split_of(text: str) -> str:
    """The split that a sentence is for."""
    return _TENTHS.get(hashlib.sha256(text.lower().encode()).digest()[0] % 10, "train")
