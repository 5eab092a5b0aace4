"""The folders in which this process finds the packages that a published model needs, for a process that looks in fewer places."""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

NEEDED = ("torch", "transformers", "soundfile", "soxr")
"""by the code that travels with a model"""
NEEDED_FOR_LORA = "peft"


def needed_name(line: str) -> str | None:
    """The package of a line of requirements; None where it is not for this machine, for an extra only, or of an older form."""
    try:
        one = Requirement(line)
    except InvalidRequirement:
        return None
    return one.name if one.marker is None or one.marker.evaluate({"extra": ""}) else None


def package_folders() -> list[str]:
    """
    The folders of `sys.path` that hold the needed packages and what those need, in its order: site-packages, and where somebody
    has them, the user's own or those of `PYTHONPATH`.
    """
    waiting, seen, places = [*NEEDED, NEEDED_FOR_LORA], set(), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        places.add(Path(str(package.locate_file(""))).resolve())
        waiting += filter(None, map(needed_name, package.requires or ()))
    found = (Path(place).resolve() for place in sys.path)
    return list(dict.fromkeys(str(place) for place in found if place in places))
