"""The quickstart from beginning to end on tiny random bases: every file it promises, and what they say of each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from trainers.errors import UserError
from trainers.study.quickstart import run_quickstart

LAYERS = 4


@pytest.fixture(scope="module")
def deeper_encoder(tiny_whisper_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder with its two blocks twice, so that two can go."""
    folder = tmp_path_factory.mktemp("deeper")
    tensors = {}
    with safe_open(tiny_whisper_encoder_dir / "model.safetensors", framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            tensors[key] = file.get_tensor(key)
            for index in range(2):
                if f".layers.{index}." in key:
                    tensors[key.replace(f".layers.{index}.", f".layers.{index + 2}.")] = tensors[key].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_whisper_encoder_dir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "encoder_layers": LAYERS}))
    extractor = "preprocessor_config.json"
    (folder / extractor).write_text((tiny_whisper_encoder_dir / extractor).read_text())
    return folder


@pytest.fixture(scope="module")
def overrides(deeper_encoder: Path, tiny_llama_dir: Path, tiny_audio_dir: Path) -> tuple[str, ...]:
    train, test = (tiny_audio_dir / split / "manifest.jsonl" for split in ("train", "test"))
    return (
        f"audio_model={deeper_encoder}", f"text_model={tiny_llama_dir}", "max_steps=2", "eval_steps=2", "batch_size=4",
        "projector.hidden_size=16", "decoding.max_new_tokens=4",
        f"train={{dataset: {train}, min_duration: 0}}", f"validation={{dataset: {test}, min_duration: 0}}",
        f"test={{dataset: {test}, min_duration: 0}}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    run_quickstart(folder, seed=7, overrides=overrides)
    return folder


def test_results_have_the_promised_fields(finished: Path) -> None:
    rows = json.loads((finished / "results.json").read_text())
    everyone = [row for row in rows if row["language"] == "all"]
    assert [row["prune_encoder_layers"] for row in everyone] == [0, 2, 2]
    assert [row["encoder_layers"] for row in everyone] == [LAYERS, LAYERS - 2, LAYERS - 2]
    assert [row["lora"] for row in everyone] == [False, False, True]
    for row in rows:
        counted = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(counted / row["reference_words"])
        assert row["wer_ci"][0] <= row["wer"] <= row["wer_ci"][1]
        assert row["train_seconds"] > 0 and row["eval_rtfx"] > 0
    assert everyone[1]["encoder_params"] < everyone[0]["encoder_params"]
    assert everyone[2]["trainable_params"] > everyone[1]["trainable_params"]


def test_report_shows_table_plot_claims_and_proof(finished: Path) -> None:
    text = (finished / "report.md").read_text()
    assert "![Word error rate" in text and (finished / "wer.svg").stat().st_size > 1000
    assert text.count("Verdict:") >= 3
    assert "| `AutoModel` |" in text
    assert "Command: `slam-asr quickstart --seed 7 audio_model=" in text and " max_steps=2 " in text
    assert "2 steps in batches of 4 a system" in text


def test_model_is_complete_and_has_only_what_was_kept(finished: Path) -> None:
    config = json.loads((finished / "model" / "config.json").read_text())
    with safe_open(finished / "model" / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
    blocks = {int(name.split(".")[2]) for name in names if name.startswith("audio_encoder.layers.")}
    assert blocks == set(range(len(config["kept_encoder_layers"])))
    assert not any("lora_" in name for name in names)
    assert config["lora"] is None


def test_a_second_run_needs_resume_and_then_repeats_the_results(finished: Path, overrides: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--resume"):
        run_quickstart(finished, seed=7, overrides=overrides)
    before = (finished / "results.json").read_bytes()
    run_quickstart(finished, seed=7, resume=True, overrides=overrides)
    assert (finished / "results.json").read_bytes() == before


def test_other_settings_do_not_go_on_with_what_is_there(finished: Path, overrides: tuple[str, ...]) -> None:
    before = (finished / "results.json").read_bytes()
    for seed, more in ((8, ()), (7, ("max_steps=1",))):
        with pytest.raises(UserError, match="other settings"):
            run_quickstart(finished, seed=seed, resume=True, overrides=(*overrides, *more))
    assert (finished / "results.json").read_bytes() == before


def test_several_gpus_are_refused_before_anything_is_made(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=0"):
        run_quickstart(tmp_path / "new", overrides=overrides)
    assert not (tmp_path / "new").exists()


def test_the_same_seed_gives_the_same_figures(finished: Path, overrides: tuple[str, ...], tmp_path: Path) -> None:
    run_quickstart(tmp_path / "again", seed=7, overrides=overrides)
    timed = ("train_seconds", "eval_rtfx")
    first, second = (
        [{k: v for k, v in row.items() if k not in timed} for row in json.loads((folder / "results.json").read_text())]
        for folder in (finished, tmp_path / "again")
    )
    assert first == second


def test_transcribe_command_reads_the_saved_model(finished: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "trainers.cli",
        "transcribe",
        str(finished / "model"),
        str(finished / "sample.wav"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    proved = [line for line in (finished / "report.md").read_text().splitlines() if line.startswith("| `pipeline` |")]
    assert done.stdout.strip() in proved[0]
