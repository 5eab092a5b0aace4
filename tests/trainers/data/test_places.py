"""What a data set's rows may reach, and how much memory their sound may take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, Features, Value
from torch.utils.data import DataLoader

from tests.conftest import speak
from trainers.data.batching import EpochBatchSampler, EpochRows
from trainers.data.collator import SpeechCollator
from trainers.data.hub import place_row
from trainers.data.prepare import prepare
from trainers.data.rows import Utterance, read_audio
from trainers.data.spec import DataSpec


def outcome(place: Path, **options: Any) -> str:
    """The first error of a data set's only row, or `read`."""
    spec = DataSpec(str(place), min_duration=0.0, **options)
    try:
        prepare([spec], "train", quiet=True)
    except ValueError as error:
        return str(error)
    return "read"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A recording beside the data set's folder, which is `tmp_path / "set"`."""
    (tmp_path / "set").mkdir()
    soundfile.write(tmp_path / "secret.wav", speak(["en"]), 16_000)
    return tmp_path / "secret.wav"


def test_a_manifest_may_name_any_file_of_the_machine(outside: Path) -> None:
    manifest = outside.parent / "set" / "m.jsonl"
    for name in (str(outside), "../secret.wav"):
        manifest.write_text(json.dumps({"audio": name, "text": "x"}) + "\n")
        assert outcome(manifest) == "read"
        assert "outside of" in outcome(manifest, audio_root=str(outside.parent / "set"))
    manifest.write_text('{"audio": "secret.wav", "text": "x"}\n')
    assert outcome(manifest, audio_root=str(outside.parent)) == "read"


def test_a_table_that_windows_wrote(outside: Path) -> None:
    manifest = outside.parent / "set" / "m.csv"
    manifest.write_text("audio;text\n..\\secret.wav;x\n", encoding="utf-8-sig")
    assert outcome(manifest) == "read"
    assert "outside of" in outcome(manifest, audio_root=str(manifest.parent))


def test_a_folder_of_sound_alone_is_told_what_it_lacks(outside: Path) -> None:
    (outside.parent / "other.txt").write_text("x")
    said = outcome(outside.parent)
    assert "metadata.csv" in said and ".srt" in said and "'secret.wav'" in said and "torchcodec" not in said


def test_a_folder_names_files_inside_it(outside: Path) -> None:
    folder = outside.parent / "set"
    for name in (str(outside), "../secret.wav", "inner/../../secret.wav"):
        (folder / "metadata.csv").write_text(f"file_name,text\n{name},x\n")
        assert "outside of" in outcome(folder) and "audio_root" in outcome(folder)


@pytest.mark.parametrize("name", ["http://127.0.0.1:1/a.wav", "HTTPS://x/a.wav", "file:///etc/a.wav", "s3://b/a.wav"])
def test_no_address_is_fetched_for_a_row(outside: Path, name: str) -> None:
    manifest = outside.parent / "set" / "m.jsonl"
    manifest.write_text(json.dumps({"audio": name, "text": "x"}) + "\n")
    assert "not fetched" in outcome(manifest)
    with pytest.raises(ValueError, match="not fetched"):
        read_audio({"id": "a", "audio": {"bytes": None, "path": name}})


def test_rows_that_hold_names_in_place_of_sound(outside: Path) -> None:
    """A parquet file of a stranger names a file of this machine."""
    folder = outside.parent / "set"
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "text": Value("string")})
    rows = {"audio": [{"bytes": None, "path": str(outside)}], "text": ["x"]}
    dataset = Dataset.from_dict(rows, features=features).cast_column("audio", Audio(decode=False))
    dataset.to_parquet(folder / "train-00000-of-00001.parquet")
    assert "outside of" in outcome(folder)
    assert outcome(folder, audio_root=str(outside.parent)) == "read"
    row = place_row(
        DataSpec("somebody/set"), Utterance(id="a", audio=None, text="x"), {"bytes": None, "path": str(outside)}
    )
    assert row.audio is None and "in place of holding sound" in str(row.fault)


def test_a_sound_bomb_is_refused_unpacked(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "bomb.flac", "w", 16_000, 1, format="FLAC") as file:
        for _ in range(40):
            file.write(np.zeros(60 * 16_000, dtype=np.int16))
    (tmp_path / "m.jsonl").write_text('{"audio": "bomb.flac", "text": "x"}\n')
    assert "is left for train: 1 longer than 30 s" in outcome(tmp_path / "m.jsonl")  # longer than the data set's limit
    said = outcome(tmp_path / "m.jsonl", max_duration=float("inf"))
    assert "announces 2400 s of sound, 146 MiB unpacked" in said and "\n" not in said


def test_worker_processes_that_are_spawned(tiny_audio_dir: Path, tiny_processor: Any) -> None:
    """As on macOS and Windows, where a worker gets its data set and collator pickled."""
    rows, _ = prepare([DataSpec(str(tiny_audio_dir), min_duration=0.0)], "train", quiet=True)
    loader = DataLoader(
        EpochRows(rows),
        batch_sampler=EpochBatchSampler(len(rows), seed=1, batch_size=8),
        collate_fn=SpeechCollator(tiny_processor),
        num_workers=1,
        multiprocessing_context="spawn",
    )
    assert sorted(name for batch in loader for name in batch["ids"]) == sorted(rows["id"])
