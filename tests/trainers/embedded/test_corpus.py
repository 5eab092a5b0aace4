"""The synthesised corpus: manifests, reuse, completion, and independence of the number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from trainers.embedded.corpus import RECORD_NAME, Utterance, build_corpus, plan_utterances
from trainers.embedded.sentences import split_of
from trainers.embedded.speech import TEST_VARIANTS

SIZES = {"train": 9, "validation": 3, "test": 6}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_corpus(tmp_path_factory.mktemp("corpus"), SIZES, seed=1, processes=1)


def test_manifests_and_files(corpus: dict[str, Path]) -> None:
    for split, size in SIZES.items():
        rows = read(corpus[split])
        assert len(rows) == size == len({row["id"] for row in rows})
        assert [row["language"] for row in rows[:3]] == ["da", "nl", "en"]
        for row in rows:
            assert split_of(row["text"]) == split
            info = soundfile.info(corpus[split].parent / row["audio"])
            assert (info.samplerate, info.channels) == (16_000, 1)
            assert info.duration == pytest.approx(row["duration"], abs=1e-3)


def test_test_speakers_are_not_in_training(corpus: dict[str, Path]) -> None:
    variants = {split: {row["speaker_id"].split("+")[1] for row in read(path)} for split, path in corpus.items()}
    assert variants["test"] <= set(TEST_VARIANTS)
    assert not variants["test"] & (variants["train"] | variants["validation"])


def test_a_finished_corpus_is_used_again(corpus: dict[str, Path]) -> None:
    directory = corpus["train"].parent
    times = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    assert build_corpus(directory, SIZES, seed=1, processes=1) == corpus
    assert times == {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_an_interrupted_corpus_is_completed(tmp_path: Path, corpus: dict[str, Path]) -> None:
    manifests = build_corpus(tmp_path, SIZES, seed=1, processes=1)
    wanted = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    (tmp_path / RECORD_NAME).unlink()
    manifests["test"].unlink()
    for row in read(manifests["train"])[::2]:
        (tmp_path / row["audio"]).unlink()
    build_corpus(tmp_path, SIZES, seed=1, processes=1)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == wanted
    assert wanted["train.jsonl"] == corpus["train"].read_bytes()


def test_other_settings_make_another_corpus(tmp_path: Path) -> None:
    first = read(build_corpus(tmp_path, {"train": 3}, seed=1, processes=1)["train"])
    second = read(build_corpus(tmp_path, {"train": 3}, seed=2, processes=1)["train"])
    assert {row["text"] for row in first}.isdisjoint(row["text"] for row in second)
    assert {row["audio"] for row in first}.isdisjoint(row["audio"] for row in second)
    assert json.loads((tmp_path / RECORD_NAME).read_text(encoding="utf-8"))["seed"] == 2


def test_a_missing_recording_is_made_again(tmp_path: Path) -> None:
    manifest = build_corpus(tmp_path, {"train": 3}, processes=1)["train"]
    lost = tmp_path / read(manifest)[1]["audio"]
    content = lost.read_bytes()
    lost.unlink()
    build_corpus(tmp_path, {"train": 3}, processes=1)
    assert lost.read_bytes() == content


def test_processes_do_not_change_the_result(tmp_path: Path) -> None:
    one = build_corpus(tmp_path / "one", {"test": 102}, processes=1)["test"]
    two = build_corpus(tmp_path / "two", {"test": 102}, processes=2)["test"]
    assert one.read_bytes() == two.read_bytes()
    assert all(
        (one.parent / row["audio"]).read_bytes() == (two.parent / row["audio"]).read_bytes() for row in read(one)
    )


def test_one_language(tmp_path: Path) -> None:
    rows = read(build_corpus(tmp_path, {"train": 2}, languages=["nl"], processes=1)["train"])
    assert [row["language"] for row in rows] == ["nl", "nl"]


def test_plan_is_balanced_and_a_prefix_of_a_longer_one() -> None:
    plan = plan_utterances("train", 8, 0)
    assert [item.language for item in plan] == ["da", "nl", "en"] * 2 + ["da", "nl"]
    assert plan_utterances("train", 20, 0)[:8] == plan
    assert isinstance(plan[0], Utterance)
