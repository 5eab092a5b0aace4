"""The example card in `model_cards/example`: `python -m hub_upload.example MODEL --study RESULTS` makes it from a model folder.

It keeps the facts that it was made from beside it, so that a test can tell whether the template still makes this card of them.
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

from .build import BuildOptions, CardOptions, build_folder, complete_with_card
from .card import make_card
from .facts import DEPTH_PLOT, ModelFacts
from .licences import Licence, Part

FOLDER = Path(model_cards.__file__).with_name("example")
FACTS = FOLDER / "facts.json"
REPO_ID = "your-name/slam-asr-miniature"


def read_example() -> ModelFacts:
    """The facts that the example card was made from."""
    value: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    licence = value["licence"]
    value["licence"] = Licence(**{**licence, "parts": tuple(Part(**part) for part in licence["parts"])})
    value["evaluations"] = [Evaluation(**evaluation) for evaluation in value["evaluations"]]
    return ModelFacts(folder=FOLDER, **value)


def render_example() -> str:
    """The card that the template makes of those facts now."""
    return str(make_card(read_example(), REPO_ID))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the example card from a model folder.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--study", type=Path, required=True, help="results.json of the quickstart")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "example"
        options = BuildOptions(study=args.study)
        build_folder(args.model, target, options)
        facts = complete_with_card(target, options, CardOptions(REPO_ID))
        shutil.copyfile(target / DEPTH_PLOT, FOLDER / DEPTH_PLOT)
    write_json(FACTS, {key: value for key, value in asdict(facts).items() if key != "folder"})
    (FOLDER / "README.md").write_text(render_example(), encoding="utf-8")


if __name__ == "__main__":
    main()
