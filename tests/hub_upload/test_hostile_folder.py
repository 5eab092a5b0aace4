"""What a hostile model folder or card cannot bring into what is published."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hub_upload.build import BuildOptions, build_folder, source_to_load, write_card
from hub_upload.card import CardOptions, local_texts
from hub_upload.checks import check_folder
from hub_upload.client import ConflictError, PublishError
from hub_upload.facts import read_depth_rows, read_limits
from hub_upload.foreign import foreign_metadata
from hub_upload.markdown import fences
from hub_upload.published import CODE, PACKAGE, WEIGHTS, loaded_files
from hub_upload.push import CARD_LIMIT, describe_changes, remote_card
from hub_upload.remote import FileHash, RepoState
from hub_upload.user_text import extract
from modeling_slam_asr.configuration_slam_asr import AUTO_MAP
from trainers.credentials import EMAIL, find_emails, find_tokens
from trainers.errors import UserError
from trainers.provenance import model_fingerprint

FOREIGN = {"AutoProcessor": "evil/repo--processing_slam_asr.SlamAsrProcessor"}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_code_is_the_packages_and_no_settings_file_names_foreign_code(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "evil_slam_asr.py").write_text("import os")
    (model_folder / "windows_slam_asr.py").write_text("import os")
    edit(model_folder / "processor_config.json", auto_map=FOREIGN)
    edit(model_folder / "tokenizer_config.json", auto_map=FOREIGN)
    edit(model_folder / "generation_config.json", custom_generate="evil/repo")
    config = json.loads((model_folder / "config.json").read_text())
    config["text_config"]["auto_map"] = FOREIGN
    own = {key: f"evil/repo--{value}" for key, value in AUTO_MAP.items()}
    edit(model_folder / "config.json", auto_map=own, text_config=config["text_config"])
    build_folder(model_folder, tmp_path / "built", BuildOptions())
    built = loaded_files(tmp_path / "built", CODE)
    assert {path.name: path.read_bytes() for path in built} == {
        path.name: path.read_bytes() for path in loaded_files(PACKAGE, CODE)
    }
    assert not [path for path in (tmp_path / "built").glob("*.json") if "evil" in path.read_text()]
    assert json.loads((tmp_path / "built" / "config.json").read_text())["auto_map"] == AUTO_MAP
    told = describe_changes(model_folder, tmp_path / "built") or ""
    for name in ("evil_slam_asr.py", "windows_slam_asr.py", "tokenizer_config.json (auto_map)", "text_config.auto_map"):
        assert name in told


def test_a_kernel_of_a_repository_is_refused_by_name(model_folder: Path, tmp_path: Path) -> None:
    edit(model_folder / "generation_config.json", _attn_implementation="org/kernel")
    with pytest.raises(PublishError, match=r"generation_config.json cannot be published: .*'org/kernel'"):
        build_folder(model_folder, tmp_path / "built", BuildOptions())


@pytest.mark.parametrize("name", ["limits.json", "recipe.yaml", "training.json", "publication.json", "results.json"])
def test_evidence_behind_a_link_is_refused(model_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "private").write_text("{}")
    (model_folder / name).unlink(missing_ok=True)
    (model_folder / name).symlink_to(tmp_path / "private")
    with pytest.raises(PublishError, match=f"{name} is a link to a file outside"):
        build_folder(model_folder, tmp_path / "built", BuildOptions())


def limits(**batch: Any) -> dict[str, Any]:
    figures = {"recordings": 4, "same_transcripts": 4, "largest_logit_difference": 0.0, **batch}
    return {"model_fingerprint": "0" * 64, "max_seconds": 30, "silence": [], "noise": [], "batch": figures}


def test_of_evidence_only_known_keys_are_published(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "limits.json").write_text(json.dumps({**limits(host="laptop"), "speakers": ["jane"]}))
    for name, value in (("training", {"steps": 3}), ("publication", {"conversion": "x"})):
        (model_folder / f"{name}.json").write_text(json.dumps({**value, "speakers": ["jane"]}))
    build_folder(model_folder, tmp_path / "built", BuildOptions())
    published = [
        json.loads((tmp_path / "built" / f"{name}.json").read_text()) for name in ("limits", "training", "publication")
    ]
    assert published == [limits(), {"steps": 3}, {"conversion": "x"}]


def test_limits_and_results_of_another_shape_are_told(tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text(json.dumps(limits(recordings="4\n```python")))
    with pytest.raises(UserError, match="is no number"):
        read_limits(tmp_path, "0" * 64)
    for text in ("[1, 2]", '{"results": 5}', "3", "[" * 200_000):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            read_depth_rows(tmp_path / "results.json")


def test_lines_of_many_findings_take_linear_time() -> None:
    text = "a@b.org\n" * 50_000
    assert [leak.line for leak in find_emails(text)] == list(range(1, 50_001))


def test_long_hostile_text_takes_linear_time() -> None:
    for piece in (
        "<!-- user text: a",
        "<!-- user text: notes (as of none) -->",
        "<!-- end of user text",
        "(as of none",
    ):
        body = "x" + piece * (500_000 // len(piece))
        try:
            extract(body, "the card")
        except ConflictError as error:
            assert "damaged" in str(error)
    for text in (
        "a." * 100_000,
        "a" * 200_000,
        "-----BEGIN " * 20_000,
        "sk-" + "a-" * 100_000,
        "sk-" * 60_000,
        "%61" * 60_000,
    ):
        assert not EMAIL.search(text) and not list(find_tokens(text))


def test_a_card_of_more_than_a_mebibyte_is_not_read() -> None:
    state = RepoState(True, head="0" * 40, tree={"README.md": FileHash(CARD_LIMIT + 1, None, None)})
    with pytest.raises(ConflictError, match="Shorten it"):
        remote_card(None, "acme/tiny", state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "count"),
    [("```\nx\n~~~", 1), ("````\nx\n```", 1), ("```\nx\n````", 2), ("~~~ a`b\n```\n~~~", 2), ("```x```", 0), ("```\n```py", 1)],
)  # fmt: skip
def test_a_fence_is_closed_by_its_own_kind(text: str, count: int) -> None:
    assert len(fences(text)) == count


@pytest.mark.parametrize("key", ["to_dict", "to_yaml", "_to_dict", "get", "pop", "self", "__class__"])
def test_metadata_with_the_name_of_a_method_is_dropped(key: str) -> None:
    assert foreign_metadata(f"---\n{key}: 1\ntags: 5\nthumbnail: a\n---\n", "the card") == {"thumbnail": "a"}


@pytest.mark.parametrize("text", ["-----BEGIN PGP PRIVATE KEY BLOCK-----", "Authorization: Basic YWxpY2U6aHVudGVyMg=="])
def test_further_secrets(text: str) -> None:
    assert list(find_tokens(text))


@pytest.mark.parametrize("name", ["repetition_penalty", "ctc_weight"])
def test_settings_of_other_kinds_are_one_line(model_folder: Path, name: str) -> None:
    edit(model_folder / "generation_config.json", **{name: "much"})
    with pytest.raises(UserError, match=f"has {name}='much', which is not possible"):
        write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))


def test_a_card_that_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("über".encode("latin-1"))
    with pytest.raises(UserError, match=r"README\.md is no text in UTF-8 \(.* at byte 0\)"):
        local_texts(tmp_path)


def test_the_source_is_loaded_with_the_packages_code(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "processing_slam_asr.py").write_text("raise SystemExit")
    made = source_to_load(model_folder, tmp_path / "made")
    code = {path.name: path.read_bytes() for path in loaded_files(PACKAGE, CODE)}
    assert {path.name: path.read_bytes() for path in loaded_files(made, CODE)} == code
    assert (made / "model.safetensors").resolve() == (model_folder / "model.safetensors").resolve()


@pytest.mark.parametrize("denied", [("symlink",), ("symlink", "link")])
def test_weights_are_found_where_links_are_not_to_be_had(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: tuple[str, ...]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("[WinError 1314] A required privilege is not held by the client")

    for name in denied:
        monkeypatch.setattr(os, name, refuse)
    made = source_to_load(model_folder, tmp_path / "made")
    assert not (made / "model.safetensors").is_symlink()
    assert (made / "model.safetensors").read_bytes() == (model_folder / "model.safetensors").read_bytes()


def test_other_weights_than_a_models_are_not_published(model_folder: Path) -> None:
    for name in ("private_speakers.safetensors", "anna_lora/adapter_model.safetensors", "model-extra.safetensors"):
        (model_folder / name).parent.mkdir(exist_ok=True)
        (model_folder / name).write_bytes((model_folder / "model.safetensors").read_bytes())
    assert [path.relative_to(model_folder).as_posix() for path in loaded_files(model_folder, WEIGHTS)] == [
        "model.safetensors"
    ]


def test_a_secret_in_a_tensors_or_a_files_name_is_found(tmp_path: Path) -> None:
    token = "hf_" + "a1B2c3D4" * 3
    save_file({f"projector.{token}": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert any("Hugging Face token" in str(finding) for finding in check_folder(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "jane.doe@example.org.json").write_text("{}")
    assert any("e-mail" in str(finding) for finding in check_folder(tmp_path))


def test_a_deep_card_is_refused_at_once() -> None:
    with pytest.raises(ConflictError, match="nested too deep"):
        foreign_metadata(f"---\na: {'[' * 50_000}\n---\n", "the card")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("evaluation/metrics.json", {"by_language": [1]}),
        ("evaluation/metrics.json", {"hits": float("inf")}),
        ("evaluation/metrics.json", {"utterances": "x"}),
        ("publication.json", {"published_fingerprint": None}),
        ("config.json", {"lora": [[["a"]]]}),
    ],
)
def test_evidence_of_other_kinds_is_one_line(model_folder: Path, name: str, changes: dict[str, Any]) -> None:
    if name == "publication.json":
        changes = {"published_fingerprint": model_fingerprint(model_folder)}
        (model_folder / name).write_text("{}")
    edit(model_folder / name, **changes)
    with pytest.raises((UserError, ValueError)) as caught:
        write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))
    assert not isinstance(caught.value, UnicodeError) and len(str(caught.value)) < 1500
