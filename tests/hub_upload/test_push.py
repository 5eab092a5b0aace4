"""`slam-asr push` from end to end, over real HTTP, as separate processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.conftest import fill_disk

from .conftest import Run
from .lookalike import Server

FROM_OUTSIDE = """
import sys
for name in ("modeling_slam_asr", "trainers", "hub_upload", "peft", "soundfile", "soxr", "librosa", "datasets", "jiwer"):
    sys.modules[name] = None
from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, pipeline
name, audio = sys.argv[1:]
model = AutoModelForSpeechSeq2Seq.from_pretrained(name, trust_remote_code=True)
print(type(model).__name__, len(model.audio_encoder.layers))
print(repr(pipeline("automatic-speech-recognition", name, trust_remote_code=True)(audio)["text"]))
"""
# Bases on the Hub, and a model that was made from them at a commit, in its adapter form.
ADAPTER_ON_HUB = """
import sys
from huggingface_hub import HfApi
import torch
from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
encoder, llm, target = sys.argv[1:]
api = HfApi()
for name, folder in (("acme/tiny-encoder", encoder), ("acme/tiny-llm", llm)):
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=folder)
torch.manual_seed(3)
model = SlamAsrForConditionalGeneration.from_base_models(
    "acme/tiny-encoder", "acme/tiny-llm", projector_hidden_size=32, prune_encoder_layers=1, lora={"r": 4, "lora_alpha": 8}
)
for name, parameter in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.05)
model.save_pretrained(target, checkpoint_form="adapter")
SlamAsrProcessor.from_base_models("acme/tiny-encoder", "acme/tiny-llm").save_pretrained(target)
"""

# As a training run does it, and then again.
PUSH_TWICE = """
import sys
from hub_upload.push import push_run
made = [push_run(sys.argv[1], "acme/tiny").made for _ in range(2)]
print(*made)
"""


@pytest.fixture
def cli(run_python: Run) -> Any:
    """Runs `slam-asr ...` against the look-alike."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return run_python("-m", "trainers.cli", *arguments, **environment)

    return run


def posted(hub: Server) -> list[dict[str, Any]]:
    return [row for row in hub.store.log if row["method"] in ("POST", "PUT", "DELETE", "PATCH")]


