"""The `evaluate` module loads from its folder without a network and gives the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.evaluation import METRIC_PATH, score

SCRIPT = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
references, predictions = ["De kat zat er.", "21 honden", ""], ["de kat zat", "een en twintig honden", "hoi"]
print(json.dumps(metric.compute(references=references, predictions=predictions, language="nl", bootstrap=300)))
"""


def test_evaluate_loads_the_folder_offline_with_the_same_figures(tmp_path: Path) -> None:
    root = Path(METRIC_PATH).parents[2]
    environment = os.environ | {
        "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, METRIC_PATH],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])
    ours = score(
        ["De kat zat er.", "21 honden", ""],
        ["de kat zat", "een en twintig honden", "hoi"],
        language="nl",
        bootstrap=300,
    )
    assert metrics == json.loads(json.dumps(ours))
    assert metrics["wer"] == pytest.approx(2 / 6)
