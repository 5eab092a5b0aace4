"""One's own model: absolute manifest paths, base models in local folders; train, evaluate twice, push, load elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub_upload.build import BuildOptions, base_repositories, build_folder
from hub_upload.checks import refuse_unfit
from hub_upload.client import PublishError

from .conftest import Run, write_evaluation
from .lookalike import Server
from .test_push import FROM_OUTSIDE, write_recording

CLI = ("-m", "trainers.cli")


def test_an_adapter_of_local_bases_names_where_they_are_on_the_hub(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_tiny_model(lora={"r": 4, "lora_alpha": 8}).save_pretrained(source, checkpoint_form="adapter")
    tiny_processor.save_pretrained(source)
    build_folder(source, tmp_path / "built", BuildOptions())
    with pytest.raises(PublishError) as refused:
        refuse_unfit(tmp_path / "built")
    assert "--standalone" in str(refused.value) and "--base" in str(refused.value)
    bases = {"audio": ("acme/tiny-encoder", "a" * 40), "text": ("acme/tiny-llm", "b" * 40)}
    conversion = build_folder(source, tmp_path / "named", BuildOptions(bases=bases))
    assert conversion == "base models named by their repositories", "so a push compares the outputs"
    refuse_unfit(tmp_path / "named")
    config = json.loads((tmp_path / "named" / "config.json").read_text())
    assert (config["audio_model_id"], config["audio_model_revision"]) == bases["audio"]
    assert (config["text_model_id"], config["text_model_revision"]) == bases["text"]
    cached = f"/somewhere/models--acme--tiny-llm/snapshots/{'b' * 40}"
    assert base_repositories({"text_model_id": cached}, "adapter", {}) == {"text": bases["text"]}


def test_train_evaluate_push_load(
    hub: Server,
    run_python: Run,
    tiny_whisper_encoder_dir: Path,
    tiny_llama_dir: Path,
    tiny_audio_dir: Path,
    tmp_path: Path,
) -> None:
    folder, manifests = (
        tmp_path / "mine",
        {role: tiny_audio_dir / role / "manifest.jsonl" for role in ("train", "test")},
    )
    assert tiny_audio_dir.is_absolute()
    settings = [
        f"audio_model={tiny_whisper_encoder_dir}", f"text_model={tiny_llama_dir}", f"train.dataset={manifests['train']}",
        f"validation.dataset={manifests['test']}", "language=da", f"output_dir={folder}", "max_steps=2", "projector.hidden_size=32",
        "dtype=float32", "prune_encoder_layers=1", "num_workers=0",
    ]  # fmt: skip
    trained = run_python(*CLI, "train", "own_data", *settings)
    assert trained.returncode == 0, trained.stderr[-3000:]
    evaluate = [str(folder), "--dataset", str(manifests["test"]), "--output-dir", str(folder / "evaluation" / "radio")]
    scored = run_python(*CLI, "evaluate", *evaluate, "--resamples", "20")
    assert scored.returncode == 0, scored.stderr[-3000:]
    write_evaluation(folder / "evaluation" / "street", folder)
    (folder / "evaluation" / "scan-0123.jsonl").write_text(json.dumps({"audio": str(tiny_audio_dir / "a.wav")}) + "\n")
    pushed = run_python(*CLI, "push", str(folder), "acme/mine", "--standalone", "--merge", "--no-limits")
    assert pushed.returncode == 0, pushed.stderr[-3000:]
    names = hub.store.files("acme/mine")
    assert {"evaluation/radio/metrics.json", "evaluation/street/metrics.json", "training.json"} <= set(names)
    assert not [name for name in names if "predictions" in name or "scan" in name or "report" in name]
    card = hub.store.read("acme/mine", "README.md").decode()
    record = json.loads(hub.store.read("acme/mine", "training.json"))
    assert f"| trained | {record['trainable_params']:,} |" in card, "LoRA is merged, and was trained all the same"
    assert "evaluation/radio/metrics.json" in card and "evaluation/street/metrics.json" in card
    for name in names:
        if name.endswith((".json", ".yaml", ".md")) and name != "tokenizer.json":
            text = hub.store.read("acme/mine", name).decode()
            assert str(tiny_audio_dir) not in text and str(tmp_path) not in text and "speaker0" not in text, name
    loaded = run_python("-I", "-c", FROM_OUTSIDE, "acme/mine", str(write_recording(tmp_path / "a.wav")), HF_TOKEN="")
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    assert loaded.stdout.splitlines()[0] == "SlamAsrForConditionalGeneration 1"
