"""What must not be published is refused: by name, by content, in any kind of file."""

import base64
import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hub_upload.build import BuildOptions, build_folder
from hub_upload.checks import check_folder, refuse_unfit
from hub_upload.client import PublishError
from hub_upload.secrets import python_words

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zAbC"


def problems(folder: Path, **options: Any) -> str:
    return " ".join(str(finding) for finding in check_folder(folder, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "README.md").write_text(
        "# A model\n\nWord error rate 12 %, and/or better. See https://hf.co/a/b.\n"
    )
    return tmp_path / "content"


def test_a_finished_model_is_fit_once_it_is_built(finished_model: Path, tmp_path: Path) -> None:
    assert problems(finished_model, allow_local_bases=True) == ""
    build_folder(finished_model, tmp_path / "built", BuildOptions())
    assert problems(tmp_path / "built") == ""


def _torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def _object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("pytorch_model.bin", b"anything", "pickle"),
        ("weights.pt", _torch_bytes(), "pickle"),
        ("innocent.dat", _torch_bytes(), "pickle"),
        ("innocent.txt", pickle.dumps({"a": [1, 2]}), "pickle"),
        ("notes", pickle.dumps({"a": [1, 2]}, protocol=0), "pickle"),
        ("picture.png", pickle.dumps([1, 2, 3], protocol=5), "pickle"),
        ("array.npy", _object_array(), "NumPy"),
        ("data.json.gz", gzip.compress(b"{}", mtime=0), "archive"),
        ("hidden.dat", gzip.compress(b"{}", mtime=0), "archive"),
        ("optimizer.pt", b"x", "optimiser"),
        ("optimizer.safetensors", b"x", "optimiser"),
        ("training_args.bin", b"x", "trainer state"),
        ("rng_state_0.pth", b"x", "trainer state"),
        ("sub/scheduler.pt", b"x", "trainer state"),
        ("fake.safetensors", b"not safetensors at all", "no safetensors"),
    ],
)
def test_files_that_run_code_or_hide_content(folder: Path, name: str, data: bytes, said: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    assert said in problems(folder)


def test_optimiser_state_inside_safetensors(folder: Path) -> None:
    save_file({"projector.weight.exp_avg": torch.zeros(2)}, folder / "model.safetensors")
    assert "optimiser state" in problems(folder)


def test_a_weights_file_that_was_cut_short(folder: Path) -> None:
    save_file({"a": torch.zeros(100)}, folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    assert "cut short" in problems(folder)


SECRETS = [
    (f"token: {TOKEN}", "Hugging Face token"),
    ("ghp_" + "a1B2c3D4e5" * 4, "GitHub token"),
    ("key AKIAIOSFODNN7EXAMPLE", "AWS key"),
    ("OPENAI=sk-proj-abcdefghijklmnop1234567890", "API key"),
    ('{"wandb_api_key": "0123456789abcdef0123456789abcdef01234567"}', "credential"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ("https://user:secret@example.org/data", "password in an address"),
    ("Authorization: Bearer abcdef0123456789abcdef0123", "bearer token"),
    ("written by jane.doe@example.org", "e-mail"),
    ("data in /home/jane/corpus/train.tsv", "absolute path"),
    ('{"path": "/mnt/data/set"}', "absolute path"),
    ("dataset: /scratch/me/set.jsonl", "absolute path"),
    (r"C:\Users\jane\model", "absolute path"),
    ("file:///srv/models/a", "absolute path"),
    (r"\\server\share\set", "absolute path"),
]


@pytest.mark.parametrize(("text", "kind"), SECRETS, ids=[kind for _, kind in SECRETS])
@pytest.mark.parametrize("name", ["notes.txt", "recipe.yaml", "sub/deep/log.md", "helper.py", "page.html"])
def test_secrets_in_text(folder: Path, name: str, text: str, kind: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"# first line\n# {text}\n")
    found = problems(folder)
    assert kind in found and f"{name}:2" in found
    assert TOKEN not in found and "jane.doe@" not in found, "a message must not repeat the secret"


@pytest.mark.parametrize(("text", "kind"), SECRETS[:1] + SECRETS[8:10], ids=["token", "email", "path"])
def test_secrets_in_json_escapes_utf16_and_safetensors_metadata(folder: Path, text: str, kind: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    (folder / "metrics.json").write_text(f'{{"note": "{escaped}"}}')
    assert kind in problems(folder)
    (folder / "metrics.json").write_text(json.dumps({"note": text}).replace("/", "\\/"))
    assert kind in problems(folder)
    (folder / "metrics.json").write_text(f'{{"note": {json.dumps(text)}}}', encoding="utf-16")
    assert kind in problems(folder)
    (folder / "metrics.json").unlink()
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt", "note": text})
    assert kind in problems(folder)


def test_secrets_in_binary_files_across_a_read_boundary(folder: Path) -> None:
    (folder / "sound.wav").write_bytes(b"\0\xff" * 50 + TOKEN.encode() + b"\0" * 50)
    assert "Hugging Face token" in problems(folder)
    (folder / "sound.wav").write_bytes(b"\0" * ((1 << 24) - 10) + TOKEN.encode() + b"\0")
    assert "Hugging Face token" in problems(folder)
    (folder / "sound.wav").write_bytes(b"\0\xff jane.doe@example.org \0")
    assert "e-mail" in problems(folder)


def test_the_token_in_use_is_refused_whatever_its_shape(folder: Path) -> None:
    (folder / "notes.txt").write_text("my-odd-token")
    assert problems(folder) == ""
    assert "token in use" in problems(folder, own_token="my-odd-token")


def test_tokens_are_refused_even_in_files_that_are_never_published(folder: Path) -> None:
    (folder / "train.log").write_text(f"login with {TOKEN}; data in /home/jane/x")
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    found = problems(folder)
    assert "train.log" in found and ".env" in found and "absolute path" not in found


def test_checkpoints_and_predictions_of_a_run_stay_here_and_are_not_in_the_way(folder: Path) -> None:
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(_torch_bytes())
    (folder / "predictions.jsonl").write_text('{"audio": "/home/jane/a.wav"}\n')
    assert problems(folder) == ""


def test_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("private")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    assert "link" in problems(folder)


def test_ordinary_code_and_text_is_not_mistaken_for_secrets(folder: Path) -> None:
    (folder / "code.py").write_text(
        "import torch\n\n\n@torch.no_grad()\ndef f(a, b):\n    # scores = queries@keys.transpose\n"
        '    return a@b.mT, "https://huggingface.co/docs/hub", "a/b/c", "../x", "eos_token = </s>"\n'
    )
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"me@example.org": 1, "/home/x/y": 2}}}))
    (folder / "config.json").write_text(json.dumps({"pad_token": "<|endoftext|>", "token_id": 12, "sha": "a" * 40}))
    found = problems(folder)
    assert "code.py" not in found.replace("code.py:6", ""), found
    assert "tokenizer.json" not in found and "config.json" not in found
    assert "keys.transpose" in python_words((folder / "code.py").read_text()), "comments are read"


