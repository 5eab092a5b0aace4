"""The table of text normalisers, and how to add one.

A language is one file beside this one, `swedish.py` say, and one line in `LANGUAGE_FILES`. The file is called by the
language's English name and has `LANGUAGE = Language(codes=("sv", "swe"), ...)`. What follows from it: `--normalizer sv`,
the choice by language ("sv-SE", "swe", "Swedish"), the counts of errors in numerals and compounds.
A normaliser for no language, or one's own, is registered with `register_normalizer`.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from trainers.data.text import clean_characters
from trainers.errors import UserError
from trainers.evaluation.normalizers.language import Language, TextFunction
from trainers.recipes.checked_dataclasses import nearest

LANGUAGE_FILES = {
    "da": "trainers.evaluation.normalizers.danish",
    "nl": "trainers.evaluation.normalizers.dutch",
    "en": "trainers.evaluation.normalizers.english",
}
"""Each language's code and its file's module. Files are imported when they are needed."""

FALLBACK = "basic"
_MAX_PASSES = 10
_LONGEST_CODE = 3  # letters of ISO 639
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Normalizer:
    """A text normaliser with what a result records about it. Calling it is idempotent: f(f(text)) == f(text)."""

    name: str
    description: str
    function: TextFunction

    def __call__(self, text: str) -> str:
        """Normalise until nothing changes, so that text that was normalised before scores the same.

        Characters are cleaned first, as in training (`trainers.data.text.clean_characters`).
        """
        text = clean_characters(text)
        for _ in range(_MAX_PASSES):
            previous, text = text, self.function(text)
            if text == previous:
                break
        return text


_REGISTRY: dict[str, Callable[[], Normalizer]] = {}
_BUILT: dict[str, Normalizer] = {}
_BY_LANGUAGE: dict[str, str] = {}


def register_normalizer(
    name: str, factory: Callable[[], TextFunction], *, description: str = "", languages: tuple[str, ...] = ()
) -> None:
    """Add a normaliser under `name`, and make it the default of `languages` (codes such as "sv").

    `factory` builds the function `str -> str` on first use, so that imports and tables cost nothing before.
    """

    def build() -> Normalizer:
        return Normalizer(name, description, factory())

    _REGISTRY[name] = build
    _BUILT.pop(name, None)
    for language in languages:
        _BY_LANGUAGE[language.lower()] = name


def normalizer_names() -> list[str]:
    """The names that `get_normalizer` knows."""
    return sorted({*_REGISTRY, *LANGUAGE_FILES})


def get_normalizer(name: str) -> Normalizer:
    """The normaliser called `name`, or that of the language so called. Raises `UserError` with the known names."""
    if name not in _REGISTRY and (code := language_code(name)) is not None:
        name = _BY_LANGUAGE.get(code, code)
    if name not in _BUILT:
        if name in _REGISTRY:
            _BUILT[name] = _REGISTRY[name]()
        elif (language := find_language(name)) is not None:
            _BUILT[name] = Normalizer(name, language.description, language.normalizer())
        else:
            known = normalizer_names()
            raise UserError(f"There is no normalizer {name!r}; there are {', '.join(known)}.{nearest(name, known)}")
    return _BUILT[name]


def normalizer_for_language(language: str | None) -> str:
    """The normaliser's name for a language code or name ("nl", "nl-NL", "nld", "Dutch").

    "basic" for others; a language that has no normaliser is named in a warning.
    """
    code = language_code(language)
    if language is None or code is None:
        return FALLBACK
    tag = language.strip().lower().replace("_", "-")
    for key in (tag, tag.split("-")[0], code):
        if key in _BY_LANGUAGE:
            return _BY_LANGUAGE[key]
    if code in LANGUAGE_FILES:
        return code
    _warn_of_fallback(language)
    return FALLBACK


def find_language(language: str | None) -> Language | None:
    """What the language's own file says; None for a language without one."""
    code = language_code(language)
    return _load(LANGUAGE_FILES[code]) if code in LANGUAGE_FILES else None


def language_code(language: str | None) -> str | None:
    """The two-letter code, where there is one, of a code or name: "da_DK", "dan", "Danish" and "dansk" are "da".

    None for None and an empty text; what is unknown comes back in lower case, without the region.
    """
    tag = (language or "").strip().lower().replace("_", "-")
    if not tag:
        return None
    primary = tag.split("-")[0]
    if primary in LANGUAGE_FILES:
        return primary
    if len(primary) <= _LONGEST_CODE:
        named = (code for code, module in LANGUAGE_FILES.items() if primary in _load(module).codes)
        return next(named, primary)
    for code, module in LANGUAGE_FILES.items():
        if tag == module.rpartition(".")[2] or tag in _load(module).names:
            return code
    return _codes_by_name().get(tag, primary)


def _load(module: str) -> Language:
    return importlib.import_module(module).LANGUAGE


@functools.cache
def _codes_by_name() -> dict[str, str]:
    # With it comes torch, which scoring does not need: for names of languages without a file only.
    from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES

    return {name.lower(): code for code, name in reversed(LANGUAGE_NAMES.items())}


@functools.cache
def _warn_of_fallback(language: str) -> None:
    logger.warning(
        f"There is no normalizer for the language {language!r}: {FALLBACK!r} is used. "
        f"Languages with one: {', '.join(LANGUAGE_FILES)}; `normalizer` names another."
    )
