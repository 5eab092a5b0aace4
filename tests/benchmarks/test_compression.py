"""The benchmark of compression on a tiny model: the same model with all frames and with those that its head keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ctc_head import read_rows
from benchmarks.ctc_head.compression import Given, encoded, floors, load, prefill, training_batches
from trainers.data.rows import read_audio


@pytest.fixture
def given(make_tiny_model: Callable[..., Any], tiny_processor: Any, tiny_audio_dir: Path, tmp_path: Path) -> Given:
    """The benchmark's settings, of a tiny model that compresses."""
    pieces = {token for text in ("en to", "tre fire fem") for token in tiny_processor.transcript_ids(text)[:-1]}
    model = make_tiny_model(
        projector_ctc=True, projector_ctc_tokens=sorted(pieces), projector_compress="blank", projector_compress_keep=0.9
    )
    model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return {
        "model": str(tmp_path / "model"), "data": [f"{tiny_audio_dir / 'test' / 'manifest.jsonl'}:test"], "language": "da",
        "utterances": 6, "threads": 1, "steps": 2, "dtype": "float32",
    }  # fmt: skip


def test_compression_is_measured_against_all_frames_of_the_same_model(given: Given) -> None:
    pipe, kind = load(given)
    rows = read_rows(given["data"], given["utterances"])
    assert kind == "blank" and len(rows) > 2
    batches = [encoded(pipe, [read_audio(row)], None, "da") for row in rows]
    found = prefill(pipe, kind, batches)
    asked = [int((batch["input_ids"] == pipe.model.config.audio_token_id).sum()) for batch in batches]
    assert found["all"]["audio_embeddings"] == pytest.approx(sum(asked) / len(asked), abs=1e-3)
    assert found["compressed"]["audio_embeddings"] < found["all"]["audio_embeddings"]
    prompt = {mode: row["positions"] - row["audio_embeddings"] for mode, row in found.items()}
    assert prompt["all"] == pytest.approx(prompt["compressed"], abs=1e-3)


def test_training_batches_have_states_and_labels(given: Given) -> None:
    pipe, kind = load(given)
    (batch,) = training_batches(pipe, given, read_rows(given["data"], given["utterances"]))
    pipe.model.train()
    losses = []
    for compress in (None, kind):
        pipe.model.config.projector_compress = compress
        losses.append(float(pipe.model(**batch).loss.detach()))
    assert losses[0] > 0 and losses[0] != losses[1]


def test_floors_are_scored(given: Given) -> None:
    pipe, _ = load(given)
    found = floors(pipe, given, read_rows(given["data"], given["utterances"]), [0.99, 0.01])
    assert list(found) == ["0.99", "0.01"]
    assert all(row["reference_words"] > 0 and row["wer"] > 0 for row in found.values())


def test_a_model_that_does_not_compress_is_told_so(given: Given, make_tiny_model: Callable[..., Any]) -> None:
    make_tiny_model().save_pretrained(given["model"])
    with pytest.raises(SystemExit, match="does not compress"):
        load(given)
