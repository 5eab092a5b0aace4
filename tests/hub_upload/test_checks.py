"""Only what is on the allow-list leaves; and of that, what must not be published is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hub_upload import published
from hub_upload.build import BuildOptions, build_folder
from hub_upload.checks import check_folder, refuse_unfit
from hub_upload.client import PublishError
from trainers.credentials import find_random, python_words
from trainers.errors import UserError
from trainers.files import read_jsonl, write_json, write_jsonl
from trainers.provenance import stamp
from trainers.results import RATES

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
    build_folder(finished_model, tmp_path / "built", BuildOptions())
    assert problems(tmp_path / "built") == ""


STRANGE = {
    "pytorch_model.bin": b"anything", "weights.pt": b"x", "innocent.dat": pickle.dumps([1]), "array.npy": b"x", "data.json.gz": b"x",
    "optimizer.pt": b"x", "training_args.bin": b"x", "sub/scheduler.pt": b"x", "train.log": TOKEN.encode(), ".env": TOKEN.encode(),
    "notes.txt": TOKEN.encode(), "picture.png": b"/home/jane/a", "bad_files.jsonl": b"{}", "evaluation/scan-test.jsonl": b"/home/jane/a",
    "evaluation/predictions.jsonl": b"{}", "evaluation/report.md": b"speaker7", "evaluation/report.html": b"speaker7",
    "checkpoint-10/model.safetensors": b"x", "checkpoint-10/metrics.json": b"{}", "best/metrics.json": b"{}", "helper.py": b"import os",
    ".hidden/metrics.json": b"{}", "trainer_state.json": b"{}", "language_model_lora/notes.md": b"x",
}  # fmt: skip


def test_nothing_but_the_allow_list_is_looked_at_or_sent(
    finished_model: Path, model_folder: Path, tmp_path: Path
) -> None:
    build_folder(finished_model, tmp_path / "clean", BuildOptions())
    (model_folder / "evaluation" / "predictions.jsonl").unlink()
    for name, data in STRANGE.items():
        (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (model_folder / name).write_bytes(data)
    (model_folder / "evaluation" / "predictions.jsonl").unlink()
    (model_folder / "unreadable.log").symlink_to("/proc/1/mem")
    build_folder(model_folder, tmp_path / "built", BuildOptions())
    assert problems(tmp_path / "built") == ""
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "clean", tmp_path / "built")
    ]
    assert names[0] == names[1] and not names[1] & STRANGE.keys()


def private_rows(folder: Path) -> None:
    """An evaluation of private rows, as `slam-asr evaluate` writes it."""
    from trainers.evaluation import evaluate_rows
    from trainers.files import write_json
    from trainers.provenance import stamp

    from .conftest import ROWS

    rows = [{**row, "speaker_id": "speaker-jane", "audio": f"/home/jane/clip-{row['id']}.wav"} for row in ROWS]
    metrics = evaluate_rows(rows, folder / "evaluation", bootstrap=50)
    assert "by_speaker" in metrics and "hunde" in json.dumps(metrics)
    write_json(
        folder / "evaluation" / "metrics.json", stamp(metrics, folder, folder / "evaluation" / "predictions.jsonl")
    )


def test_speakers_words_and_clips_of_private_rows_stay_here(model_folder: Path, tmp_path: Path) -> None:
    private_rows(model_folder)
    (model_folder / "evaluation" / "scan-test.jsonl").write_text('{"audio": "/home/jane/clip-1.wav"}\n')
    build_folder(model_folder, tmp_path / "built", BuildOptions())
    assert problems(tmp_path / "built") == ""
    everything = "".join(
        path.read_text() for path in (tmp_path / "built").rglob("*") if path.suffix in (".json", ".jsonl", ".md", ".yaml")
        and "token" not in path.name
    )  # fmt: skip
    for word in ("jane", "clip-1", "hunde", "vogel"):
        assert word not in everything, word
    metrics = json.loads((tmp_path / "built" / "evaluation" / "metrics.json").read_text())
    assert metrics["wer"] == 0.2 and metrics["by_language"]["da"]["deletions"] == 1
    build_folder(model_folder, tmp_path / "asked", BuildOptions(predictions=True))
    assert problems(tmp_path / "asked") == ""
    lines = (tmp_path / "asked" / "evaluation" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {
        "id": "2", "audio": "clip-2.wav", "reference": "de fire store hunde", "prediction": "de fire store", "language": "da",
        "duration": 2.5,
    }  # fmt: skip


def test_a_published_transcript_may_hold_a_line_separator(model_folder: Path, tmp_path: Path) -> None:
    rows = model_folder / "evaluation" / "predictions.jsonl"
    write_jsonl(rows, [row | {"reference": row["reference"].replace(" ", "\u2028")} for row in read_jsonl(rows)])
    metrics = model_folder / "evaluation" / "metrics.json"
    write_json(metrics, stamp(json.loads(metrics.read_text(encoding="utf-8")), model_folder, rows))
    build_folder(model_folder, tmp_path / "built", BuildOptions(predictions=True))
    published = read_jsonl(tmp_path / "built" / "evaluation" / "predictions.jsonl")
    assert [row["reference"] for row in published] == [row["reference"] for row in read_jsonl(rows)]


paths = st.sampled_from(["/home/jane/a/set.jsonl", "C:\\Users\\jane\\set", "/mnt/data", "plain", "a/b", "", "</s>"])
values = st.recursive(
    paths | st.integers() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text("ab"), one)
)


@given(values)
@settings(max_examples=50, deadline=None)
def test_no_absolute_path_is_left_in_any_value(value: Any) -> None:
    hidden = json.dumps(published.hide_paths(value))
    assert "jane" not in hidden and "/mnt" not in hidden


def test_optimiser_state_inside_safetensors(folder: Path) -> None:
    save_file({"projector.weight.exp_avg": torch.zeros(2)}, folder / "model.safetensors")
    assert "optimiser state" in problems(folder)


@pytest.mark.parametrize(
    "data", [b"not safetensors at all", pickle.dumps({"a": [1, 2]}), b"PK\x03\x04" + bytes(60), b""]
)
def test_what_is_only_called_safetensors(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    assert "no safetensors" in problems(folder)


@pytest.mark.parametrize("name", ["config.json", "merges.txt", "modeling_slam_asr.py", "vocab.json", "recipe.yaml"])
@pytest.mark.parametrize(
    "data", [pickle.dumps({"a": [1, 2]}, protocol=5), b"\x1f\x8b" + bytes(20), "ü".encode("utf-16")]
)
def test_binary_data_under_the_name_of_a_text(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    assert "no text in UTF-8" in problems(folder)


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
    ("sk_live_" + "a1B2c3D4e5F6g7H8", "payment service"),
    ("SG." + "a1B2c3D4e5F6g7H8i9" + "." + "a1B2c3D4e5F6g7H8i9", "mail or phone service"),
    ("SK" + "0123456789abcdef" * 2, "mail or phone service"),
    ("DefaultEndpointsProtocol=https;AccountKey=" + "a1B2c3D4" * 8, "Azure"),
    ("GOCSPX-" + "a1B2c3D4e5F6g7H8i9J0k1", "Google"),
    ("dop_v1_" + "0123456789abcdef" * 4, "cloud host"),
    ("hvs." + "a1B2c3D4e5F6g7H8i9J0k1L2", "cloud host"),
    ("r8_" + "a1B2c3D4e5F6g7H8i9J0k1L2", "model host"),
    ("gsk_" + "a1B2c3D4e5F6g7H8i9J0k1L2", "model host"),
    ("123456789:AA" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q", "chat service"),
    ("https://hooks.slack.com/services/T00/B00/x", "chat service"),
    ("lin_api_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6", "work service"),
    ("glsa_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6_12345678", "work service"),
    ("machine api.example.org login jane password s3cretWord", "password"),
    ("password: hunter2hunter", "password"),
    ("HRKU-" + "01234567-89ab-cdef-0123-456789abcdef", "cloud host"),
    ("wandb: " + "0123456789abcdef" * 2 + "01234567", "credential"),
    ("key zG7Kq2VbX9/LmT4RwYc8NdJ5hPf3sQ6aE/tU1vWx", "looks like a secret"),
    ("../../../home/jane/corpus", "absolute path"),
    ("~jane/corpus/train.tsv", "absolute path"),
    ("jane@cluster:/data/corpus", "absolute path"),
    ("x = zG7Kq2VbX9LmT4RwYc8NdJ5hPf3sQ6aE", "looks like a secret"),
]


@pytest.mark.parametrize(
    ("text", "kind"), SECRETS, ids=[f"{number}-{kind}" for number, (_, kind) in enumerate(SECRETS)]
)
@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "audio_slam_asr.py", "chat_template.jinja"])
def test_secrets_in_text(folder: Path, name: str, text: str, kind: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"# first line\n# {text}\n")
    found = problems(folder)
    assert kind in found and f"{name}:2" in found
    assert TOKEN not in found and "jane.doe@" not in found, "a message must not repeat the secret"


@pytest.mark.parametrize(("text", "kind"), SECRETS[:1] + SECRETS[8:10], ids=["token", "email", "path"])
def test_secrets_in_json_escapes_and_safetensors_metadata(folder: Path, text: str, kind: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    (folder / "metrics.json").write_text(f'{{"note": "{escaped}"}}')
    assert kind in problems(folder)
    (folder / "metrics.json").write_text(json.dumps({"note": text}).replace("/", "\\/"))
    assert kind in problems(folder)
    (folder / "metrics.json").unlink()
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt", "note": text})
    assert kind in problems(folder)


def test_secrets_in_a_binary_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"\0\xff" * 50 + TOKEN.encode() + b"\0" * 50)
    assert "Hugging Face token" in problems(folder)
    (folder / "tokenizer.model").write_bytes(b"\0\xff jane.doe@example.org \0")
    assert "e-mail" in problems(folder)


@pytest.mark.parametrize(
    "hide",
    [
        lambda token: "\u200b".join(token),
        lambda token: token[:9] + "\u00ad\u2060\ufe0f" + token[9:],
        lambda token: "".join(f"%{ord(letter):02X}" for letter in token),
        lambda token: "https://example.org/?t=" + token.replace("_", "%5f"),
    ],
    ids=["zero width", "soft hyphen", "percent", "underscore"],
)
@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "metrics.json", "audio_slam_asr.py"])
def test_secrets_that_are_written_to_be_overlooked(folder: Path, name: str, hide: Callable[[str], str]) -> None:
    (folder / name).write_text(f'{{"first":\n "{hide(TOKEN)}"}}\n')
    assert "Hugging Face token" in problems(folder) and TOKEN not in problems(folder)
    (folder / name).write_text(
        '{"first":\n "100 %25 of na\u00efve \U0001f469\u200d\U0001f680 users, sk-common_voice-22-2025-06-20"}\n'
    )
    assert problems(folder) == ""


def test_words_that_nobody_would_write() -> None:
    for harmless in (
        "a" * 40,
        "0123456789abcdef" * 4,
        "SlamAsrForConditionalGeneration2Processor",
        "cv-corpus-22.0-2025-06-20-da",
    ):
        assert not list(find_random(f"x: {harmless}")), harmless


def test_the_token_in_use_is_refused_whatever_its_shape(folder: Path) -> None:
    (folder / "README.md").write_text("my-odd-token")
    assert problems(folder) == ""
    assert "token in use" in problems(folder, own_token="my-odd-token")


def test_a_link_out_of_the_folder(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("private")
    (model_folder / "merges.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(PublishError, match="link to a file outside"):
        build_folder(model_folder, tmp_path / "built", BuildOptions())


def test_ordinary_code_and_text_is_not_mistaken_for_secrets(folder: Path) -> None:
    (folder / "code_slam_asr.py").write_text(
        "import torch\n\n\n@torch.no_grad()\ndef f(a, b):\n    # scores = queries@keys.transpose\n"
        '    return a@b.mT, "https://huggingface.co/docs/hub", "a/b/c", "../x", "eos_token = </s>"\n'
    )
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"me@example.org": 1, "/home/x/y": 2}}}))
    (folder / "config.json").write_text(json.dumps({"pad_token": "<|endoftext|>", "token_id": 12, "sha": "a" * 40}))
    found = problems(folder)
    assert "code_slam_asr.py" not in found.replace("code_slam_asr.py:6", ""), found
    assert "tokenizer.json" not in found and "config.json" not in found
    assert "keys.transpose" in python_words((folder / "code_slam_asr.py").read_text()), "comments are read"


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


def test_a_line_for_each_of_the_first_five_and_without_a_word_of_the_secrets(folder: Path) -> None:
    (folder / "README.md").write_text(f"{TOKEN}\n" * 7)
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(PublishError) as caught:
        refuse_unfit(folder, shown_as=Path("runs/mine"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("runs/mine holds") and len(lines) == 1 + 5 + 1 and lines[-1].strip() == "and 3 more"
    assert "README.md:1" in lines[1] and TOKEN not in str(caught.value)


def test_tampered_and_foreign_results_are_refused(model_folder: Path, change_metrics: Callable[..., None]) -> None:
    from hub_upload.facts import read_facts

    cases: dict[str, dict[str, Any]] = {
        "not produced by": {"produced_by": None},
        "other weights": {"model_fingerprint": "0" * 64},
        "does not add up": {"wer": 0.01},
        "lies outside": {"wer_ci": [0.9, 0.95]},
        **{f"{rate.key} is 'high', no number": {rate.key: "high"} for rate in RATES},
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
