"""The manifest of an export: which files are vouched for, and which are checked before an engine reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainers.errors import UserError
from trainers.provenance import EXPORT_MANIFEST
from trainers.serving.manifest import FORMAT, files_of, read_manifest


@pytest.mark.parametrize(
    ("damaged", "refused", "read"),
    [
        ("audio/mel_filters.npy", ["onnx", "onnx-int8", "llm", "gguf-f16"], []),
        ("llm/tokenizer.json", ["onnx", "onnx-int8", "llm", "gguf-f16"], []),
        ("llm/model.safetensors", ["llm"], ["onnx", "gguf-f16"]),
        ("audio/audio.onnx.data", ["onnx"], ["onnx-int8", "llm"]),
        ("llm.f16.gguf", ["gguf-f16"], ["llm", "onnx"]),
    ],
)
def test_an_engine_s_files_are_checked_and_no_weights_of_others(
    damaged: str, refused: list[str], read: list[str], tmp_path: Path
) -> None:
    """Spectrogram and tokenizer are every engine's; weights are gigabytes, and read where they are used."""
    paths = {
        "onnx": "audio/audio.onnx",
        "onnx-int8": "audio/audio.int8.onnx",
        "llm": "llm",
        "gguf-f16": "llm.f16.gguf",
    }
    others = ["audio/audio.onnx.data", "audio/mel_filters.npy", "llm/tokenizer.json", "llm/model.safetensors"]
    for name in [*(path for path in paths.values() if path != "llm"), *others]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    content = {"format": FORMAT, "parts": {name: {"path": path} for name, path in paths.items()}}
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps({**content, "files": files_of(tmp_path)}))
    for part in paths:
        read_manifest(tmp_path, part)
    (tmp_path / damaged).write_bytes(damaged.encode().swapcase())
    for part in refused:
        with pytest.raises(UserError, match=f"{damaged} is not the file that was exported"):
            read_manifest(tmp_path, part)
    for part in read:
        read_manifest(tmp_path, part)


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc", "elsewhere", 5])
def test_a_part_lies_among_the_files_that_the_manifest_vouches_for(tmp_path: Path, path: Any) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "a.bin").write_bytes(b"a")
    files = files_of(tmp_path)
    manifest = {"format": FORMAT, "parts": {"llm": {"path": "llm"}}, "files": files}
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps(manifest))
    assert read_manifest(tmp_path, "llm")["files"] == files
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps({**manifest, "parts": {"llm": {"path": path}}}))
    with pytest.raises(UserError, match="which is none of its files"):
        read_manifest(tmp_path, "llm")
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(UserError, match="lists no files or parts"):
        read_manifest(tmp_path)
