"""The part of a recording that a row names, from the manifest to the feature cache."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.data.conftest import RATE, prepared, write
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.segments import bounds, part_of, seconds_of
from trainers.data.sources import load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.feature_cache.keys import audio_fingerprint


@pytest.mark.parametrize("verify", ["decode", "header"])
@pytest.mark.parametrize(
    "keys",
    [
        {"audio_filepath": "long.wav", "offset": 1.5, "duration": 2.0},
        {"audio": "long.wav", "start": 1.5, "end": 3.5, "duration": 6.0},
        {"audio": "long.wav", "begin_time": "1.5", "end_time": "3.5"},
        {"audio": "long.wav", "segment_start_ms": 1500, "segmentEndMs": 3500},
        {"path": "long.wav", "start_time": "00:00:01.5", "end_time": "0:03.5"},
        {"path": "long.wav", "start": "00:00:01,500", "end": "00:00:03,500"},
        {"audio": {"path": "long.wav", "start_time": 1.5, "end_time": 3.5}},
    ],
)
def test_the_part_is_read(long: Path, keys: dict[str, Any], verify: Any) -> None:
    dataset, report = prepared(write(long / "m.jsonl", {**keys, "text": "hej"}), verify=verify)
    assert report.dropped == {} and dataset["seconds"] == [2.0]
    whole = soundfile.read(long / "long.wav", dtype="float32")[0]
    assert np.array_equal(read_audio(dataset[0]), whole[24_000:56_000])
    assert "1.500-3.500" in dataset["id"][0]


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_packed_files_are_sought_in(long: Path, kind: str) -> None:
    row = {"audio": f"long.{kind}", "start": 2.0, "end": 4.0, "text": "x"}
    part = read_audio(prepared(write(long / "m.jsonl", row))[0][0])
    whole = read_audio({"id": "w", "audio": {"path": str(long / f"long.{kind}"), "bytes": None}})
    assert np.allclose(part, whole[32_000:64_000], atol=1e-4)


def test_bounds_that_cannot_be_are_counted_with_their_line(long: Path, tmp_path: Path) -> None:
    rows = [{"start": 5.0, "end": 7.0}, {"start": 3.0, "end": 3.0}, {"start": -2, "end": 1}, {"start": "soon"}]
    rows += [{"start": 5.0, "end": 6.05}, {"offset": 4.5}, {"end": 1.0}, {}]
    path = write(long / "m.jsonl", *({"audio": "long.wav", "text": "x", **row} for row in rows))
    spec = DataSpec(str(path), min_duration=0.0)
    dataset, report = prepare([spec], "train", quiet=True, max_bad_fraction=1.0, output_dir=tmp_path)
    assert dataset["seconds"] == [1.0, 1.5, 1.0, 6.0] and report.dropped == {"damaged": 4}
    errors = [row["error"] for row in report.bad_files]
    assert "has 6.00 s, and the part from 5 s to 7 s" in errors[0]
    assert all(f"Line {line} of {path}" in errors[line - 1] for line in (2, 3, 4))


@pytest.mark.parametrize(
    "key", [{"start_frame": 100}, {"frame_offset": 1600}, {"word_start": 1.0}, {"segment": [1.0, 2.0]}]
)
def test_a_key_that_is_not_known_is_refused_by_name(long: Path, key: dict[str, Any]) -> None:
    path = write(long / "m.jsonl", {"audio": "long.wav", "text": "x", **key})
    with pytest.raises(UserError, match=f"Line 1 of .*{next(iter(key))}"):
        load_source(DataSpec(str(path)))
    assert prepared(path, segments="ignore")[0]["seconds"] == [6.0]


def test_keys_that_name_no_part_are_left_alone(long: Path) -> None:
    row = {
        "audio": "long.wav",
        "text": "x",
        "start_date": "2020-01-01",
        "to": "en",
        "num_frames": 96_000,
        "words": [1, 2],
    }
    assert prepared(write(long / "m.jsonl", {**row, "start_time": "2020-01-01T10:00"}))[0]["seconds"] == [6.0]


def test_a_length_that_does_not_fit_is_told(long: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset, _ = prepared(write(long / "m.jsonl", {"audio": "long.wav", "text": "x", "duration": 2.0}))
    assert dataset["seconds"] == [6.0] and "longer than their rows' `duration`" in caplog.text
    nemo, _ = prepared(write(long / "m.jsonl", {"audio_filepath": "long.wav", "text": "x", "duration": 2.0}))
    assert nemo["seconds"] == [2.0]  # as NeMo reads it


def test_the_cache_tells_parts_apart(long: Path) -> None:
    rows = [{"audio": "long.wav", "start": start, "end": start + 1, "text": "x"} for start in (0.0, 1.0)]
    rows += [{"audio": "long.wav", "text": "x"}]
    dataset, _ = prepared(write(long / "m.jsonl", *rows))
    assert len({audio_fingerprint(row) for row in dataset}) == 3


def test_a_channel(long: Path) -> None:
    rows = [{"audio": "two.wav", "channel": channel, "text": "x"} for channel in (0, 1, 2, "left", "R")]
    dataset, report = prepared(write(long / "m.jsonl", *rows))
    assert dataset["channel"] == [0, 1, 0, 1]
    assert np.allclose(read_audio(dataset[1]), -0.5 * read_audio(dataset[0]), atol=1e-3)
    assert report.dropped == {"damaged": 1} and "none of number 2" in report.bad_files[0]["error"]


@pytest.mark.parametrize("clips", [True, False])
def test_times_of_a_hub_data_set(long: Path, tmp_path: Path, clips: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Corpora there keep whole recordings with times, or clips with the times they had."""
    samples = soundfile.read(long / "long.wav")[0]
    sounds = []
    for index in (1, 2):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, samples[index * RATE : (index + 1) * RATE] if clips else samples, RATE)
        sounds.append({"bytes": path.read_bytes(), "path": path.name})
        path.unlink()
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "text": Value("string")})
    features.update({"begin_time": Value("float64"), "end_time": Value("float64")})
    columns = {"audio": sounds, "text": ["a", "b"], "begin_time": [1.0, 2.0], "end_time": [2.0, 3.0]}
    dataset = Dataset.from_dict(columns, features=features).cast_column("audio", Audio(decode=False))
    dataset.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    with caplog.at_level(logging.WARNING):
        rows, _ = prepared(tmp_path)
    assert rows["seconds"] == [1.0, 1.0]
    assert np.array_equal(read_audio(rows[1]), samples[2 * RATE : 3 * RATE].astype(np.float32))
    assert ("were cut from" in caplog.text) is clips


@given(
    start=st.floats(allow_nan=True) | st.text(max_size=8) | st.none() | st.booleans(),
    length=st.floats() | st.integers() | st.text(max_size=8) | st.none(),
    names=st.sampled_from([("offset", "duration"), ("start_ms", "duration_ms"), ("begin", "end"), ("xmin", "xmax")]),
)
def test_whatever_a_row_says_is_a_part_the_whole_or_a_fault(start: Any, length: Any, names: tuple[str, str]) -> None:
    part = part_of({names[0]: start, names[1]: length}, bounds(list(names)), "Line 1 of m", lengths=True)
    if part.fault is not None:
        assert part.fault.startswith("Line 1 of m") and part.whole
    elif part.whole:
        assert seconds_of(start) is None  # nothing said, then
    else:
        assert part.start >= 0 and not part.end <= part.start
