"""Commands of other packages: each names a table of its own under the entry-point group `slam_asr.commands`."""

import configparser
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

GROUP = "slam_asr.commands"
SOURCE_TREE = Path(__file__).parents[1]


def registered_commands() -> dict[str, tuple[str, str]]:
    """Module and one-line description of each registered command, by its name, in the order of the tables."""
    found: dict[str, tuple[str, str]] = {}
    for name, point in _tables().items():
        try:
            found |= point.load()
        except (ImportError, AttributeError) as error:
            print(f"slam-asr: the commands of {name!r} cannot be loaded ({error}). Install it again.", file=sys.stderr)
    return found


def _tables() -> Mapping[str, EntryPoint]:
    points = {point.name: point for point in entry_points(group=GROUP)}
    # A clone says for itself what it registers: it may not be installed, or may have registered less when it was.
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(SOURCE_TREE / "setup.cfg", encoding="utf-8")
    if parser.get("metadata", "name", fallback="") == "slam-asr":
        lines = parser.get("options.entry_points", GROUP, fallback="").strip().splitlines()
        for name, _, value in (line.partition("=") for line in lines):
            points[name.strip()] = EntryPoint(name.strip(), value.strip(), GROUP)
    return points
