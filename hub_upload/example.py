"""The example cards in `model_cards/`: `python -m hub_upload.example MODEL --study RESULTS` makes one from a model folder.

    python -m hub_upload.example quickstart/model --study quickstart/results.json
    python -m hub_upload.example RUN/model --study studies/real-speech/results.jsonl --name whisper-base-gemma-3-270m-en

    python -m hub_upload.example   # all cards anew, when the template has changed

A card's folder keeps the facts that it was made from, so that a test can tell whether the template still makes this card of them.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import model_cards
from trainers.files import write_json
from trainers.results import Evaluation

from .build import ADAPTER_BASES, build_folder, complete_with_card
from .card import CardOptions, make_card
from .commands.arguments import add_build_arguments, build_options
from .facts import DEPTH_PLOT, ModelFacts
from .licences import Licence, Part

ROOT = Path(model_cards.__file__).parent
FACTS, CARD = "facts.json", "README.md"
MINIATURE = "example"


def examples() -> list[Path]:
    """The folders of the example cards."""
    return sorted(path.parent for path in ROOT.glob(f"*/{FACTS}"))


def repo_id(folder: Path) -> str:
    """The name that a card gives its model's repository."""
    return f"your-name/slam-asr-{'miniature' if folder.name == MINIATURE else folder.name}"


def read_example(folder: Path) -> ModelFacts:
    """The facts that an example card was made from."""
    value: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    licence = value["licence"]
    value["licence"] = Licence(**{**licence, "parts": tuple(Part(**part) for part in licence["parts"])})
    value["evaluations"] = [Evaluation(**evaluation) for evaluation in value["evaluations"]]
    return ModelFacts(folder=folder, **value)


def render_example(folder: Path) -> str:
    """The card that the template makes of those facts now."""
    return str(make_card(read_example(folder), CardOptions(repo_id(folder)), links={}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", type=Path, nargs="?", help="without one, all cards are made anew from the facts that they keep"
    )
    parser.add_argument("--name", default=MINIATURE, help=f"of the card's folder (default: {MINIATURE})")
    add_build_arguments(parser)
    args = parser.parse_args()
    if args.model is None:
        for folder in examples():
            (folder / CARD).write_text(render_example(folder), encoding="utf-8")
        return
    folder = ROOT / args.name
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / args.name
        options = build_options(args)
        build_folder(args.model, target, options)
        facts = complete_with_card(target, options, CardOptions(repo_id(folder)))
        if (target / DEPTH_PLOT).is_file():
            shutil.copyfile(target / DEPTH_PLOT, folder / DEPTH_PLOT)
    for key in ADAPTER_BASES:  # where they lay on this machine is nobody's business
        place = Path(facts.config.get(key) or "")
        if place.is_absolute():
            facts.config[key] = str(Path("weights", *place.parts[-2:]))
    write_json(folder / FACTS, {key: value for key, value in asdict(facts).items() if key != "folder"})
    (folder / CARD).write_text(render_example(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
