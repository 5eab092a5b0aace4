"""
The Python examples of a card. They are made here, for the card and for the proof that they run: what is executed is never read
back from a card, into which others may have written.
"""

import json
from pathlib import Path

import jinja2

import model_cards

TEMPLATES = Path(model_cards.__file__).with_name("snippets")
NAMES = ("pipeline", "without_pipeline")


def snippets(model: str, revision: str = "main") -> list[str]:
    """
    Python sources that load a model and print the transcript of `recording.wav` in the working folder.

    Args:
        model: repository or folder; it stands in the source as a quoted string, whatever it holds.
        revision: branch, tag or commit.
    """
    quoted = {"model": json.dumps(model), "revision": json.dumps(revision)}
    sources = (TEMPLATES / f"{name}.py.jinja" for name in NAMES)
    return [jinja2.Template(source.read_text(encoding="utf-8")).render(quoted) for source in sources]
