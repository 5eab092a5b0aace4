"""What scoring knows about a language: its normaliser and its grammar of numbers, in the language's own file."""

from collections.abc import Callable
from dataclasses import dataclass

from trainers.evaluation.normalizers.numbers import NumberWords

TextFunction = Callable[[str], str]


@dataclass(frozen=True)
class Language:
    """The facts of one language; `LANGUAGE` in a file that `registry.LANGUAGE_FILES` names.

    codes: of ISO 639, first the one that names the normaliser: ("sv", "swe"). names: what it is called beside the file's
    own name, in lower case: ("svenska",). normalizer: builds the function on first use. numbers: number words, for counting
    errors in numerals; without it those that num2words has. compounds: whether compounds are written as one word.
    """

    codes: tuple[str, ...]
    description: str
    normalizer: Callable[[], TextFunction]
    names: tuple[str, ...] = ()
    numbers: Callable[[], NumberWords] | None = None
    compounds: bool = False
