"""`slam-asr train` as a user meets it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hub_upload import push
from trainers.cli import main
from trainers.recipe import from_dict
from trainers.training.dry_run import plan_run


@pytest.fixture
def recipe_file(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**tiny_recipe_values, "output_dir": str(tmp_path / "run")}), encoding="utf-8")
    return str(path)


def test_dry_run_prints_and_writes_nothing(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["lora=true", "prune_encoder_layers=1", "max_steps=null", "num_epochs=3"]
    assert main(["train", recipe_file, "--dry-run", *overrides]) == 0
    printed = capsys.readouterr().out
    assert "train        16 utterances, 0.00 h" in printed
    assert "steps        12 (3.0 epochs of 4), 1 process(es)" in printed
    assert "1 blocks kept" in printed
    assert "GiB a device" in printed
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_what_the_model_has(tiny_recipe_values: dict[str, Any], make_tiny_model: Any) -> None:
    values = {**tiny_recipe_values, "lora": True, "prune_encoder_layers": 1, "train": {**tiny_recipe_values["train"]}}
    values["train"]["max_samples"] = 9
    plan = plan_run(from_dict({**values, "max_steps": None, "num_epochs": 2, "batch_size": 2}))
    settings = from_dict(values).lora
    assert settings is not None
    model = make_tiny_model(lora=settings.to_peft(), prune_encoder_layers=1)
    assert plan["parameters"] == model.parameter_report()
    assert (plan["data"]["train"]["utterances"], plan["steps"]) == (9, 10)
    assert plan["data"]["train"]["dropped"] == {"beyond max_samples or max_hours": 7}
    memory = plan["memory_gib"]
    assert memory["total"] == pytest.approx(sum(value for name, value in memory.items() if name != "total"))


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repository_is_private_if_the_recipe_says_so(
    recipe_file: str, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[push.PushOptions] = []

    def send(options: push.PushOptions) -> push.PushResult:
        """In place of what goes to the Hub."""
        asked.append(options)
        return push.PushResult("", None, False, [])

    monkeypatch.setattr(push, "push_model", send)
    settings = ["push_to_hub=acme/tiny", f"push_to_hub_private={str(private).lower()}", "max_steps=1", "validation=[]"]
    assert main(["train", recipe_file, *settings]) == 0
    assert [(options.repo_id, options.private) for options in asked] == [("acme/tiny", private)]


def test_options_are_overrides(recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    arguments = ["train", recipe_file, "--output-dir", str(other), "--seed", "7", "--device", "cpu", "--language", "nl"]
    assert main([*arguments, "max_steps=1", "validation=[]"]) == 0
    saved = yaml.safe_load((other / "recipe.yaml").read_text(encoding="utf-8"))
    assert (saved["seed"], saved["max_steps"], saved["train"][0]["language"]) == (7, 1, "nl")
    assert f"model and results: {other}" in capsys.readouterr().out
    assert (other / "model.safetensors").is_file() and (other / "metrics.json").is_file()
    assert main([*arguments, "max_steps=1", "validation=[]"]) == 2
    assert "already holds a run" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["learning_rat=1"], "Did you mean 'learning_rate'"),
        (["prune_encoder_layers=5"], "prune_encoder_layers=5 is not possible: the encoder has 2 blocks"),
        (["train.dataset=/nowhere/x.jsonl"], "'/nowhere/x.jsonl' does not exist"),
        (["train.text_column=word"], "has no column 'word'"),
        (["audio_model=embedded/none"], "no base model 'embedded/none'"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_mistakes_give_one_paragraph(
    recipe_file: str, arguments: list[str], says: str, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", recipe_file, *arguments, *(["--dry-run"] if dry else [])]) == 2
    error = capsys.readouterr().err
    assert says in " ".join(error.split())
    assert "Traceback" not in error


def test_an_output_dir_in_the_way(recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main(["train", recipe_file, f"output_dir={folder}"]) == 2
        assert "is no folder that can be written to" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_tracker_and_schedule(recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe_file, "report_to=[nosuch]"]) == 2
    assert "report_to names 'nosuch'" in capsys.readouterr().err
    assert main(["train", recipe_file, "schedule=cosin"]) == 2
    assert "Did you mean 'cosine'?" in " ".join(capsys.readouterr().err.split())


def test_tensorboard_gets_the_curves(recipe_file: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert main(["train", recipe_file, "report_to=[tensorboard]", "max_steps=1", "validation=[]"]) == 0
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_one_process_where_several_were_asked_for(
    recipe_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)  # as `accelerate launch --cpu --num_processes 2` does
    assert main(["train", recipe_file]) == 2
    assert "accelerate_configs/cpu.yaml" in capsys.readouterr().err