def test_base64_of_a_picture_is_no_secret(folder: Path) -> None:
    noise = base64.b64encode(np.random.default_rng(0).bytes(200_000)).decode()
    (folder / "page.html").write_text(f'<img src="data:image/png;base64,{noise}">')
    assert problems(folder) == ""


def adapter_config(**changes: Any) -> str:
    config = {
        "checkpoint_form": "adapter",
        "audio_model_id": "openai/whisper-small",
        "text_model_id": "Qwen/Qwen2.5-0.5B",
    }
    return json.dumps({**config, "audio_model_revision": "a" * 40, "text_model_revision": "b" * 40, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"audio_model_revision": "main"}, "not pinned"),
        ({"text_model_revision": None}, "not pinned"),
        ({"text_model_revision": "b" * 39}, "not pinned"),
        ({"audio_model_id": "/data/whisper"}, "--standalone"),
        ({"audio_model_id": None}, "--standalone"),
        ({"checkpoint_form": "standalone", "audio_model_revision": "main"}, "not pinned"),
        ({"checkpoint_form": "standalone", "audio_model_revision": None}, ""),
    ],
)
def test_base_models_must_be_pinned(folder: Path, changes: dict[str, Any], said: str) -> None:
    (folder / "config.json").write_text(adapter_config(**changes))
    found = problems(folder)
    assert said in found if said else not found


def test_everything_is_listed_at_once_and_without_a_word_of_the_secrets(folder: Path) -> None:
    (folder / "notes.txt").write_text(TOKEN)
    (folder / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(PublishError) as caught:
        refuse_unfit(folder)
    message = str(caught.value)
    assert "notes.txt" in message and "optimizer.pt" in message and TOKEN not in message


def test_an_archive_of_other_things_is_refused_too(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "hello")
    (folder / "extra").write_bytes(buffer.getvalue())
    assert "archive" in problems(folder)


def test_tampered_and_foreign_results_are_refused(model_folder: Path, change_metrics: Callable[..., None]) -> None:
    from hub_upload.facts import read_facts
    from trainers.errors import UserError

    cases: dict[str, dict[str, Any]] = {
        "not produced by": {"produced_by": None},
        "other weights": {"model_fingerprint": "0" * 64},
        "does not add up": {"wer": 0.01},
        "lies outside": {"wer_ci": [0.9, 0.95]},
    }
    for said, changes in cases.items():
        restore = (model_folder / "evaluation" / "metrics.json").read_text()
        change_metrics(model_folder, **changes)
        with pytest.raises(UserError, match=said):
            read_facts(model_folder)
        (model_folder / "evaluation" / "metrics.json").write_text(restore)
    with (model_folder / "evaluation" / "predictions.jsonl").open("a") as file:
        file.write('{"reference": "a", "prediction": "a"}\n')
    with pytest.raises(UserError, match="not the file"):
        read_facts(model_folder)


@pytest.fixture
def change_metrics() -> Callable[..., None]:
    def change(folder: Path, **changes: Any) -> None:
        path = folder / "evaluation" / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change
