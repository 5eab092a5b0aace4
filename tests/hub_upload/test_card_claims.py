"""What a card must not claim: frozen parts that were trained, a command that makes another model, figures of less than a test set."""

import json
import shutil
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from hub_upload.build import BuildOptions, build_folder, write_card
from hub_upload.card import CardOptions
from hub_upload.facts import read_facts
from trainers.cli import run_command
from trainers.recipes.checked_dataclasses import build
from trainers.study.plan import plan_runs
from trainers.study.recipe import StudyRecipe


def test_of_a_healed_model_no_card_says_that_the_encoder_is_frozen(model_folder: Path) -> None:
    options = BuildOptions(measure=False), CardOptions("acme/tiny")
    plain = write_card(model_folder, *options).read_text()
    assert "LoRA on the language model were trained; the base models are frozen." in plain
    path = model_folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "healing": {"seconds": 600.0, "steps": 1250}}))
    healed = write_card(model_folder, *options).read_text()
    assert "the base models are frozen" not in healed and "the language model is frozen." in healed
    assert "healed (1,250 steps of distillation): its weights are not those of the base model." in healed


def test_the_run_of_a_study_is_not_said_to_be_done_again_by_train(model_folder: Path) -> None:
    options = BuildOptions(measure=False), CardOptions("acme/tiny")
    again = "The same run again: `slam-asr train recipe.yaml`."
    assert again in write_card(model_folder, *options).read_text()
    path = model_folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    axes = {
        "prune_encoder_layers": [0, 1],
        "healing": ["none", "encoder", "elastic"],
        "lora": [False],
        "seed": [1, 1234],
    }
    study = build(
        StudyRecipe,
        {"run": {**recipe, "test": recipe["train"], "train": {"dataset": "other/data"}}, "grid": axes, "heal": {}},
    )
    runs = plan_runs(study)
    assert {run.point["healing"] for run in runs} == set(axes["healing"])
    for run in runs:
        run.recipe.save(path)
        text = write_card(model_folder, *options).read_text()
        assert again not in text and "one run of a study" in text, run.name


def test_a_part_and_another_decoder_are_told_and_no_part_is_a_machines_figure_of_the_test_set(
    model_folder: Path, tiny_audio_dir: Path
) -> None:
    shutil.rmtree(model_folder / "evaluation")
    (model_folder / "results.json").unlink()
    data = ["--dataset", str(tiny_audio_dir / "test" / "manifest.jsonl"), "--resamples", "0", "--device", "cpu"]
    generation = {
        **json.loads((model_folder / "generation_config.json").read_text()),
        "num_beams": 2,
        "max_new_tokens": 4,
    }
    (model_folder / "generation_config.json").write_text(json.dumps(generation))
    ways = {"whole": [], "part": ["--limit", "2"], "greedy": ["--num-beams", "1"], "enough": ["--limit", "1000"]}
    total = {}
    for name, options in ways.items():
        place = model_folder / "evaluation" / name
        assert run_command("evaluate", [str(model_folder), *data, "--output-dir", str(place), *options]) == 0
        metrics = json.loads((place / "metrics.json").read_text())
        total[name] = metrics["utterances"]
        metrics["dataset"] = {"name": f"acme/{name}", "split": "test"}
        (place / "metrics.json").write_text(json.dumps(metrics))
    assert total["part"] == 2 < total["whole"] == total["enough"]
    card = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny")))
    left = f"{total['whole'] - 2} further utterances left out"
    for title in (
        "acme/whole test",
        "acme/enough test",
        f"acme/part test; {left}",
        "acme/greedy test; decoded with num_beams=1",
    ):
        assert f"| {title} |" in card.text.replace("\\", ""), title
    entries = yaml.safe_load((model_folder / ".eval_results" / "slam-asr.yaml").read_text())
    notes = {entry["dataset"]["id"]: entry["notes"] for entry in entries}
    assert notes.keys() == {"acme/whole", "acme/greedy", "acme/enough"}
    assert "num_beams=1" in notes["acme/greedy"] and "num_beams" not in notes["acme/whole"]
    data_of_card = card.data
    assert isinstance(data_of_card, ModelCardData) and data_of_card.eval_results is not None
    names = {
        result.dataset_type: result.metric_name for result in data_of_card.eval_results if result.metric_type == "wer"
    }
    assert names.keys() == notes.keys() and names["acme/whole"] == "Word error rate"
    assert names["acme/greedy"] == "Word error rate (decoded with num_beams=1)"
    build_folder(model_folder, model_folder.with_name("built"), BuildOptions())
    published = read_facts(model_folder.with_name("built")).evaluations
    assert [one.metrics.get("left_out") for one in published] == [None, None, total["whole"] - 2, None]
