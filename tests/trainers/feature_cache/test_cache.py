"""The feature cache: right states, never a wrong or half one."""

import json
import multiprocessing
import resource
import signal
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from datasets import Dataset

from modeling_slam_asr import SlamAsrForConditionalGeneration
from trainers.data.rows import read_audio
from trainers.errors import UserError
from trainers.feature_cache import FeatureCache, build_cache, depth_name, states_at, store


def _alone(model: Any, processor: Any, row: Any, depth: int) -> torch.Tensor:
    """States of one utterance by itself."""
    features = torch.from_numpy(processor.extract_features(read_audio(row)))[None]
    with torch.no_grad():
        return model.audio_encoder.hidden_states_at(features, None, [depth])[0][depth][0]


def test_states_are_those_of_the_encoder_alone(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    cache = build_cache(tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [0, 1, 2], **cache_options)
    assert cache.depths == ["0", "1", "2"] and len(cache) == len(tiny_rows)
    for depth in (0, 1, 2):
        rows = cache.dataset(depth)
        for index in (0, 4, 15):
            row = rows[index]
            assert "audio" not in row and row["transcript"] == tiny_rows[index]["transcript"]
            expected = _alone(tiny_model, tiny_processor, tiny_rows[index], depth)
            torch.testing.assert_close(row["encoder_hidden_states"], expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_the_rounded_state(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset
) -> None:
    cache = build_cache(tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [1], quiet=True)
    states = cache.states(3, 1)
    assert states.dtype == torch.bfloat16
    expected = _alone(tiny_model, tiny_processor, tiny_rows[3], 1)
    torch.testing.assert_close(states.float(), expected, atol=1e-4, rtol=2**-8)


def test_the_size_is_known_before_a_build(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset
) -> None:
    given = tiny_rows, tiny_model.audio_encoder, tiny_processor, [1]
    cache = build_cache(tmp_path, *given, quiet=True)
    nbytes = sum(shard.data.stat().st_size for shard in cache.shards)
    build_cache(tmp_path / "enough", *given, quiet=True, max_gigabytes=nbytes / 1e9)
    with pytest.raises(UserError, match="max_gigabytes"):
        build_cache(
            tmp_path / "too-little", *given, quiet=True, max_gigabytes=(nbytes - 1000) / 1e9
        )  # less than the file's header


def test_left_out_middle_blocks(tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset) -> None:
    features = torch.from_numpy(tiny_processor.extract_features(read_audio(tiny_rows[4])))[None]
    encoder = tiny_model.audio_encoder
    states, mask = states_at(encoder, features, None, [(1,), (0,), (), (0, 1)])
    with torch.no_grad():
        embedded, _ = encoder.embed(features)
        torch.testing.assert_close(states[(1,)], encoder.layers[1](embedded, None))
        torch.testing.assert_close(states[(0, 1)], encoder.layers[1](encoder.layers[0](embedded, None), None))
    assert set(states) == {(1,), (0,), (), (0, 1)} and mask.all()


def test_a_sequence_is_not_named_like_a_count() -> None:
    assert depth_name([0, 1, 2]) == depth_name(3) == "3"
    assert depth_name([0, 2]) == "blocks-0-2"
    assert depth_name([2]) != depth_name(2)


def test_second_build_reads_only(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    arguments = (tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [1, 2])
    first = build_cache(*arguments, **cache_options)
    stamps = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = build_cache(*arguments, **cache_options)
    assert {path.name: path.stat().st_mtime_ns for path in second.folder.iterdir()} == stamps


def test_key_follows_weights_depths_sound_and_settings(
    tmp_path: Path, make_tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    model = make_tiny_model()
    folders = [build_cache(tmp_path, tiny_rows, model.audio_encoder, tiny_processor, [1], **cache_options).folder]
    folders.append(build_cache(tmp_path, tiny_rows, model.audio_encoder, tiny_processor, [2], **cache_options).folder)
    with torch.no_grad():
        model.audio_encoder.layers[0].fc1.weight[0, 0] += 1e-3
    folders.append(build_cache(tmp_path, tiny_rows, model.audio_encoder, tiny_processor, [1], **cache_options).folder)
    fewer = tiny_rows.select(range(15))
    folders.append(build_cache(tmp_path, fewer, model.audio_encoder, tiny_processor, [1], **cache_options).folder)
    options = {**cache_options, "dtype": "bfloat16"}
    folders.append(build_cache(tmp_path, fewer, model.audio_encoder, tiny_processor, [1], **options).folder)
    assert len(set(folders)) == 5


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "delete", "record", "frames", "kind", "ends", "foreign", "meta"]
)
def test_damage_is_found_and_mended(
    damage: str,
    tmp_path: Path,
    tiny_model: Any,
    tiny_processor: Any,
    tiny_rows: Dataset,
    cache_options: dict[str, Any],
) -> None:
    cache_options = {**cache_options, "shard_bytes": 20_000}
    arguments = (tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [1, 2])
    cache = build_cache(*arguments, **cache_options)
    assert len(cache.shards) > 3
    whole = {index: cache.states(index, 2).clone() for index in range(len(cache))}
    shard = cache.shards[1]
    content = bytearray(shard.data.read_bytes())
    if damage == "truncate":
        shard.data.write_bytes(content[:-100])
    elif damage == "flip":
        content[-50] ^= 1
        shard.data.write_bytes(content)
    elif damage == "delete":
        shard.data.unlink()
    elif damage == "record":
        shard.record.write_text("{", encoding="utf-8")
    elif damage in ("frames", "kind"):
        record = json.loads(shard.record.read_text(encoding="utf-8"))
        record["frames"] = record["frames"][::-1] if damage == "frames" else [str(n) for n in record["frames"]]
        shard.record.write_text(json.dumps(record), encoding="utf-8")
    elif damage == "ends":
        meta = json.loads((cache.folder / "cache.json").read_text())
        (cache.folder / "cache.json").write_text(json.dumps({**meta, "shard_ends": [1.5, meta["rows"]]}))
    elif damage == "foreign":
        meta = json.loads((cache.folder / "cache.json").read_text())
        (cache.folder / "cache.json").write_text(json.dumps({**meta, "key": "0" * 64}))
    else:
        (cache.folder / "cache.json").write_bytes(b"\x00\xff")
    untouched = cache.shards[2].data.stat().st_mtime_ns
    mended = build_cache(*arguments, **cache_options)
    for index, states in whole.items():
        assert torch.equal(mended.states(index, 2), states)
    if damage not in ("ends", "foreign", "meta"):
        assert cache.shards[2].data.stat().st_mtime_ns == untouched


def test_few_pieces_are_open_at_once(
    tmp_path: Path,
    tiny_model: Any,
    tiny_processor: Any,
    tiny_rows: Dataset,
    cache_options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each holds a file descriptor; a cache of a large data set has thousands of pieces."""
    mapped = lru_cache(maxsize=2)(store._mapped.__wrapped__)
    monkeypatch.setattr(store, "_mapped", mapped)
    options = {**cache_options, "shard_bytes": 20_000}
    caches = [
        build_cache(tmp_path, rows, tiny_model.audio_encoder, tiny_processor, [1, 2], **options)
        for rows in (tiny_rows, tiny_rows.select(range(12)))
    ]
    assert all(len(cache.shards) > 3 for cache in caches)
    whole = [cache.states(index, 2) for cache in caches for index in range(len(cache))]
    before = psutil.Process().num_fds()
    again = [cache.states(index, 2) for cache in caches for index in range(len(cache))]
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    assert psutil.Process().num_fds() <= before
    assert mapped.cache_info().currsize == 2


def test_limits_and_mistakes(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    encoder = tiny_model.audio_encoder
    with pytest.raises(UserError, match="max_gigabytes=1e-06"):
        build_cache(tmp_path, tiny_rows, encoder, tiny_processor, [1], max_gigabytes=1e-6, **cache_options)
    assert not list(tmp_path.rglob("*.safetensors"))
    with pytest.raises(UserError, match="Depth 3 is not possible"):
        build_cache(tmp_path, tiny_rows, encoder, tiny_processor, [3], **cache_options)
    with pytest.raises(UserError, match="dtype is 'float16'"):
        build_cache(tmp_path, tiny_rows, encoder, tiny_processor, [1], dtype="float16")
    cache = build_cache(tmp_path, tiny_rows, encoder, tiny_processor, [1], **cache_options)
    with pytest.raises(UserError, match="holds the depths 1, not 2"):
        cache.dataset(2)


def test_rows_of_samples_need_no_files(tmp_path: Path, tiny_model: Any, tiny_processor: Any) -> None:
    rows = [
        {
            "id": str(n),
            "audio": np.random.default_rng(n).normal(0, 0.1, 4000 * (n + 1)).astype(np.float32),
            "text": "en",
        }
        for n in range(3)
    ]
    cache = build_cache(tmp_path, rows, tiny_model.audio_encoder, tiny_processor, [2], quiet=True)
    assert cache.lengths == [15, 25, 40]
    assert cache.dataset(2)[2]["encoder_hidden_states"].shape == (40, 32)
    assert cache.dataset(2)["text"] == ["en"] * 3


def _build_and_report(folder: Path, rows: Any, model_dir: Path, processor: Any, report: Path) -> None:
    torch.set_num_threads(1)  # as in the test's own process: another number may change the last bit of a sum
    model = SlamAsrForConditionalGeneration.from_pretrained(model_dir)
    options: dict[str, Any] = {"dtype": "float32", "quiet": True, "shard_bytes": 10_000, "batch_seconds": 0.1}
    cache = build_cache(folder, rows, model.audio_encoder, processor, [1, 2], **options)
    report.write_text(str(sum(cache.states(i, 2).double().abs().sum().item() for i in range(len(cache)))))


def test_two_processes_and_kill(tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    context = multiprocessing.get_context("spawn")

    def start(name: str) -> Any:
        arguments = (tmp_path / "cache", tiny_rows, tmp_path / "model", tiny_processor, tmp_path / name)
        process = context.Process(target=_build_and_report, args=arguments)
        process.start()
        return process

    killed = start("killed")
    deadline = time.monotonic() + 150
    while not list((tmp_path / "cache").glob("*/states-*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.kill()
    killed.join()
    together = [start("one"), start("two")]
    for process in together:
        process.join(150)
    assert [process.exitcode for process in together] == [0, 0]
    _build_and_report(tmp_path / "fresh", tiny_rows, tmp_path / "model", tiny_processor, tmp_path / "three")
    assert len({(tmp_path / name).read_text() for name in ("one", "two", "three")}) == 1
    assert not list((tmp_path / "cache").rglob(".*.partial"))


def test_full_disk_leaves_no_broken_cache(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    arguments = (tmp_path / "cache", tiny_rows, tmp_path / "model", tiny_processor, tmp_path / "report")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # a write beyond it fails like one to a full disk
    try:
        with pytest.raises(UserError, match=r"cannot be written.*free some space"):
            _build_and_report(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "cache").rglob(".*"))
    _build_and_report(*arguments)
    assert float((tmp_path / "report").read_text()) > 0


def test_cache_can_be_sent_to_workers(
    tmp_path: Path, tiny_model: Any, tiny_processor: Any, tiny_rows: Dataset, cache_options: dict[str, Any]
) -> None:
    import pickle

    cache = build_cache(tmp_path, tiny_rows, tiny_model.audio_encoder, tiny_processor, [1], **cache_options)
    before = cache.states(0, 1)
    copy: FeatureCache = pickle.loads(pickle.dumps(cache))
    assert torch.equal(copy.states(0, 1), before)
