"""Disks that are full or may not be written to: one line, nothing half written, and on from there once there is room."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tests.conftest import fill_disk
from trainers.cli import run_command
from trainers.errors import UserError
from trainers.feature_cache import build_cache
from trainers.files import write_json
from trainers.recipe import from_dict
from trainers.train import run_training


@pytest.mark.parametrize("leave", [0, 20_000, 150_000, 300_000])
def test_training(leave: int, tiny_recipe_values: dict[str, Any], small_disk: Path) -> None:
    values = {**tiny_recipe_values, "max_steps": 2, "save_steps": 1, "output_dir": str(small_disk / "run")}
    ballast = fill_disk(small_disk, leave)
    with pytest.raises(UserError, match=r"full|No space left") as told:
        run_training(from_dict(values))
    assert "\n" not in str(told.value)
    ballast.unlink()
    assert run_training(from_dict(values), resume=True)["steps"] == 2
    assert not list(small_disk.rglob(".*.partial"))


def test_a_cache(
    small_disk: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    ballast = fill_disk(small_disk, 40_000)
    arguments = (small_disk / "cache", tiny_rows, tiny_model.audio_encoder, tiny_processor, [1, 2])
    with pytest.raises(UserError, match=r"needs .* more in .* Free some space"):
        build_cache(*arguments, **cache_options)
    ballast.unlink()
    assert len(build_cache(*arguments, **cache_options)) == len(tiny_rows)
    assert not list(small_disk.rglob(".*.partial"))


def test_a_file_is_whole_or_as_it_was(small_disk: Path) -> None:
    write_json(small_disk / "a.json", {"a": 1})
    fill_disk(small_disk, 4096)
    with pytest.raises(OSError, match="No space left"):
        write_json(small_disk / "a.json", {"a": "x" * 100_000})
    assert json.loads((small_disk / "a.json").read_text()) == {"a": 1} and len(list(small_disk.iterdir())) == 2


def test_folders_that_may_not_be_written_to(
    read_only: Path, tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, tiny_recipe_values: dict[str, Any],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"reference": "a b", "prediction": "a c"}\n')
    (tmp_path / "recipe.yaml").write_text(json.dumps(tiny_recipe_values))
    manifest, out = str(tiny_audio_dir / "test" / "manifest.jsonl"), str(read_only / "out")
    clip = str(next(tiny_audio_dir.rglob("*.wav")))
    commands = {
        "train": [str(tmp_path / "recipe.yaml"), f"output_dir={out}"],
        "score": [str(tmp_path / "rows.jsonl"), "--language", "en"],
        "evaluate": [str(tmp_path / "model"), "--dataset", manifest],
        "depth": [str(tmp_path / "model"), "--dataset", manifest, "--no-loss"],
        "transcribe": [str(tmp_path / "model"), clip, "--srt"],
        "export": [str(tmp_path / "model"), out, "--hf-only"],
    }
    for command, arguments in commands.items():
        where = [] if command in ("train", "export") else ["--output-dir", out]
        assert run_command(command, [*arguments, *where]) in (1, 2), command
        said = " ".join(capsys.readouterr().err.split())
        assert "Read-only file system" in said and "Traceback" not in said, (command, said)
