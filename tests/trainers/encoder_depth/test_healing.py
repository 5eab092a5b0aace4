"""A healed encoder is nearer to the full one; an elastic projector serves several depths."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_slam_asr import SlamAsrForConditionalGeneration
from tests.trainers.study.conftest import make_study  # noqa: F401 (a fixture)
from tests.trainers.study.test_study import collect, do
from trainers.encoder_depth.healing import HealSpec, heal, untranscribed
from trainers.errors import UserError
from trainers.feature_cache import build_cache


@pytest.fixture
def states(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> Any:
    return build_cache(tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [0, 1, 2], **cache_options)


def _pruned(make_tiny_model: Any) -> Any:
    return make_tiny_model(prune_encoder_layers=1).audio_encoder


def test_healing_in_bfloat16_keeps_float32_weights(tmp_path: Path, make_tiny_model: Any, states: Any) -> None:
    encoder, exact = _pruned(make_tiny_model), _pruned(make_tiny_model)
    spec = HealSpec(steps=10, batch_seconds=4, learning_rate=3e-3)
    result = heal(exact, states.dataset(0), states.dataset(2), spec, tmp_path / "fp32", quiet=True)
    spec.bf16 = True
    rough = heal(encoder, states.dataset(0), states.dataset(2), spec, tmp_path / "bf16", quiet=True)
    assert rough["loss_after"] < rough["loss_before"]
    assert rough["loss_after"] == pytest.approx(result["loss_after"], rel=0.1)
    assert rough["loss_after"] != result["loss_after"]
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("method", ["encoder", "lora"])
def test_healing_lowers_the_difference(method: Any, tmp_path: Path, make_tiny_model: Any, states: Any) -> None:
    encoder = _pruned(make_tiny_model)
    before = copy.deepcopy(encoder.state_dict())
    spec = HealSpec(steps=30, batch_seconds=4, learning_rate=3e-3, lora_learning_rate=1e-2, save_steps=10)
    result = heal(encoder, states.dataset(0), states.dataset(2), spec, tmp_path / "h", method=method, quiet=True)
    assert result["loss_after"] < 0.8 * result["loss_before"]
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("layers.0.") for name in changed)
    assert method == "encoder" or all(".self_attn." in name for name in changed)
    assert encoder.state_dict().keys() == before.keys()
    again = _pruned(make_tiny_model)
    heal(again, states.dataset(0), states.dataset(2), spec, tmp_path / "h", method=method, quiet=True)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name])


def test_interrupted_healing_ends_the_same(tmp_path: Path, make_tiny_model: Any, states: Any) -> None:
    spec = HealSpec(steps=6, batch_seconds=4, save_steps=2)
    whole, cut = _pruned(make_tiny_model), _pruned(make_tiny_model)
    heal(whole, states.dataset(0), states.dataset(2), spec, tmp_path / "whole", quiet=True)

    class Interrupted(Exception):
        pass

    class Rows:
        """The inputs until they are cut off."""

        def __init__(self, reads: int) -> None:
            self.rows, self.reads = states.dataset(0), reads

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: Any) -> Any:
            self.reads -= not isinstance(index, str)
            if self.reads < 0:
                raise Interrupted
            return self.rows[index]

    rows: Any = Rows(16 + 16)  # the first measurement, and some steps
    with pytest.raises(Interrupted):
        heal(cut, rows, states.dataset(2), spec, tmp_path / "cut", quiet=True)
    assert (tmp_path / "cut" / "checkpoint.pt").is_file() and not (tmp_path / "cut" / "healing.json").is_file()
    cut = _pruned(make_tiny_model)
    heal(cut, states.dataset(0), states.dataset(2), spec, tmp_path / "cut", quiet=True)
    for name, tensor in cut.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], atol=1e-6, rtol=0)


def test_untranscribed_speech(tmp_path: Path, tiny_audio_dir: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    rows = untranscribed([str(tiny_audio_dir / "test"), str(tmp_path)], quiet=True)
    assert len(rows) == 6 and min(rows["seconds"]) > 0.1
    with pytest.raises(UserError, match="does not exist"):
        untranscribed([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="holds no sound"):
        untranscribed([str(tmp_path)], quiet=True)


def test_untranscribed_speech_of_a_manifest(tmp_path: Path, tiny_audio_dir: Path) -> None:
    file = next((tiny_audio_dir / "test").glob("*.wav"))
    manifest = tmp_path / "speech.jsonl"
    manifest.write_text(json.dumps({"audio": file.name, "start": 0.1, "end": 0.3}) + "\n")
    root = str(file.parent)
    (part,) = untranscribed([str(manifest)], quiet=True, audio_root=root)["seconds"]
    (whole,) = untranscribed([str(manifest)], quiet=True, audio_root=root, segments="ignore")["seconds"]
    assert part == pytest.approx(0.2) and whole > 0.3
    with pytest.raises(UserError, match="holds no sound"):
        untranscribed([str(manifest)], quiet=True)


def test_study_with_healing_and_elastic_depth(make_study: Any, tmp_path: Path) -> None:  # noqa: F811
    path = make_study(
        grid={"prune_encoder_layers": [0, 1], "lora": [True], "healing": ["none", "encoder", "elastic"]},
        heal={"steps": 4, "batch_seconds": 4, "blocks": 1},
        run={"max_steps": 2, "eval_steps": 2},
    )
    study, runs, failed = do(path)
    assert failed == 0 and len(runs) == 4
    rows = collect(study, runs)
    found = [(row["healing"], row["encoder_layers"]) for row in rows]
    assert found == [(None, 2), ("elastic", 2), ("elastic", 1), (None, 1), ("encoder", 1)]
    healing = json.loads(next((tmp_path / "study" / "healed").glob("*/healing.json")).read_text())
    assert healing["loss_after"] < healing["loss_before"]
    healed = next(run for run in runs if run.point["healing"] == "encoder")
    plain = next(run for run in runs if run.point["healing"] == "none" and run.point["prune_encoder_layers"] == 1)
    record = {"steps": 4, "seconds": healing["seconds"]}
    told = [json.loads((run.model_folder / "metrics.json").read_text()).get("healing") for run in (healed, plain)]
    assert record["seconds"] > 0 and told == [record, None]
    name = "layers.0.fc1.weight"
    weights = [
        SlamAsrForConditionalGeneration.from_pretrained(run.folder / "model").audio_encoder.state_dict()[name]
        for run in (healed, plain)
    ]
    assert not torch.equal(*weights)
    elastic = next(run for run in runs if run.point["healing"] == "elastic")
    model = SlamAsrForConditionalGeneration.from_pretrained(elastic.folder / "model", prune_encoder_layers=1)
    assert model.config.kept_encoder_layers == [0]


def test_healing_reads_the_cache_of_the_other_runs_and_outlives_a_grown_grid(make_study: Any, tmp_path: Path) -> None:  # noqa: F811
    def once(prune: list[Any]) -> dict[str, float]:
        grid = {"prune_encoder_layers": prune, "lora": [True], "healing": ["none", "encoder"]}
        path = make_study(grid=grid, heal={"steps": 2, "batch_seconds": 4}, run={"max_steps": 1, "validation": []})
        assert do(path)[2] == 0
        return {
            file.parent.name: file.stat().st_mtime for file in (tmp_path / "study" / "healed").glob("*/healing.json")
        }

    first = once([0, 1])
    # One pass of the full encoder for training and healing alike, and one of the healed encoder.
    assert len(list((tmp_path / "study" / "features").iterdir())) == 2
    grown = once([0, 1, [0]])
    assert len(first) == 1 and len(grown) == 2 and first.items() <= grown.items()
