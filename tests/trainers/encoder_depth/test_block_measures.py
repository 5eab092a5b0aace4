"""The profile of an encoder's blocks, and the command that writes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from trainers.cli import run_command
from trainers.encoder_depth.block_measures import profile_encoder
from trainers.encoder_depth.selection import METHODS, TRAINED


def test_measures_are_what_they_are_called(tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset) -> None:
    rows = tiny_rows.select(range(5))
    profile = profile_encoder(tiny_model.audio_encoder, rows, tiny_processor.extract_features, batch_size=3, quiet=True)
    frames: list[list[torch.Tensor]] = [[], [], []]
    for row in rows:
        features = torch.from_numpy(tiny_processor.extract_features(np.asarray(_samples(row))))[None]
        with torch.no_grad():
            states, _ = tiny_model.audio_encoder.hidden_states_at(features, None, range(3))
        for depth in range(3):
            frames[depth].append(states[depth][0])
    joined = [torch.cat(parts).double() for parts in frames]
    for block in range(2):
        before, after = joined[block], joined[block + 1]
        cosine = torch.nn.functional.cosine_similarity(before, after)
        assert profile.cosine_distance[block] == pytest.approx(float(1 - cosine.mean()), abs=1e-5)
        assert profile.angular_distance[block] == pytest.approx(float(cosine.arccos().mean() / torch.pi), abs=1e-4)
        x, y = before - before.mean(0), after - after.mean(0)
        cka = torch.linalg.norm(y.T @ x) ** 2 / (torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y))
        assert profile.cka_distance[block] == pytest.approx(float(1 - cka), abs=1e-4)
    assert profile.methods == [name for name, method in METHODS.items() if method.needs != TRAINED]


def _samples(row: Any) -> Any:
    from trainers.data.rows import read_audio

    return read_audio(row)


def test_leave_one_out_is_the_pruned_models_loss(
    make_tiny_model: Any, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset
) -> None:
    rows = tiny_rows.select(range(4))
    profile = profile_encoder(
        tiny_model.audio_encoder, rows, tiny_processor.extract_features, batch_size=4,
        model=tiny_model, processor=tiny_processor, quiet=True,
    )  # fmt: skip
    inputs = tiny_processor([_samples(row) for row in rows], text=list(rows["transcript"]))
    for block in (0, 1):
        pruned = make_tiny_model()
        pruned.load_state_dict(tiny_model.state_dict())
        pruned.prune_encoder_layers([block])
        with torch.no_grad():
            assert profile.losses_without[block] == pytest.approx(float(pruned.eval()(**inputs).loss), abs=1e-4)
    with torch.no_grad():
        assert profile.loss == pytest.approx(float(tiny_model(**inputs).loss), abs=1e-4)


def test_command(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    arguments = ["--dataset", str(tiny_audio_dir / "test" / "manifest.jsonl"), "--output-dir", str(tmp_path / "out")]
    assert run_command("depth", [str(tmp_path / "model"), *arguments]) == 0
    written = json.loads((tmp_path / "out" / "depth.json").read_text())
    assert written["prune_encoder_layers"]["last"] == {"1": [1]} and len(written["losses_without"]) == 2
    assert (tmp_path / "out" / "depth.svg").stat().st_size > 3000
    assert "prune_encoder_layers: [1]" in capsys.readouterr().out
    assert run_command("depth", [str(tmp_path / "model"), *arguments, "--prune", "2"]) == 2
    assert "--prune 2: the encoder has 2 blocks" in " ".join(capsys.readouterr().err.split())


def test_command_on_a_bare_whisper_model(tmp_path: Path, tiny_whisper_encoder_dir: Path, tiny_audio_dir: Path) -> None:
    manifest = str(tiny_audio_dir / "test" / "manifest.jsonl")
    arguments = ["--dataset", manifest, "--output-dir", str(tmp_path)]
    assert run_command("depth", [str(tiny_whisper_encoder_dir), *arguments]) == 0
    written = json.loads((tmp_path / "depth.json").read_text())
    assert written["losses_without"] is None and "leave_one_out" not in written["prune_encoder_layers"]
