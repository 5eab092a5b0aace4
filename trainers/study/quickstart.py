"""The quickstart: a study of three runs on the embedded miniature, its best model exported and proved in a fresh process."""

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.errors import UserError
from trainers.evaluation.format import percent
from trainers.evaluation.speed import process_peak_bytes
from trainers.files import read_object, write_json
from trainers.inference.evaluate import evaluate
from trainers.provenance import TRAINING_RECORD
from trainers.recipe import Recipe, load_recipe
from trainers.results import QUICKSTART_RESULTS, ResultRow
from trainers.study.data import StudyData
from trainers.study.execute import datasets_for, finish
from trainers.study.plan import PlannedRun, plan_runs
from trainers.study.proof import prove
from trainers.study.quickstart_report import write_report
from trainers.study.recipe import CacheSpec, GridSpec, StudyRecipe
from trainers.study.rows import BOOTSTRAP_SEED
from trainers.study.state import STARTED, claim, read_result
from trainers.training.arguments import check_environment

PRUNED_LAYERS = 2
SYSTEMS = {
    (0, False): ("full depth", "full"),
    (PRUNED_LAYERS, False): (f"{PRUNED_LAYERS} layers pruned", "pruned"),
    (PRUNED_LAYERS, True): (f"{PRUNED_LAYERS} pruned + LoRA", "pruned_lora"),
}
"""Names in the report and folders below `runs/`, by layers pruned and LoRA."""


def run_quickstart(output_dir: Path, *, seed: int = 42, resume: bool = False, overrides: tuple[str, ...] = ()) -> Path:
    """
    Train, compare, save and prove the three systems; returns the report's path.

    Args:
        output_dir: receives `report.md`, `results.json`, `wer.svg`, `model/` and the runs.
        resume: go on with what an interrupted or finished run left there.
        overrides: `key=value` changes of the recipe `miniature`.
    Raises:
        UserError: `output_dir` holds an earlier run and `resume` is false, or one with other settings.
    """
    started = time.monotonic()
    begun = (output_dir / "runs").exists()
    if begun and not resume:
        raise UserError(
            f"{output_dir} already holds a quickstart. Go on with it (--resume) or choose another --output-dir."
        )
    study = plan(output_dir, seed, overrides)
    runs = systems(study)
    recipe, data = runs[0].recipe, StudyData(study, runs)
    if any(read_object(run.folder / STARTED).get("key", run.key) != run.key for run in runs):
        raise UserError(
            f"{output_dir} holds a quickstart with other settings, or of another version. Choose another --output-dir."
        )
    check_environment(recipe)
    step(1, "speech, synthesised once and kept")
    sets = {role: data.rows(recipe, role) for role in ("train", "validation", "test")}
    test = sets["test"]
    if test is None:
        raise UserError("test is empty: the quickstart needs data to score its systems on.")
    step(2, "encoder states of both depths, in one pass")
    datasets_for(recipe, data.kept_blocks(runs[0]), data)
    rows: list[ResultRow] = []
    for number, run in enumerate(runs, start=3):
        step(number, f"{run.name}: train, then transcribe the test set")
        own = result(study, run, data)
        rows += own
        print(f"{run.name}: WER {percent(own[0]['wer'])}")
    step(6, "the best system saved for others, loaded by a fresh process, and asked to transcribe a file")
    best = min((row for row in rows if row["language"] == "all"), key=lambda row: (row["wer"], row["total_params"]))
    model = output_dir / "model"
    export(next(run.model_folder for run in runs if run.name == best["name"]), model)
    evaluate(
        model, test, model / "evaluation", batch_size=recipe.eval_batch_size, seed=BOOTSTRAP_SEED, quiet=True,
        dataset_name=recipe.test[0].published_name(),
    )  # fmt: skip
    recording = output_dir / "sample.wav"
    shutil.copyfile(test[0]["audio"]["path"], recording)
    proof, spoken = prove(model, recording), test[0]["text"]
    for place in (output_dir, model):
        write_json(place / QUICKSTART_RESULTS, rows)
    command = shlex.join(["slam-asr", "quickstart", "--seed", str(seed), *overrides])
    took = f"{'The last start' if begun else 'This run'} took {(time.monotonic() - started) / 60:.1f} minutes"
    report = write_report(output_dir, rows, proof, recording.name, spoken, facts(command, recipe, sets, best, took))
    print(f"\n{report.read_text(encoding='utf-8')}")
    print(f"Spoken:      {spoken}\nTranscribed: {proof['pipeline']}\n")
    for name, what in (
        ("report.md", "the report"),
        (QUICKSTART_RESULTS, "its figures"),
        ("model", "the best model"),
        ("sample.wav", "a recording"),
    ):
        print(f"  {output_dir / name}  {what}")
    print(f"\nNext, transcribe something yourself:\n  slam-asr transcribe {model} {recording}")
    return report


