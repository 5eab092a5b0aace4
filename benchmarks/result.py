"""What every benchmark does with its arguments and its figures."""

import argparse
import json
from pathlib import Path
from typing import Any

from trainers.files import write_json
from trainers.provenance import hardware


def figures_parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser that shows the benchmark's own documentation, and knows `--output`."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    return parser


def publish(figures: dict[str, Any], output: Path | None) -> None:
    """Print the figures and the hardware, and write them to `output` if there is one."""
    result = {**figures, "hardware": hardware()}
    print(json.dumps(result, indent=2))
    if output is not None:
        write_json(output, result)
