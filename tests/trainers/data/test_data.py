"""Reading utterances from every source, and what is left out."""

import csv
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, Features, Value
from huggingface_hub.utils import httpx
from torch.utils.data import DataLoader

from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.sources import detect_format, load_source
from trainers.data.spec import DataSpec
from trainers.data.streaming import SpeechStream
from trainers.errors import UserError

RATE = 16_000


def spec(dataset: Any, **options: Any) -> DataSpec:
    return DataSpec(dataset=str(dataset), **{"min_duration": 0.1, **options})


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def corpus(tiny_audio_dir: Path, tmp_path: Path) -> Path:
    """A private copy of the tones that a test may damage."""
    return Path(shutil.copytree(tiny_audio_dir, tmp_path / "corpus"))


@pytest.fixture(scope="module")
def hub_folder(tiny_audio_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training split as a data set of the Hub has it: parquet with the sound inside."""
    folder = tmp_path_factory.mktemp("hub") / "data"
    folder.mkdir()
    rows = read_jsonl(tiny_audio_dir / "train" / "manifest.jsonl")
    audio = [{"bytes": (tiny_audio_dir / "train" / row["audio"]).read_bytes(), "path": row["audio"]} for row in rows]
    dataset = Dataset.from_dict(
        {"speech": audio, "sentence": [row["text"] for row in rows], "client_id": [row["speaker_id"] for row in rows]},
        features=Features(
            {
                "speech": {"bytes": Value("binary"), "path": Value("string")},
                "sentence": Value("string"),
                "client_id": Value("string"),
            }
        ),
    )
    dataset = dataset.cast_column("speech", Audio(decode=False))
    dataset.to_parquet(folder / "train-00000-of-00001.parquet")
    dataset.save_to_disk(folder.parent / "saved")
    return folder


@pytest.fixture(scope="module")
def common_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tar files of mp3 with their tsv, in the layout of release 22; the last clip of the tsv is in neither."""
    root = tmp_path_factory.mktemp("cv")
    (root / "transcript" / "da").mkdir(parents=True)
    archives = root / "audio" / "da" / "train"
    archives.mkdir(parents=True)
    names = [f"common_voice_da_{index}.mp3" for index in range(5)]
    for shard, members in enumerate((names[:2], names[2:4])):
        with tarfile.open(archives / f"da_train_{shard}.tar", "w") as tar:
            for name in members:
                tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * 48_000) / 48_000)
                data = io.BytesIO()
                soundfile.write(data, tone, 48_000, format="MP3")
                member = tarfile.TarInfo(f"da_train_{shard}/{name}")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)
    with (root / "transcript" / "da" / "train.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar=None, quotechar=None)
        writer.writerow(["client_id", "path", "sentence", "up_votes"])
        for index, name in enumerate(names):
            writer.writerow([f"c{index % 2}", name, f'Sætning "nummer {index}.', "2"])
    return root


def test_manifest_audio_folder_and_hub_give_the_same_rows(tiny_audio_dir: Path, hub_folder: Path) -> None:
    manifest, _ = prepare([spec(tiny_audio_dir / "train" / "manifest.jsonl")], "train", quiet=True)
    folder, _ = prepare([spec(tiny_audio_dir)], "train", quiet=True)
    hub, _ = prepare([spec(hub_folder)], "train", quiet=True)
    for other in (folder, hub):
        assert other["text"] == manifest["text"]
        assert other["speaker_id"] == manifest["speaker_id"]
        assert other["transcript"] == manifest["transcript"]
        assert np.allclose(other["seconds"], manifest["seconds"])
        assert np.array_equal(read_audio(other[3]), read_audio(manifest[3]))
    assert manifest[0]["text"][0].isupper() and manifest[0]["text"].endswith(".")
    assert manifest[0]["transcript"] == manifest[0]["text"].lower().rstrip(".")


def test_common_voice_reads_clips_inside_their_archives(common_voice: Path) -> None:
    assert detect_format(spec(common_voice)) == "common_voice"
    dataset, report = prepare([spec(common_voice, language="da")], "train", quiet=True, max_bad_fraction=0.3)
    assert len(dataset) == 4
    assert report.dropped == {"damaged": 1}  # the clip that no archive holds
    assert dataset["transcript"][0] == "sætning nummer 0"
    assert dataset["speaker_id"] == ["c0", "c1", "c0", "c1"]
    assert all(abs(seconds - 2) < 0.1 for seconds in dataset["seconds"])
    assert read_audio(dataset[3]).dtype == np.float32
    one, _ = prepare([spec(common_voice, language="da", max_shards=1)], "train", quiet=True)
    assert len(one) == 2


def test_common_voice_names_what_is_missing(common_voice: Path) -> None:
    with pytest.raises(UserError, match="needs a language"):
        load_source(spec(common_voice))
    with pytest.raises(UserError, match=r"Splits there: train"):
        load_source(spec(common_voice, language="da", split="test"))
    with pytest.raises(UserError, match="has no column 'words'"):
        load_source(spec(common_voice, language="da", text_column="words"))


def test_a_split_column_in_the_metadata(corpus: Path) -> None:
    rows = list(csv.DictReader((corpus / "train" / "metadata.csv").open(encoding="utf-8")))
    with (corpus / "train" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        writer.writerows({**row, "split": "dev" if index < 3 else "train"} for index, row in enumerate(rows))
    assert len(load_source(spec(corpus / "train", split="validation"))) == 3
    assert len(load_source(spec(corpus / "train"))) == 13
    with pytest.raises(UserError, match="Splits there: dev, train"):
        load_source(spec(corpus / "train", split="test"))


def test_metadata_at_the_root_of_split_folders(corpus: Path) -> None:
    rows = list(csv.DictReader((corpus / "train" / "metadata.csv").open(encoding="utf-8")))
    for folder in corpus.iterdir():
        (folder / "metadata.csv").unlink(missing_ok=True)
    shutil.copytree(corpus / "train", corpus / "test", dirs_exist_ok=True)
    splits = ["test" if index < 3 else "train" for index in range(len(rows))]
    for column in (True, False):  # the split by column, and by folder alone
        with (corpus / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], *(["split"] if column else [])])
            writer.writeheader()
            for row, split in zip(rows, splits, strict=True):
                more = {"split": split} if column else {}
                writer.writerow({**row, "file_name": f"{split}/{row['file_name']}", **more})
        assert [len(load_source(spec(corpus, split=split))) for split in ("train", "test")] == [len(rows) - 3, 3]


