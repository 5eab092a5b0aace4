"""
Sentences from templates: a language is word lists, a few rules of its own and its patterns.

In a template, `{NAMES}` is an entry of that word list and `{THINGS.1}` the second part of an entry; `{place}` is what the rule of
that name says, a pattern or a function of the random generator; `{2-99}` is a number in words, `{digits}` are three to five
digits; and `{a book|the {THINGS.0}}` is one of these, all of which are made up before one is chosen.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Words = Mapping[str, Any]
"""A language's word lists and rules by name: the module that they stand in."""


@dataclass(frozen=True)
class Pattern:
    """See `pattern`."""

    templates: tuple[str, ...]
    odds: tuple[float, ...]
    two: str | None
    before: Mapping[str, str]

    def say(self, words: Words, rng: random.Random) -> str:
        """One sentence or phrase."""
        known: dict[str, Any] = {}
        if any("{thing}" in template for template in (*self.templates, *self.before.values())):
            known["verb"], known["thing"] = words["action"](rng)
        if self.two is not None:
            known["first"], known["second"] = rng.sample(words[self.two], 2)
        for name, template in self.before.items():
            known[name] = fill(template, {**words, **known}, rng)
        drawn = rng.random() if len(self.templates) > 1 else 0.0
        return fill(self.templates[sum(drawn >= bound for bound in self.odds)], {**words, **known}, rng).strip()


def pattern(*templates: str, odds: Sequence[float] = (0.5,), two: str | None = None, **before: str) -> Pattern:
    """
    One of `templates`. What they call `{verb.0}` to `{verb.3}` and `{thing}` are of the rule `action`.

    Args:
        odds: where the share of each template but the last ends.
        two: the word list of which `{first}` and `{second}` are two different entries.
        before: templates that are filled before, in order, and then stand by name in the others.
    """
    return Pattern(templates, tuple(odds) if len(templates) > 1 else (), two, before)


def sentence(words: Words, rng: random.Random) -> str:
    """One of the language's `PATTERNS`: lower case, no punctuation but apostrophes."""
    chosen: Pattern | Callable[[random.Random], str] = rng.choice(words["PATTERNS"])
    return chosen.say(words, rng) if isinstance(chosen, Pattern) else chosen(rng)


def fill(template: str, words: Words, rng: random.Random) -> str:
    """The template with its slots filled, from left to right."""
    text = ""
    while "{" in template:
        plain, _, rest = template.partition("{")
        options, template = _slot(rest)
        said = [fill(option, words, rng) for option in options] if len(options) > 1 else []
        text += plain + (rng.choice(said) if said else _named(options[0], words, rng))
    return text + template


def _slot(rest: str) -> tuple[list[str], str]:
    """The options of the slot that `rest` begins in, and what comes after it."""
    options, depth = [""], 0
    for place, letter in enumerate(rest):
        if depth == 0 and letter == "}":
            return options, rest[place + 1 :]
        if depth == 0 and letter == "|":
            options.append("")
            continue
        depth += (letter == "{") - (letter == "}")
        options[-1] += letter
    raise ValueError(f"A slot is not closed: {{{rest}")


def _named(slot: str, words: Words, rng: random.Random) -> str:
    name, _, part = slot.partition(".")
    if bounds := re.fullmatch(r"(\d+)-(\d+)", name):
        return str(words["number"](rng.randint(int(bounds[1]), int(bounds[2]))))
    if name == "digits":
        return " ".join(rng.choices(words["DIGITS"], k=rng.randint(3, 5)))
    value = words[name]
    if isinstance(value, Pattern):
        value = value.say(words, rng)
    elif callable(value):
        value = value(rng)
    elif name.isupper():
        value = rng.choice(value)
    return str(value[int(part)] if part else value)
