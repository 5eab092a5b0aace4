"""A study on the Hub: chosen checkpoints, one collection, a table that links them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hub_upload.study import choose_runs, model_folder, slug
from trainers.errors import UserError

from .conftest import Run, study_rows
from .lookalike import Server


def rows_of(*systems: tuple[str, float, int]) -> list[dict[str, Any]]:
    return [{"name": name, "wer": wer, "total_params": size, "language": "da"} for name, wer, size in systems]


def test_the_front_of_error_rate_and_size_is_chosen() -> None:
    rows = rows_of(
        ("full", 0.10, 100), ("pruned", 0.12, 90), ("bad", 0.13, 95), ("lora", 0.09, 91), ("lora@2", 0.01, 1)
    )
    assert choose_runs(rows, []) == ["pruned", "lora"]
    twin = {**rows[3], "name": "lora-cosine", "same_as": "lora"}  # the same model under another name
    assert choose_runs([*rows, twin], []) == ["pruned", "lora"]
    assert choose_runs([*rows, twin], ["lora-cosine"]) == ["lora-cosine"]
    assert choose_runs(rows, ["bad", "bad"]) == ["bad"]
    with pytest.raises(UserError, match="no run 'best'"):
        choose_runs(rows, ["best"])


def test_runs_without_a_model_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not in"):
        model_folder(tmp_path, rows_of(("full", 0.1, 1)), "full")


def test_slug() -> None:
    assert (
        slug("1 pruned + LoRA") == "1-pruned-LoRA"
        and slug("whisper-da-prune2-lora-seed42") == "whisper-da-prune2-lora-seed42"
    )


@pytest.fixture
def study_folder(finished_model: Path, tmp_path: Path) -> Path:
    """A study of two runs, one of which is chosen by its name."""
    folder = tmp_path / "study"
    metrics = json.loads((finished_model / "evaluation" / "metrics.json").read_text())
    rows = [{**row, "run": f"runs/{slug(row['name'])}/evaluation"} for row in study_rows(metrics)]
    run = folder / "runs" / "1-pruned-LoRA"
    shutil.copytree(finished_model, run / "model")
    shutil.move(run / "model" / "evaluation", run / "evaluation")
    (run / "model" / "results.json").unlink()
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_publishing_a_study(hub: Server, run_python: Run, study_folder: Path) -> None:
    hub.store.faults += [
        {"method": "POST", "path": "/api/collections$", "drop_before_reply": True},
        {"method": "POST", "path": "/api/collections/.*/items", "status": 503},
        {"method": "PATCH", "path": "/api/collections/.*", "drop_before_reply": True},
    ]
    command = [
        "push-study",
        str(study_folder),
        "acme/depth",
        "--choose",
        "1 pruned + LoRA",
        "--title",
        "Depth",
        "--no-limits",
    ]
    done = run_python("-m", "trainers.cli", *command)
    assert done.returncode == 0, done.stderr
    assert not hub.store.faults
    slugs = hub.store.all("collection")
    assert len(slugs) == 1
    collection = hub.store.load("collection", slugs[0])
    assert collection is not None and collection["title"] == "Depth" and collection["private"] is False
    assert [item["id"] for item in collection["items"]] == ["acme/depth-1-pruned-LoRA"]
    assert collection["items"][0]["note"]["text"].startswith("1 encoder blocks, projector and LoRA. WER: all 20.0 %")
    card = hub.store.read("acme/depth-1-pruned-LoRA", "README.md").decode()
    assert "[1 pruned + LoRA](https://huggingface.co/acme/depth-1-pruned-LoRA)" in card
    assert "evaluation/metrics.json" in hub.store.files("acme/depth-1-pruned-LoRA")


def test_what_is_no_study(run_python: Run, tmp_path: Path) -> None:
    failed = run_python("-m", "trainers.cli", "push-study", str(tmp_path), "acme/depth")
    assert failed.returncode == 2 and "no results.jsonl" in " ".join(failed.stderr.split())
