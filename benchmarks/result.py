"""What every benchmark does with its figures."""

import json
from pathlib import Path
from typing import Any

from trainers.files import write_json


def publish(result: dict[str, Any], output: Path | None) -> None:
    """Print the figures, and write them to `output` if there is one."""
    print(json.dumps(result, indent=2))
    if output is not None:
        write_json(output, result)