def plan(output_dir: Path, seed: int, overrides: Sequence[str]) -> StudyRecipe:
    """The study that the quickstart is."""
    recipe = load_recipe("miniature", [f"seed={seed}", *overrides])
    return StudyRecipe(
        run=recipe.to_dict(),
        name="quickstart",
        output_dir=str(output_dir),
        grid=GridSpec(prune_encoder_layers=[0, PRUNED_LAYERS], lora=[False, True], seed=[recipe.seed]),
        skip=[{"prune_encoder_layers": 0, "lora": True}],
        cache=CacheSpec(dtype="float32", max_gigabytes=None),
        keep_checkpoints=True,
    )


def systems(study: StudyRecipe) -> list[PlannedRun]:
    """The study's runs, named and placed as the quickstart names them."""
    named = []
    for run in plan_runs(study):
        count = run.point["prune_encoder_layers"]
        assert isinstance(count, int)
        name, place = SYSTEMS[count, run.point["lora"]]
        folder = study.folder / "runs" / place
        recipe = dataclasses.replace(run.recipe, name=name, output_dir=str(folder))
        named.append(dataclasses.replace(run, recipe=recipe, folder=folder))
    return named


def result(study: StudyRecipe, run: PlannedRun, data: StudyData) -> list[ResultRow]:
    """The rows of one system, trained and scored unless it is finished: all languages together, then each."""
    with claim(run) as owned:
        if not owned:
            raise UserError(f"Another process works on {run.folder}. Wait for it, or choose another --output-dir.")
        rows = read_result(run) or finish(study, run, data)
    return rows if rows[0]["language"] == "all" else [{**rows[0], "language": "all"}, *rows]


def export(run: Path, folder: Path) -> None:
    """The run's model as a standalone checkpoint with LoRA merged, so that it needs no PEFT, with what its card tells."""
    model = SlamAsrForConditionalGeneration.from_pretrained(run)
    model.save_pretrained(folder, merge_lora=True)
    SlamAsrProcessor.from_pretrained(run).save_pretrained(folder)
    shutil.copyfile(run / "recipe.yaml", folder / "recipe.yaml")
    training = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    write_json(folder / "training.json", {name: training[name] for name in TRAINING_RECORD if name in training})


def facts(command: str, recipe: Recipe, data: dict[str, Any], best: ResultRow, took: str) -> list[str]:
    """What a reader needs to judge and repeat the figures."""
    hours = {role: sum(rows["seconds"]) / 3600 for role, rows in data.items()}
    memory = process_peak_bytes()
    peak = "" if memory is None else f" and at most {memory / 2**30:.2f} GiB of memory"
    length = f"{recipe.num_epochs:g} epochs" if recipe.max_steps is None else f"{recipe.max_steps} steps"
    return [
        f"Command: `{command}`; recipe `trainers/recipes/miniature.yaml`.",
        f"Training: {len(data['train'])} utterances ({hours['train']:.2f} h), {length} in batches of {recipe.batch_size} "
        f"a system; test: {len(data['test'])} utterances ({hours['test']:.2f} h). The best system is {best['name']}.",
        f"{took} with {torch.get_num_threads()} threads{peak}.",
    ]


def step(number: int, what: str) -> None:
    """Announce a step."""
    print(f"\n[{number}/6] {what}", flush=True)
