"""How often words stand in training texts."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from trainers.errors import UserError


def count_words(paths: Iterable[str | os.PathLike[str]], normalizer: Callable[[str], str]) -> Counter[str]:
    """Counts of the normalised words in text files of one sentence a line."""
    counts: Counter[str] = Counter()
    for path in paths:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The training text {path} cannot be read: {error}. Give a UTF-8 text file.") from error
        for line in lines:
            counts.update(normalizer(line).split())
    return counts
