"""The quickstart from beginning to end."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.errors import UserError
from trainers.files import write_json
from trainers.inference.evaluate import evaluate
from trainers.provenance import TRAINING_RECORD
from trainers.recipe import Recipe, load_recipe
from trainers.study.proof import prove
from trainers.study.quickstart_report import write_report
from trainers.study.quickstart_systems import SYSTEMS, encode_once, load_data, run_system


def run_quickstart(output_dir: Path, *, seed: int = 42, resume: bool = False, overrides: tuple[str, ...] = ()) -> Path:
    """
    Train, compare, save and prove the three systems; returns the report's path.

    Args:
        output_dir: receives `report.md`, `results.json`, `wer.svg`, `model/` and the runs.
        resume: go on with what an interrupted or finished run left there.
        overrides: `key=value` changes of the recipe `miniature`.
    Raises:
        UserError: `output_dir` holds an earlier run and `resume` is false.
    """
    started = time.monotonic()
    if (output_dir / "runs").exists() and not resume:
        raise UserError(
            f"{output_dir} already holds a quickstart. Go on with it (--resume) or choose another --output-dir."
        )
    recipe = load_recipe("miniature", [f"seed={seed}", *overrides])
    step(1, "speech, synthesised once and kept")
    data, reports = load_data(recipe, output_dir / "data")
    step(2, "encoder states of both depths, in one pass")
    features = encode_once(recipe, data, output_dir / "features")
    rows: list[dict[str, Any]] = []
    for number, system in enumerate(SYSTEMS, start=3):
        step(number, f"{system.name}: train, then transcribe the test set")
        rows += run_system(system, recipe, data["test"], features, output_dir / "runs")
        print(f"{system.name}: WER {[row for row in rows if row['language'] == 'all'][-1]['wer']:.4f}")
    step(6, "the best system saved for others, loaded by a fresh process, and asked to transcribe a file")
    best = min((row for row in rows if row["language"] == "all"), key=lambda row: (row["wer"], row["total_params"]))
    folder = next(system.folder for system in SYSTEMS if system.name == best["name"])
    hours = {role: report.as_dict() for role, report in reports.items()}
    model = export(output_dir / "runs" / folder, output_dir / "model", hours)
    evaluate(
        model, data["test"], model / "evaluation", batch_size=recipe.eval_batch_size, seed=seed, quiet=True,
        dataset_name=recipe.test[0].published_name(),
    )  # fmt: skip
    sample = data["test"][0]
    recording = output_dir / "sample.wav"
    shutil.copyfile(sample["audio"]["path"], recording)
    proof = {**prove(model, recording), "recording": recording.name, "spoken": sample["text"]}
    for place in (output_dir, model):
        write_json(place / "results.json", rows)
    report = write_report(output_dir, rows, proof, facts(recipe, data, best, time.monotonic() - started))
    print(f"\n{report.read_text(encoding='utf-8')}")
    print(f"Spoken:      {proof['spoken']}\nTranscribed: {proof['pipeline']}\n")
    for name, what in (
        ("report.md", "the report"),
        ("results.json", "its figures"),
        ("model", "the best model"),
        ("sample.wav", "a recording"),
    ):
        print(f"  {output_dir / name}  {what}")
    print(f"\nNext, transcribe something yourself:\n  slam-asr transcribe {model} {recording}")
    return report


def export(run: Path, folder: Path, data: dict[str, Any]) -> Path:
    """The run's model as a standalone checkpoint with LoRA merged, so that it needs no PEFT, with what its card tells."""
    model = SlamAsrForConditionalGeneration.from_pretrained(run)
    model.save_pretrained(folder, merge_lora=True)
    SlamAsrProcessor.from_pretrained(run).save_pretrained(folder)
    shutil.copyfile(run / "recipe.yaml", folder / "recipe.yaml")
    training = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    record = {name: training[name] for name in TRAINING_RECORD if name in training}
    write_json(folder / "training.json", {**record, "data": data})
    return folder


def facts(recipe: Recipe, data: dict[str, Any], best: dict[str, Any], seconds: float) -> list[str]:
    """What a reader needs to judge and repeat the figures."""
    hours = {role: sum(rows["seconds"]) / 3600 for role, rows in data.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1024
    return [
        f"Command: `slam-asr quickstart --seed {recipe.seed}`; recipe `trainers/recipes/miniature.yaml`.",
        f"Training: {len(data['train'])} utterances ({hours['train']:.2f} h), {recipe.max_steps} steps of {recipe.batch_size} "
        f"a system; test: {len(data['test'])} utterances ({hours['test']:.2f} h). The best system is {best['name']}.",
        f"This run took {seconds / 60:.1f} minutes with {torch.get_num_threads()} threads and at most {peak:.2f} GiB of memory.",
    ]


def step(number: int, what: str) -> None:
    """Announce a step."""
    print(f"\n[{number}/6] {what}", flush=True)
