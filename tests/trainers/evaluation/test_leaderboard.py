"""The Open ASR Leaderboard's protocol."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.cli import main
from trainers.errors import UserError
from trainers.evaluation import read_predictions
from trainers.evaluation.leaderboard import (
    compound_errors,
    join_acronyms,
    leaderboard_normalizer,
    leaderboard_score,
    write_manifest,
)

from .counting import count

ROWS: list[dict[str, Any]] = [
    {
        "reference": "The whitepaper's title, uhm, is OK.",
        "prediction": "the white paper s title is okay",
        "duration": 4.0,
    },
    {"reference": "B.B.C. news at 5 G", "prediction": "BBC news at 5G", "duration": 2.0},
    {"reference": "ignore_time_segment_in_scoring", "prediction": "whatever", "duration": 9.0},
    {"reference": "[noise]", "prediction": "hello", "duration": 9.0},
    {"reference": "one dog ran", "prediction": "one cat ran off", "duration": 2.0},
]


def test_normalizer() -> None:
    normalize = leaderboard_normalizer()
    assert normalize("Huh, John's colour isn't what's OK") == "john s color is not what is okay"
    assert normalize("He's been to the U.S.A.") == "he has been to the usa"


def test_acronyms() -> None:
    assert join_acronyms("the b b c and a b") == "the bbc and a b"
    assert join_acronyms("a i m is i b m") == "aim is ibm"
    assert join_acronyms("5 g") == "5g"


def test_score_drops_empty_references_and_joins_compounds() -> None:
    result = leaderboard_score([row | {"seconds": 0.5} for row in ROWS])
    assert (result["utterances"], result["ignored_utterances"]) == (3, 2)
    assert (result["errors"], result["reference_words"]) == (2, 6 + 4 + 3)
    assert result["wer"] == round(100 * 2 / 13, 2)
    assert result["rtfx"] == round(8.0 / 1.5, 2)
    assert leaderboard_score(ROWS)["rtfx"] is None
    with pytest.raises(UserError, match="Every reference is empty"):
        leaderboard_score([{"reference": "[noise]", "prediction": "a"}])


@pytest.mark.parametrize(
    ("reference", "prediction", "errors"),
    [
        ("white paper", "whitepaper", 0),
        ("a whitepaper", "a white paper", 0),
        ("x white paper", "y whitepaper", 1),
        ("abc", "a b c", 0),
        ("ab c", "a bc", 2),
        ("", "a b", 2),
    ],
)
def test_compound_errors(reference: str, prediction: str, errors: int) -> None:
    assert compound_errors(reference.split(), prediction.split()) == errors


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "ba"]), max_size=6),
    st.lists(st.sampled_from(["a", "b", "ab"]), max_size=6),
)
def test_joining_never_adds_errors(reference: list[str], prediction: list[str]) -> None:
    assert compound_errors(reference, prediction) <= sum(count(reference, prediction)[1:])


def test_manifest_has_the_scorers_name_and_columns_and_reads_back(tmp_path: Path) -> None:
    rows = [row | {"seconds": 0.5} for row in ROWS]
    path = write_manifest(tmp_path, rows, model_id="me/my-model", dataset="hf-audio/esb/ami", split="test")
    assert path.name == "MODEL_me-my-model_DATASET_hf-audio-esb-ami_test.jsonl"
    read = read_predictions(path)
    assert read[0]["audio"] == "sample_0"
    assert leaderboard_score(read) == leaderboard_score(rows)


def test_evaluate_by_the_protocol(
    tmp_path: Path, make_tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Utterances without reference words are not transcribed; the figures are those of the manifest it writes."""
    model, data, out = tmp_path / "model", tmp_path / "data.jsonl", tmp_path / "out"
    slow = make_tiny_model()
    slow.generation_config.num_beams = 3
    slow.save_pretrained(model)
    tiny_processor.save_pretrained(model)
    clips = sorted((tiny_audio_dir / "test").glob("*.wav"))[:4]
    texts = ["En to tre.", "[noise]", "Fire", "ignore_time_segment_in_scoring"]
    rows = [{"audio": str(clip), "text": text} for clip, text in zip(clips, texts, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["evaluate", str(model), "--dataset", str(data), "--protocol", "open-asr-leaderboard", "--device", "cpu"]
    assert main([*command, "--max-new-tokens", "6", "--resamples", "0", "--output-dir", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    board = metrics["leaderboard"]
    assert (board["utterances"], board["ignored_utterances"], board["reference_words"]) == (2, 2, 4)
    assert board["rtfx"] == pytest.approx(metrics["eval_rtfx"], abs=0.01)
    assert (metrics["decoding"]["num_beams"], metrics["decoding"]["max_new_tokens"]) == (1, 6)
    assert metrics["normalizer"] == "en"
    assert f"Open ASR Leaderboard protocol: WER {board['wer']:.2f} %" in capsys.readouterr().out
    manifest = out / "MODEL_local-model_DATASET_data.jsonl_test.jsonl"
    assert leaderboard_score(read_predictions(manifest)) == {**board, "ignored_utterances": 0}
    assert [json.loads(line)["audio_filepath"] for line in manifest.read_text().splitlines()] == [
        clips[0].name,
        clips[2].name,
    ]


@pytest.mark.parametrize(
    ("option", "message"), [(["--language", "nl"], "is for English"), (["--num-beams", "4"], "decodes greedily")]
)
def test_the_protocol_refuses(option: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "m", "--dataset", "d", "--protocol", "open-asr-leaderboard", *option]) != 0
    assert message in capsys.readouterr().err
