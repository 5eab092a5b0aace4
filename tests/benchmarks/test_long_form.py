"""The benchmark of long recordings tells what was lost, doubled and wrong, and what of it lies at the seams of windows."""

import pytest

from benchmarks.long_form import figures, seam_errors

SPOKEN = "the ship left the harbour at noon and nobody saw it again"


@pytest.mark.parametrize(
    ("windows", "substituted", "inserted", "deleted"),
    [
        (["the ship left the harbour", "at noon and nobody saw it again"], 0, 0, 0),
        (["the ship left the", "at noon and nobody saw it again"], 0, 0, 1),
        (["the ship left the harbour", "harbour at noon and nobody saw it again"], 0, 1, 0),
        (["the ship left the harbours", "at noon and nobody saw it again"], 1, 0, 0),
        (["the shop left the harbour", "at noon and nobody saw it"], 0, 0, 0),  # not at the seam
    ],
)
def test_errors_beside_a_seam(windows: list[str], substituted: int, inserted: int, deleted: int) -> None:
    assert seam_errors([(SPOKEN, windows)], "en") == {
        "seams": 1,
        "words": 2,
        "substituted": substituted,
        "inserted": inserted,
        "deleted": deleted,
    }


def test_a_recording_of_one_window_has_no_seam() -> None:
    assert seam_errors([(SPOKEN, [SPOKEN]), (SPOKEN, ["", SPOKEN, ""])], "en")["seams"] == 0


def test_a_window_of_one_word_lies_beside_two_seams_and_counts_once() -> None:
    found = seam_errors([(SPOKEN, ["the ship left the", "harbour", "at noon and nobody saw it again"])], "en")
    assert (found["seams"], found["words"]) == (2, 3)


def test_utterances_of_which_nothing_came_back_are_lost() -> None:
    spoken = ["the ship left", "nobody saw it", "again"]
    assert figures(spoken, ["the ship left again"], "en")["lost"] == 1