def test_a_folder_that_datasets_cannot_build_is_explained(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.json").write_text('{"text": "x"}\n{"text": ', encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        load_source(spec(tmp_path / "set"))


@pytest.mark.parametrize("name", ["manifest", "folder", "hub"])
def test_a_missing_named_column_is_named_with_those_there(name: str, tiny_audio_dir: Path, hub_folder: Path) -> None:
    places = {"manifest": tiny_audio_dir / "train" / "manifest.jsonl", "folder": tiny_audio_dir, "hub": hub_folder}
    with pytest.raises(UserError, match=r"has no column 'transcripton' \(text_column\).*The columns there: "):
        load_source(spec(places[name], text_column="transcripton"))


def test_bad_places_and_lines_are_explained(tiny_audio_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_source(spec(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="does not exist"):
        load_source(spec(tmp_path / "none"))
    with pytest.raises(UserError, match=r"Splits there: test, train"):
        load_source(spec(tiny_audio_dir, split="dev"))
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "x"}\n{"audio": \n', encoding="utf-8")
    with pytest.raises(UserError, match="Line 2"):
        load_source(spec(path))
    path.write_text('{"audio": "a.wav", "text": "x"}\n{"audio": "b.wav"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="row 2 has no 'text'"):
        load_source(spec(path))


def damage(corpus: Path, count: int) -> None:
    """Break the first `count` training files, each in another way."""
    ways = (b"this is no sound", b"", None)
    for index in range(count):
        path = corpus / "train" / f"train-{index:02d}.wav"
        data = ways[index % 3]
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


def test_damaged_files_are_counted_listed_and_skipped(corpus: Path, tmp_path: Path) -> None:
    damage(corpus, 3)
    samples = np.full(RATE, np.nan, dtype=np.float32)
    soundfile.write(corpus / "train" / "train-03.wav", samples, RATE, subtype="FLOAT")
    out = tmp_path / "out"
    dataset, report = prepare([spec(corpus)], "train", max_bad_fraction=0.25, output_dir=out, quiet=True)
    assert len(dataset) == 12
    assert report.dropped == {"damaged": 4}
    assert report.as_dict()["rows"] == 16
    listed = read_jsonl(out / "bad_files.jsonl")
    assert [row["id"] for row in listed] == [f"train-{index:02d}.wav" for index in range(4)]
    assert all(row["role"] == "train" and row["error"] for row in listed)
    assert "NaN" in listed[3]["error"]


def test_half_a_recording_is_damaged(corpus: Path, tmp_path: Path) -> None:
    """Its transcript would be that of the whole."""
    path = corpus / "train" / "train-05.wav"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dataset, report = prepare([spec(corpus)], "train", max_bad_fraction=0.1, output_dir=tmp_path / "out", quiet=True)
    assert len(dataset) == 15 and report.dropped == {"damaged": 1}
    (listed,) = read_jsonl(tmp_path / "out" / "bad_files.jsonl")
    assert listed["id"] == "train-05.wav" and "is cut short" in listed["error"]


def test_too_many_damaged_files_stop_the_run(corpus: Path, tmp_path: Path) -> None:
    damage(corpus, 3)
    with pytest.raises(UserError, match=r"3 of 16 train recordings of .* cannot be read.*bad_files.jsonl"):
        prepare([spec(corpus)], "train", output_dir=tmp_path / "out", quiet=True)
    assert len(read_jsonl(tmp_path / "out" / "bad_files.jsonl")) == 3


@pytest.mark.parametrize("way", ["damaged", "too long"])
def test_a_source_that_is_lost_beside_a_larger_one_is_an_error(
    way: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one's own recordings beside the sounds without a word: the run would hear the others alone."""
    monkeypatch.setenv("SLAM_ASR_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own.jsonl"
    rows = [{"audio": str(corpus / "train" / "train-00.wav" if way == "too long" else "gone.wav"), "text": "en"}]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    specs = [DataSpec(str(own), min_duration=0.0, max_duration=0.01), DataSpec("non_speech", max_samples=120)]
    said = "1 of 1 train recordings of .*own.jsonl.* cannot" if way == "damaged" else "of .*own.jsonl.*: 1 longer than"
    with pytest.raises(UserError, match=said):
        prepare(specs, "train", quiet=True)
    if way == "damaged":
        with pytest.raises(UserError, match=r"own\.jsonl.* is left for train: 1 damaged"):
            prepare(specs, "train", quiet=True, max_bad_fraction=1.0)


def test_the_scan_is_used_again_where_the_sound_is_the_same(corpus: Path, tmp_path: Path) -> None:
    first, _ = prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)
    kept = read_jsonl(tmp_path / "scan-train.jsonl")
    for row in kept:  # what no reading would find
        row["duration"] = 7.25
    (tmp_path / "scan-train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    changed = corpus / "train" / "train-04.wav"
    before = changed.stat()
    content = bytearray(changed.read_bytes())
    content[-2:] = b"\x01\x02"
    changed.write_bytes(content)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same name, size and time
    second, _ = prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)
    assert second["seconds"] == [first["seconds"][4] if index == 4 else 7.25 for index in range(16)]


def test_a_data_set_that_changed_under_its_names_is_measured_again(corpus: Path, tmp_path: Path) -> None:
    prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)
    soundfile.write(corpus / "train" / "train-00.wav", np.full(5 * RATE, 0.01), RATE)
    dataset, _ = prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)
    assert dataset["seconds"][0] == 5.0
    (corpus / "train" / "train-01.wav").unlink()  # gone since: one damaged row
    dataset, report = prepare([spec(corpus)], "train", output_dir=tmp_path, max_bad_fraction=0.1, quiet=True)
    assert report.dropped == {"damaged": 1} and "train-01.wav" not in dataset["id"]


def test_mended_files_are_looked_at_again(corpus: Path, tmp_path: Path) -> None:
    whole = (corpus / "train" / "train-00.wav").read_bytes()
    damage(corpus, 2)
    with pytest.raises(UserError, match="2 of 16 train recordings"):
        prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)
    (corpus / "train" / "train-00.wav").write_bytes(whole)
    dataset, report = prepare([spec(corpus)], "train", output_dir=tmp_path, max_bad_fraction=0.1, quiet=True)
    assert len(dataset) == 15 and report.dropped == {"damaged": 1}
    assert [row["id"] for row in read_jsonl(tmp_path / "bad_files.jsonl")] == ["train-01.wav"]


@pytest.mark.parametrize("content", ["{", "[1]\n", '{"id": "x", "length": 3}\n', "\x00"])
def test_a_foreign_scan_is_made_anew(corpus: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "scan-train.jsonl").write_text(content, encoding="utf-8")
    assert len(prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)[0]) == 16
    assert len(read_jsonl(tmp_path / "scan-train.jsonl")) == 16


def test_a_scan_of_headers_is_no_scan_of_sound(corpus: Path, tmp_path: Path) -> None:
    samples = np.full(RATE, np.nan, dtype=np.float32)
    soundfile.write(corpus / "train" / "train-03.wav", samples, RATE, subtype="FLOAT")
    prepare([spec(corpus, verify="header")], "train", output_dir=tmp_path, quiet=True)
    with pytest.raises(UserError, match="NaN"):
        prepare([spec(corpus)], "train", output_dir=tmp_path, quiet=True)


def test_headers_are_enough_when_asked(corpus: Path) -> None:
    measured, _ = prepare([spec(corpus)], "train", quiet=True)
    stated, _ = prepare([spec(corpus, verify="header")], "train", quiet=True)
    assert np.allclose(measured["seconds"], stated["seconds"])
    damage(corpus, 1)
    with pytest.raises(UserError, match="cannot be read"):
        prepare([spec(corpus, verify="header")], "train", quiet=True)


def test_filters_are_counted(corpus: Path) -> None:
    with (corpus / "train" / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write("train-00.wav,...,da,s\n")
    options = {"min_duration": 0.3, "max_duration": 1.2, "max_characters": 14}
    dataset, report = prepare([spec(corpus, **options)], "train", quiet=True)
    assert report.rows == 17
    assert report.dropped["shorter than 0.3 s"] == 4 + 1  # one word each, and the row without text
    assert report.dropped["longer than 1.2 s"] == 3
    assert sum(report.dropped.values()) + len(dataset) == 17
    assert all(len(text) <= 14 for text in dataset["transcript"])
    textless, counted = prepare([spec(corpus, min_duration=0.1)], "train", quiet=True)
    assert counted.dropped == {"without text": 1} and len(textless) == 16


def test_nothing_left_is_an_error(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"No utterance of .* is left for train: 16 shorter than 5 s"):
        prepare([spec(corpus, min_duration=5)], "train", quiet=True)


def test_a_seeded_choice(tiny_audio_dir: Path) -> None:
    def choice(seed: int, **limits: Any) -> list[str]:
        return list(prepare([spec(tiny_audio_dir, **limits)], "train", seed=seed, quiet=True)[0]["id"])

    assert len(choice(1, max_samples=5)) == 5
    assert choice(1, max_samples=5) == choice(1, max_samples=5) != choice(2, max_samples=5)
    hours, report = prepare([spec(tiny_audio_dir, max_hours=4 / 3600)], "train", quiet=True)
    assert sum(hours["seconds"]) <= 4 and report.dropped["beyond max_samples or max_hours"] == 16 - len(hours)


def test_several_sources_are_joined_and_ids_stay_apart(tiny_audio_dir: Path, hub_folder: Path) -> None:
    sources = [spec(tiny_audio_dir), spec(tiny_audio_dir / "train" / "manifest.jsonl"), spec(hub_folder)]
    dataset, report = prepare(sources, "train", quiet=True)
    assert len(dataset) == report.kept == 48
    assert len(set(dataset["id"])) == 48
    assert dataset["id"][16] == "train-00.wav#2"
    assert np.array_equal(read_audio(dataset[16]), read_audio(dataset[0]))


def test_a_stream_yields_prepared_rows(hub_folder: Path) -> None:
    hub_folder = hub_folder.parent / "saved"
    stream = SpeechStream(spec(hub_folder, streaming=True), seed=1, max_bad_fraction=0.01)
    rows = [row for row, _ in zip(stream, range(20), strict=False)]
    assert len({row["id"] for row in rows[:16]}) == 16
    assert rows[16]["epoch"] == 1  # it begins again, in another order
    assert rows[0].keys() >= {"audio", "transcript", "seconds", "text"}
    again = SpeechStream(spec(hub_folder, streaming=True), seed=1, max_bad_fraction=0.01)
    assert [row["id"] for row, _ in zip(again, range(20), strict=False)] == [row["id"] for row in rows]


@pytest.mark.parametrize("files", [1, 4])
def test_workers_share_a_stream_out(files: int, hub_folder: Path, tmp_path: Path) -> None:
    """Every row comes once an epoch, however many files and workers there are."""
    whole = Dataset.from_parquet(str(next(hub_folder.glob("*.parquet"))), cache_dir=str(tmp_path / "cache"))
    (tmp_path / "stream").mkdir()
    for number in range(files):
        whole.shard(files, number).to_parquet(tmp_path / "stream" / f"train-{number:05d}-of-{files:05d}.parquet")
    stream = SpeechStream(spec(tmp_path / "stream", streaming=True), seed=1, max_bad_fraction=0.01)
    rows = [row for row, _ in zip(DataLoader(stream, batch_size=None, num_workers=2), range(16), strict=False)]
    assert len({row["audio"]["path"] for row in rows}) == 16 and {row["epoch"] for row in rows} == {0}


def test_classes_have_names_and_corals_speakers_are_known(tiny_audio_dir: Path, tmp_path: Path) -> None:
    clips = sorted((tiny_audio_dir / "train").glob("*.wav"))[:3]
    columns = {"audio": [{"bytes": clip.read_bytes(), "path": None} for clip in clips], "text": ["en to"] * 3}
    told = {
        "language": [1, 1, -1],
        "gender": [0, 1, None],
        "id_speaker": ["a", "b", "b"],
        "id_recording": ["x", "y", "z"],
    }
    features = {
        "audio": {"bytes": Value("binary"), "path": Value("string")}, "text": Value("string"),
        "language": ClassLabel(names=["en", "nl"]), "gender": ClassLabel(names=["female", "male"]),
        "id_speaker": Value("string"), "id_recording": Value("string"),
    }  # fmt: skip
    saved = Dataset.from_dict({**columns, **told}, features=Features(features))
    saved.cast_column("audio", Audio(decode=False)).save_to_disk(tmp_path / "saved")
    rows = load_source(spec(tmp_path / "saved"))
    assert list(rows["language"]) == ["nl", "nl", None] and list(rows["speaker_id"]) == ["a", "b", "b"]
    assert list(rows["details"]) == ['{"gender": "female"}', '{"gender": "male"}', None]
    streamed = SpeechStream(spec(tmp_path / "saved", streaming=True), seed=1, max_bad_fraction=0.01)
    assert {row["id"]: row["language"] for row, _ in zip(streamed, range(3), strict=False)} == {
        "x": "nl", "y": "nl", "z": None
    }  # fmt: skip


def test_the_hub_error_is_one_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'nobody/nothing'.*cannot be read"):
        load_source(spec("nobody/nothing", format="hub"))


def test_no_network_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_tree", unreachable)
    with pytest.raises(UserError, match=r"cannot be reached \(\[Errno -2\] Name"):
        load_source(spec("fsicoli/common_voice_22_0", format="common_voice", language="da"))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'nobody/nothing'.*cannot be read"):
        load_source(spec("nobody/nothing", format="hub"))


def test_only_data_sets_of_the_hub_are_streamed(tiny_audio_dir: Path) -> None:
    for place in (tiny_audio_dir, tiny_audio_dir / "train" / "manifest.jsonl"):
        with pytest.raises(UserError, match="streaming is for data sets of the Hub"):
            SpeechStream(spec(place, streaming=True), seed=1, max_bad_fraction=0.01)


def test_published_name_shows_no_path(tmp_path: Path) -> None:
    manifest = tmp_path / "mine" / "test.jsonl"
    manifest.parent.mkdir()
    manifest.touch()
    assert DataSpec(dataset=str(manifest), split="test").published_name() == {"name": "test.jsonl"}
    hub = DataSpec(dataset="fixie-ai/common_voice_17_0", config="da", split="test", revision="abc")
    assert hub.published_name() == {
        "name": "fixie-ai/common_voice_17_0", "config": "da", "split": "test", "revision": "abc",
    }  # fmt: skip
