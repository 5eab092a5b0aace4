"""Fixtures for publishing: a running look-alike of the Hub, and processes that talk to it with a token and a cache of
their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .lookalike import Server, serve

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    """A look-alike Hub of this test's own, at `hub.url`; its content is `hub.store`."""
    server = serve(tmp_path / "hub-content")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub_environment(hub: Server, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that uses the look-alike: its address, a token, an empty cache, no Xet."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
    }
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_TOKEN": "hf_write",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH") or str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "10",
        "HF_HUB_ETAG_TIMEOUT": "10",
    }


@pytest.fixture
def run_python(hub_environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs `python ...` against the look-alike: `run_python("-c", code)`; keyword arguments go to the environment."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            env={**hub_environment, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


RECIPE = """\
name: tiny
audio_model: openai/whisper-tiny
text_model: HuggingFaceTB/SmolLM2-135M
train:
- dataset: fsicoli/common_voice_22_0
  split: train
  language: nl
- dataset: google/fleurs
  config: da_dk
  language: da
lora: {r: 4, alpha: 8}
"""
ROWS = [
    {"id": "1", "reference": "de fem små fugle", "prediction": "de fem små fugle", "language": "da", "duration": 2.0},
    {"id": "2", "reference": "de fire store hunde", "prediction": "de fire store", "language": "da", "duration": 2.5},
    {
        "id": "3",
        "reference": "het huis is groot",
        "prediction": "het huis was groot",
        "language": "nl",
        "duration": 2.1,
    },
    {
        "id": "4",
        "reference": "een kleine vogel",
        "prediction": "een heel kleine vogel",
        "language": "nl",
        "duration": 1.9,
    },
]


def write_evaluation(folder: Path, model: Path) -> dict[str, Any]:
    """`metrics.json` and `predictions.jsonl` as `slam-asr evaluate` writes them for the model in `model`."""
    from trainers.evaluation import score_rows
    from trainers.files import write_json, write_jsonl
    from trainers.provenance import stamp

    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "predictions.jsonl", ROWS)
    dataset = {"name": "fsicoli/common_voice_22_0", "split": "test"}
    metrics = {**score_rows(ROWS, bootstrap=100), "dataset": dataset, "eval_rtfx": 12.5}
    metrics = stamp(metrics, model, folder / "predictions.jsonl")
    write_json(folder / "metrics.json", metrics)
    return metrics


def study_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a study: the unpruned system, a little better, and the evaluated one."""
    from trainers.evaluation import score_rows

    perfect = [{**row, "prediction": row["reference"]} if row["id"] == "2" else row for row in ROWS]
    baseline = score_rows(perfect, bootstrap=100)
    names = ("wer", "wer_ci", "cer", "substitutions", "deletions", "insertions", "hits", "reference_words")
    rows = []
    for name, pruned, lora, table in (("full depth", 0, False, baseline), ("1 pruned + LoRA", 1, True, metrics)):
        common = {
            "name": name, "prune_encoder_layers": pruned, "encoder_layers": 2 - pruned, "lora": lora, "seed": 42,
            "audio_model": "openai/whisper-tiny", "text_model": "HuggingFaceTB/SmolLM2-135M",
        }  # fmt: skip
        for language, figures in {"all": table, **table["by_language"]}.items():
            rows.append({**common, "language": language, **{key: figures[key] for key in names}})
    return rows


@pytest.fixture(scope="session")
def finished_model(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder as training and evaluation leave it: weights with LoRA, one block pruned, recipe, results, study.

    Read only: tests that change it take `model_folder`.
    """
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    make_tiny_model(prune_encoder_layers=1, lora={"r": 4, "lora_alpha": 8}).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    metrics = write_evaluation(folder / "evaluation", folder)
    (folder / "results.json").write_text(json.dumps(study_rows(metrics)), encoding="utf-8")
    data = {"train": {"rows": 100, "kept": 98, "hours": 4.25, "dropped": {}}}
    machine = {"device": "x86_64 CPU", "gpus": 0, "cores": 2}
    record = {"train_seconds": 360.0, "steps": 700, "wer": 0.5, "data": data, "hardware": machine}
    (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture
def model_folder(finished_model: Path, tmp_path: Path) -> Path:
    """A copy of `finished_model` of the test's own."""
    return Path(shutil.copytree(finished_model, tmp_path / "tiny"))
