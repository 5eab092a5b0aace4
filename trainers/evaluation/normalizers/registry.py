"""The table of text normalisers, and how to add one."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from trainers.errors import UserError

TextFunction = Callable[[str], str]
_MAX_PASSES = 10


@dataclass(frozen=True)
class Normalizer:
    """A text normaliser with what a result records about it. Calling it is idempotent: f(f(text)) == f(text)."""

    name: str
    description: str
    function: TextFunction
    languages: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """Normalise until nothing changes, so that text that was normalised before scores the same."""
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
        return Normalizer(name, description, factory(), languages)

    _REGISTRY[name] = build
    _BUILT.pop(name, None)
    for language in languages:
        _BY_LANGUAGE[language.lower()] = name


def normalizer_names() -> list[str]:
    """The names that `get_normalizer` knows."""
    return sorted(_REGISTRY)


def get_normalizer(name: str) -> Normalizer:
    """The normaliser called `name`. Raises `UserError` with the known names."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"There is no normalizer {name!r}; there are {', '.join(normalizer_names())}.{hint}")
    if name not in _BUILT:
        _BUILT[name] = _REGISTRY[name]()
    return _BUILT[name]


def normalizer_for_language(language: str | None) -> str:
    """The normaliser's name for a language code or English name ("nl", "nl-NL", "Dutch"); "basic" for others."""
    if not language:
        return "basic"
    code = language.strip().lower().replace("_", "-")
    return _BY_LANGUAGE.get(code) or _BY_LANGUAGE.get(code.split("-")[0]) or "basic"