def test_publish_after_a_kill_then_again_then_use(
    hub: Server, cli: Any, run_python: Run, model_folder: Path, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    hub.store.faults.append({"path": "/api/models/acme/tiny/preupload", "delay": 5})
    command = [sys.executable, "-m", "trainers.cli", "push", str(model_folder), "acme/tiny", "--tag", "v1"]
    killed = subprocess.Popen(command, env=hub_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 800
    while hub.store.faults and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert set(hub.store.files("acme/tiny")) == {".gitattributes"}, "nothing half-made can be seen"

    first = cli("push", str(model_folder), "acme/tiny", "--tag", "v1")
    assert first.returncode == 0, first.stderr
    assert "verified" in first.stdout
    assert hub.store.commits("acme/tiny") == ["Publish with slam-asr", "initial commit"]
    names = set(hub.store.files("acme/tiny", "v1"))
    wanted = {"README.md", "config.json", "generation_config.json", "model.safetensors", "processor_config.json"}
    wanted |= {"tokenizer.json", "recipe.yaml", "training.json", "limits.json", "results.json", "wer_vs_depth.png"}
    assert wanted | {"modeling_slam_asr.py", "pipeline_slam_asr.py", "evaluation/metrics.json"} <= names
    assert not [name for name in names if "predictions" in name or name == "metrics.json"]
    weights = (model_folder / "model.safetensors").read_bytes()
    assert hub.store.read("acme/tiny", "model.safetensors") == weights
    config = hub.store.read("acme/tiny", "config.json").decode()
    assert str(tmp_path) not in config and '"audio_model_id": "tiny-whisper-encoder"' in config
    card = ModelCard(hub.store.read("acme/tiny", "README.md").decode())
    assert 'revision="v1"' in card.text
    assert card.data.to_dict()["model-index"][0]["name"] == "tiny"

    # Somebody writes into the card on the Hub; the same model pushed again keeps it, and is one commit at the most.
    text = str(card).replace("(as of none) -->\n", "(as of none) -->\nWritten on the Hub.\n", 1)
    hub.store.move_head("acme/tiny", "README.md", text.encode())
    hub.store.move_head("acme/tiny", "picture.png", b"\x89PNG")
    twice = run_python("-c", PUSH_TWICE, str(model_folder))
    assert twice.returncode == 0, twice.stderr
    assert twice.stdout.split()[-2:] == ["True", "False"]
    assert b"Written on the Hub." in hub.store.read("acme/tiny", "README.md")
    assert "picture.png" in hub.store.files("acme/tiny")
    titles = ["Publish with slam-asr", "somebody else", "somebody else", "Publish with slam-asr", "initial commit"]
    assert hub.store.commits("acme/tiny") == titles

    # The usual tools work on it.
    downloaded = run_python(
        "-m", "huggingface_hub.cli.hf", "download", "acme/tiny", "--local-dir", str(tmp_path / "copy")
    )
    assert downloaded.returncode == 0, downloaded.stderr
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == weights
    snapshot = run_python(
        "-c",
        "from huggingface_hub import snapshot_download; print(snapshot_download('acme/tiny', revision='v1'))",
        HF_TOKEN="",
        HF_HOME=str(tmp_path / "strangers-home"),
    )
    assert snapshot.returncode == 0, snapshot.stderr
    assert (Path(snapshot.stdout.strip()) / "config.json").is_file()


def test_adapter_then_merged_from_pinned_bases(
    hub: Server, cli: Any, run_python: Run, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    made = run_python("-c", ADAPTER_ON_HUB, str(tiny_whisper_encoder_dir), str(tiny_llama_dir), str(folder))
    assert made.returncode == 0, made.stderr
    pushed = cli("push", str(folder), "acme/model", "--adapter", "--private", "--no-limits")
    assert pushed.returncode == 0, pushed.stderr
    names = set(hub.store.files("acme/model"))
    assert "language_model_lora/adapter_model.safetensors" in names and "adapter_config.json" not in names
    card = ModelCard(hub.store.read("acme/model", "README.md").decode()).data.to_dict()
    assert card["base_model"] == ["acme/tiny-encoder", "acme/tiny-llm"] and card["base_model_relation"] == "adapter"
    state = hub.store.load("model", "acme/model")
    assert state is not None and state["private"]

    hub.store.faults.append({"path": "/commit/main", "drop_before_reply": True})
    merged = cli("push", str(folder), "acme/model", "--merge", "--no-limits")
    assert merged.returncode == 0, merged.stderr
    names = set(hub.store.files("acme/model"))
    assert not [name for name in names if "_lora/" in name], "files of the adapter form would be loaded by mistake"
    publication = json.loads(hub.store.read("acme/model", "publication.json"))
    assert publication["conversion"] == "adapter to standalone form, LoRA merged into the weights"
    outside = run_python("-I", "-c", FROM_OUTSIDE, "acme/model", str(write_recording(tmp_path / "a.wav")))
    assert outside.returncode == 0, outside.stderr
    assert outside.stdout.splitlines()[0] == "SlamAsrForConditionalGeneration 1"


def write_recording(path: Path) -> Path:
    from trainers.sound import voice_like, write_wav

    return write_wav(path, voice_like(1.5, seed=3))


def test_a_dry_run_shows_the_difference_and_sends_nothing(hub: Server, cli: Any, model_folder: Path) -> None:
    done = cli("push", str(model_folder), "acme/tiny", "--dry-run", "--no-limits", HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert "would create the public repository acme/tiny" in done.stdout
    assert "  + model.safetensors" in done.stdout
    assert not posted(hub)


def test_a_published_model_that_does_not_load_is_an_error_that_says_what_stands(
    hub: Server, cli: Any, model_folder: Path
) -> None:
    hub.store.faults.append({"path": "/acme/tiny/resolve/[0-9a-f]{40}/config.json", "status": 404, "times": 99})
    failed = cli("push", str(model_folder), "acme/tiny", "--no-limits")
    assert failed.returncode == 2
    assert "stands in acme/tiny, but it was not verified" in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
    assert hub.store.commits("acme/tiny") == ["Publish with slam-asr", "initial commit"]


@pytest.mark.parametrize(
    ("plant", "options", "said"),
    [
        (("README.md", "see /home/jane/model"), [], "absolute path"),
        (("recipe.yaml", "hub_token: hf_aB3dE6gH9jK2mN5pQ8rS1tU4"), [], "Hugging Face token"),
        (("tokenizer.json", "{"), [], "cannot be read"),
        (("evaluation/metrics.json", '{"wer": 0.01}'), [], "not produced by"),
        (None, ["--adapter"], "--standalone"),
        (None, ["--merge", "--adapter"], "exclude each other"),
        (("processor_config.json", None), [], "lacks processor_config.json"),
    ],
    ids=["path", "token", "damaged", "typed-result", "local-bases", "merge-adapter", "incomplete"],
)
def test_refusals_send_nothing(
    hub: Server, cli: Any, model_folder: Path, plant: tuple[str, str | None] | None, options: list[str], said: str
) -> None:
    if plant is not None and plant[1] is None:
        (model_folder / plant[0]).unlink()
    elif plant is not None:
        (model_folder / plant[0]).write_text(str(plant[1]))
    failed = cli("push", str(model_folder), "acme/tiny", "--no-limits", *options)
    assert failed.returncode == 2, failed.stdout
    message = " ".join(failed.stderr.split())
    assert said in message and "Traceback" not in message and "mN5pQ8" not in message
    assert not posted(hub)
    assert hub.store.load("model", "acme/tiny") is None


def test_paths_of_the_recipe_are_published_as_names(hub: Server, cli: Any, model_folder: Path) -> None:
    recipe = (
        "audio_model: /home/jane/whisper\ntext_model: Qwen/Qwen2-0.5B\noutput_dir: /home/jane/runs/mine\n"
        "train: [{dataset: /home/jane/data/set.jsonl, split: train}]\n"
    )
    (model_folder / "recipe.yaml").write_text(recipe)
    done = cli("push", str(model_folder), "acme/tiny", "--no-limits")
    assert done.returncode == 0, done.stderr
    published = yaml.safe_load(hub.store.read("acme/tiny", "recipe.yaml"))
    assert published == {
        "audio_model": "whisper", "text_model": "Qwen/Qwen2-0.5B", "output_dir": "mine",
        "train": [{"dataset": "set.jsonl", "split": "train"}],
    }  # fmt: skip
    assert (model_folder / "recipe.yaml").read_text() == recipe


def test_a_folder_that_may_not_be_written_is_published_all_the_same(
    hub: Server, cli: Any, model_folder: Path, small_disk: Path
) -> None:
    copy = Path(shutil.copytree(model_folder, small_disk / "tiny"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)  # which stops root too
    done = cli("push", str(copy), "acme/tiny", "--no-limits", "--dry-run")
    assert done.returncode == 0, done.stderr
    refused = cli("card", str(copy), "--no-limits")
    assert refused.returncode == 2 and "Read-only file system" in " ".join(refused.stderr.split())


def test_a_full_disk_publishes_nothing(hub: Server, cli: Any, model_folder: Path, small_disk: Path) -> None:
    fill_disk(small_disk, 100_000)
    done = cli("push", str(model_folder), "acme/tiny", "--no-limits", TMPDIR=str(small_disk))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "No space left on device" in " ".join(done.stderr.split()), done.stderr
    assert not posted(hub) and [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_wrong_arguments_and_rights(hub: Server, cli: Any, model_folder: Path) -> None:
    for arguments, environment, said in (
        ([str(model_folder), "tiny"], {}, "no namespace"),
        ([str(model_folder), "acme/ti ny"], {}, "no repository id"),
        ([str(model_folder) + "x", "acme/tiny"], {}, "is no folder"),
        ([str(model_folder), "acme/tiny"], {"HF_TOKEN": "hf_read"}, "read-only"),
    ):
        failed = cli("push", *arguments, **environment)
        assert failed.returncode == 2
        assert said in " ".join(failed.stderr.split()), failed.stderr
    assert not posted(hub)


def test_a_tag_that_names_something_else_is_a_conflict_before_anything_is_sent(
    hub: Server, cli: Any, run_python: Run, model_folder: Path
) -> None:
    setup = "from huggingface_hub import HfApi; a = HfApi(); a.create_repo('acme/tiny'); a.create_tag('acme/tiny', tag='v1')"
    assert run_python("-c", setup).returncode == 0
    hub.store.log.clear()
    failed = cli("push", str(model_folder), "acme/tiny", "--tag", "v1", "--no-limits")
    assert failed.returncode == 2 and "already names the commit" in " ".join(failed.stderr.split())
    assert not posted(hub)


def test_a_folder_of_another_checkout_needs_nothing_of_this_one(model_folder: Path, tmp_path: Path) -> None:
    from hub_upload.build import BuildOptions, build_folder

    shutil.move(model_folder, tmp_path / "elsewhere")
    assert build_folder(tmp_path / "elsewhere", tmp_path / "built", BuildOptions()) is None
