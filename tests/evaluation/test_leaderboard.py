"""The Open ASR Leaderboard's protocol."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
