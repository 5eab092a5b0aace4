"""The notebook, run from top to bottom in a process of its own on tones, as papermill would: parameters after their cell."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def read(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return list(content["cells"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_output_and_its_links_lead_somewhere(notebook: Path) -> None:
    cells = read(notebook)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        for target in re.findall(
            r"\]\(([^)#]+)[^)]*\)", "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
        ):
            assert (notebook.parent / target).exists(), target


def test_fine_tuning_on_ones_own_folder(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_audio_dir: Path, tmp_path: Path
) -> None:
    (notebook,) = [path for path in NOTEBOOKS if path.name == "fine_tune.ipynb"]
    parameters = {
        "TRAIN": str(tiny_audio_dir / "train"),
        "VALIDATION": str(tiny_audio_dir / "test"),
        "RECORDING": str(tiny_audio_dir / "test" / "test-00.wav"),
        "SETTINGS": [
            f"audio_model={tiny_whisper_encoder_dir}", f"text_model={tiny_llama_dir}", "prune_encoder_layers=1",
            "projector.hidden_size=32", "dtype=float32", "device=cpu", "num_workers=0", "max_steps=2", "warm_start.epochs=1",
            "train.min_duration=0.1", "validation.min_duration=0.1",
        ],
    }  # fmt: skip
    lines = []
    for cell in read(notebook):
        if cell["cell_type"] == "code":
            lines.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", ()):
            assert all(f"{name} = " in lines[-1] for name in parameters)
            lines += [f"{name} = {value!r}" for name, value in parameters.items()]
    program = tmp_path / "notebook.py"
    program.write_text("\n\n".join(lines), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"word error rate [\d.]+% after 2 steps; the model is in runs/mine", done.stdout), done.stdout
    assert (tmp_path / "runs" / "mine" / "curves.png").is_file()
    assert done.stdout.count("test-0") >= 5, "the worst utterances"
