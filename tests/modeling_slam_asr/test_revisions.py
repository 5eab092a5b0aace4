"""Two revisions of one repository are two models, each with its own weights, base models and code."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hub_upload.lookalike import Server, serve

from .conftest import REPOSITORY, noise

# Makes the models `first` and `second`, each from the LLM's newest commit, and publishes them one after the other.
WRITE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
repository, whisper, llama, wave = sys.argv[1:]
sys.path.insert(0, repository)
from modeling_slam_asr import SlamAsrForConditionalGeneration as Model, SlamAsrProcessor
api, made = HfApi(), {}
for name, folder in {"acme/whisper": whisper, "acme/llama": llama, "acme/adapter": None, "acme/whole": None}.items():
    api.create_repo(name)
    if folder:
        api.upload_folder(repo_id=name, folder_path=folder)
processor = SlamAsrProcessor.from_base_models("acme/whisper", "acme/llama")
inputs = processor([np.load(wave)])
for name in ("first", "second"):
    if name == "second":
        tensors = {key: 1.5 * tensor for key, tensor in load_file(Path(llama) / "model.safetensors").items()}
        save_file(tensors, "model.safetensors", metadata={"format": "pt"})
        api.upload_file(repo_id="acme/llama", path_or_fileobj="model.safetensors", path_in_repo="model.safetensors")
    torch.manual_seed(len(name))
    model = Model.from_base_models("acme/whisper", "acme/llama", projector_hidden_size=32, lora={"r": 4, "lora_alpha": 8})
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_()
        total = model(**inputs).logits.double().abs().sum().item()
    made[name] = {"sum": total, "llm": model.config.text_model_revision}
    for repo, form in (("acme/adapter", "adapter"), ("acme/whole", "standalone")):
        folder = Path(name) / form
        model.save_pretrained(folder, checkpoint_form=form)
        processor.save_pretrained(folder)
        for file in folder.glob("*_slam_asr.py"):
            file.write_text(file.read_text(encoding="utf-8") + f"\\nMADE_AS = {name!r}\\n", encoding="utf-8")
        made[name][repo] = api.upload_folder(repo_id=repo, folder_path=folder).oid
        api.create_tag(repo, tag=name)
old = Model.from_base_models("acme/whisper", "acme/llama", projector_hidden_size=32, text_revision=made["first"]["llm"])
stored = load_file(Path(llama) / "model.safetensors")
assert all(torch.equal(tensor, stored[key]) for key, tensor in old.language_model.state_dict().items() if key in stored)
assert old.config.text_model_revision == made["first"]["llm"]
print(json.dumps(made))
"""
# Loads each revision in turn, in one process.
READ = """
import json, sys
import numpy as np, torch
from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline
if sys.argv[1] == "package":
    import modeling_slam_asr
trusted = {} if sys.argv[1] == "package" else {"trust_remote_code": True}
wave = np.load(sys.argv[2])
found = []
for repo, revision in json.loads(sys.argv[3]):
    options = {"revision": revision, **trusted}
    config = AutoConfig.from_pretrained(repo, **options)
    processor = AutoProcessor.from_pretrained(repo, **options)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(repo, **options)
    asr = pipeline("automatic-speech-recognition", model=repo, **options)
    sums = []
    with torch.no_grad():
        for one in (model, asr.model):
            sums.append(one(**processor([wave])).logits.double().abs().sum().item())
    modules = [sys.modules[type(part).__module__] for part in (config, processor, model, model.projector, asr, asr.model)]
    modules.append(sys.modules[type(model).__mro__[1].__module__])
    found.append({"sums": sums, "llm": [config.text_model_revision, model.config.text_model_revision],
                  "code": sorted({getattr(module, "MADE_AS", "package") for module in modules}),
                  "name": model.name_or_path})
    if sys.argv[1] == "package":
        from trainers.engines import load_pipeline
        source = load_pipeline(repo, device="cpu", revision=revision).source
        found[-1]["source"] = {"name": source.name, "commit": source.commit}
print(json.dumps(found))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    server = serve(tmp_path / "hub-content")
    yield server
    server.shutdown()
    server.server_close()


def run(code: str, *arguments: Any, cwd: Path, cache: Path, hub: Server, **environment: str) -> Any:
    """The JSON that `code` prints, run where this project is not importable unless it makes it so."""
    kept = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_write", "HF_HOME": str(cache), "PYTHONPATH": sysconfig.get_path("purelib")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_revisions(hub: Server, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    wave = tmp_path / "wave.npy"
    np.save(wave, noise(1.0))
    made = run(
        WRITE, REPOSITORY, tiny_whisper_encoder_dir, tiny_llama_dir, wave,
        cwd=tmp_path, cache=tmp_path / "writer", hub=hub,
    )  # fmt: skip
    assert made["first"]["llm"] != made["second"]["llm"]
    assert abs(made["first"]["sum"] / made["second"]["sum"] - 1) > 1e-3
    for base in ("acme/llama", "acme/whisper"):
        hub.store.move_head(base, "model.safetensors", b"broken")
    wanted = [("acme/adapter", "first", "first"), ("acme/adapter", "main", "second"), ("acme/whole", "first", "first"),
              ("acme/whole", made["second"]["acme/whole"], "second"),
              ("acme/adapter", made["first"]["acme/adapter"], "first")]  # fmt: skip

    def check(mode: str, **environment: str) -> None:
        pairs = json.dumps([(repo, revision) for repo, revision, _ in wanted])
        found = run(READ, mode, wave, pairs, cwd=tmp_path / "away", cache=tmp_path / "reader", hub=hub, **environment)
        for (repo, revision, name), result in zip(wanted, found, strict=True):
            case = f"{repo}@{revision}, {mode}"
            assert result["sums"] == pytest.approx([made[name]["sum"]] * 2, rel=1e-5), case
            assert result["llm"] == [made[name]["llm"]] * 2, case
            assert result["code"] == (["package"] if mode == "package" else [name]), case
            assert result["name"] == repo, case
            if mode == "package":
                assert result["source"] == {"name": repo, "commit": made[name][repo]}, case

    (tmp_path / "away").mkdir()
    check("remote code")
    asked = len(hub.store.log)
    check("remote code", HF_HUB_OFFLINE="1")
    assert len(hub.store.log) == asked
    check("package", PYTHONPATH=f"{REPOSITORY}{os.pathsep}{sysconfig.get_path('purelib')}")


# Publishes a model in both forms and loads them as a stranger does, without a revision.
PUBLISH_AND_LOAD = """
import sys
from huggingface_hub import HfApi
from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
api = HfApi()
for name, folder in {"acme/whisper": sys.argv[1], "acme/llama": sys.argv[2]}.items():
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=folder)
model = Model.from_base_models("acme/whisper", "acme/llama", projector_hidden_size=32, lora={"r": 4, "lora_alpha": 8})
for form in ("adapter", "standalone"):
    api.create_repo(f"acme/{form}")
    model.save_pretrained(form, checkpoint_form=form)
    api.upload_folder(repo_id=f"acme/{form}", folder_path=form)
    Model.from_pretrained(f"acme/{form}")
"""


def test_all_files_are_of_one_commit(
    hub: Server, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """A commit that lands while a model is loaded cannot mix its configuration with other weights."""
    environment = {"HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_write", "HF_HOME": str(tmp_path / "cache"),
                   "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH_AND_LOAD, str(tiny_whisper_encoder_dir), str(tiny_llama_dir)],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    read = [entry["path"] for entry in hub.store.log if "/resolve" in entry["path"]]
    for name in ("adapter", "standalone", "whisper", "llama"):
        own = [path for path in read if f"/acme/{name}/" in path]
        assert any(path.endswith(".safetensors") for path in own), own
        by_branch = {path.rpartition("/")[2] for path in own if "/resolve/main/" in path}
        assert by_branch == {"config.json"}, f"{name}: {by_branch} were read from whatever main names then"
