"""Data sets of the Hub, read from a look-alike of it by a process of its own."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, Features, Value

from tests.hub_upload.lookalike import serve

CLIENT = """
import json, sys
from huggingface_hub import HfApi
api = HfApi()
for name, folder in json.loads(sys.argv[1]).items():
    api.create_repo(f"user/{name}", repo_type="dataset")
    api.upload_folder(repo_id=f"user/{name}", folder_path=folder, repo_type="dataset")

from trainers.data.common_voice import transcripts_only
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec
from trainers.data.streaming import SpeechStream
from trainers.errors import UserError

def read(dataset, **options):
    try:
        rows, _ = prepare([DataSpec(dataset, min_duration=0.1, **options)], "train", quiet=True)
    except UserError as error:
        return str(error)
    return [list(rows["transcript"]), [round(seconds, 3) for seconds in rows["seconds"]]]

voice = {"format": "common_voice", "language": "da"}
stream = SpeechStream(DataSpec("user/parquet", streaming=True, min_duration=0.1), seed=1, max_bad_fraction=0.0)
print(json.dumps({
    "parquet": read("user/parquet"),
    "loose": read("user/loose"),
    "loose test": read("user/loose", split="test"),
    "voice": read("user/voice", **voice),
    "one shard": read("user/voice", max_shards=1, **voice),
    "no language": read("user/voice", format="common_voice", language="xx"),
    "no split": read("user/parquet", split="dev"),
    "no repository": read("user/nothing"),
    "transcripts": len(transcripts_only(DataSpec("user/voice", **voice))),
    "stream": sorted(row["transcript"] for row, _ in zip(stream, range(4))),
}))
"""


def write_parquet(source: Path, folder: Path) -> None:
    lines = (source / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    rows = [json.loads(line) for line in lines]
    audio = [{"bytes": (source / row["audio"]).read_bytes(), "path": row["audio"]} for row in rows]
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "sentence": Value("string")})
    dataset = Dataset.from_dict({"audio": audio, "sentence": [row["text"] for row in rows]}, features=features)
    folder.mkdir(parents=True)
    dataset.cast_column("audio", Audio(decode=False)).to_parquet(folder / "train-00000-of-00001.parquet")


def write_common_voice(folder: Path) -> None:
    archives = folder / "audio" / "da" / "train"
    archives.mkdir(parents=True)
    (folder / "transcript" / "da").mkdir(parents=True)
    lines = ["client_id\tpath\tsentence"]
    for shard in range(2):
        name = f"common_voice_da_{shard}.mp3"
        data = io.BytesIO()
        soundfile.write(data, 0.3 * np.sin(np.arange(48_000) / 20), 48_000, format="MP3")
        member = tarfile.TarInfo(f"da_train_{shard}/{name}")
        member.size = data.tell()
        data.seek(0)
        with tarfile.open(archives / f"da_train_{shard}.tar", "w") as tar:
            tar.addfile(member, data)
        lines.append(f"c\t{name}\tSætning {shard}.")
    (folder / "transcript" / "da" / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def found(tiny_audio_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with an empty cache reads from the look-alike."""
    folder = tmp_path_factory.mktemp("hub")
    write_parquet(tiny_audio_dir / "train", folder / "parquet" / "data")
    write_common_voice(folder / "voice")
    server = serve(folder / "content")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {
        **kept,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "hf_write",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    folders = {"parquet": folder / "parquet", "voice": folder / "voice", "loose": tiny_audio_dir}
    arguments = json.dumps({name: str(path) for name, path in folders.items()})
    try:
        result = subprocess.run(
            [sys.executable, "-c", CLIENT, arguments],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert result.returncode == 0, result.stderr[-4000:]
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_parquet_and_a_stream(found: dict[str, Any], tiny_audio_dir: Path) -> None:
    lines = (tiny_audio_dir / "train" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert found["parquet"][0] == [row["text"].lower().rstrip(".") for row in rows[:4]]
    assert found["parquet"][1] == [round(row["duration"], 3) for row in rows[:4]]
    assert found["stream"] == sorted(found["parquet"][0])


def test_loose_sound_files(found: dict[str, Any]) -> None:
    assert (len(found["loose"][0]), len(found["loose test"][0])) == (16, 6)


def test_common_voice(found: dict[str, Any]) -> None:
    assert found["voice"][0] == ["sætning 0", "sætning 1"]
    assert found["one shard"][0] == ["sætning 0"]
    assert found["transcripts"] == 2


def test_what_is_not_there(found: dict[str, Any]) -> None:
    assert "no folder audio/xx/train/" in found["no language"]
    assert "split 'dev'" in found["no split"] and "train" in found["no split"]
    assert "'user/nothing'" in found["no repository"] and "hf auth login" in found["no repository"]
