"""Comparison of systems: what was fixed and broken, and that the report says what the figures say."""

import json
from typing import Any

import numpy as np
import pytest

from trainers.errors import UserError
from trainers.evaluation import compare
from trainers.evaluation.alignment import align_words, count_operations
from trainers.evaluation.bootstrap import BootstrapSettings, make_blocks
from trainers.evaluation.comparison_report import render_comparison, verdict, write_comparison
from trainers.evaluation.transitions import (
    changed_examples,
    error_type_changes,
    utterance_transitions,
    word_transitions,
)

VOCABULARY = ["de", "het", "een", "kat", "hond", "huis", "boom", "loopt", "staat", "groen"]


def system(seed: int, rate: float, utterances: int = 150, **extra: Any) -> list[dict[str, Any]]:
    """Rows with random errors at `rate`; the references are the same for every seed."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    rows = []
    for i in range(utterances):
        words = list(fixed.choice(VOCABULARY, 8))
        heard = [str(rng.choice(VOCABULARY)) if rng.random() < rate else w for w in words]
        rows.append({"id": str(i), "reference": " ".join(words), "prediction": " ".join(heard), **extra})
    return rows


def test_utterance_transitions() -> None:
    result = utterance_transitions([1, 0, 2, 3, 1, 0], [0, 1, 1, 4, 1, 0])
    assert (result["fixed"], result["broken"], result["kept_right"], result["kept_wrong"]) == (1, 1, 1, 3)
    assert [result[f"kept_wrong_{k}"] for k in ("improved", "worsened", "same")] == [1, 1, 1]
    assert result["mcnemar_p_value"] == 1


def test_changes_by_error_type() -> None:
    references = ["a b c", "a b c", "a b c"]
    first = align_words(references, ["a x c", "a b", "a b c d e"])
    second = align_words(references, ["a b c", "a", "a b c d"])
    changes = error_type_changes(
        count_operations(first), count_operations(second), make_blocks(3), BootstrapSettings(200)
    )
    assert [(changes[k]["a"], changes[k]["b"]) for k in ("substitutions", "deletions", "insertions", "all")] == [
        (1, 0), (1, 2), (2, 1), (4, 3),
    ]  # fmt: skip
    assert changes["all"]["change"] == pytest.approx(-1 / 9)
    assert changes["substitutions"]["utterances"]["fixed"] == 1
    assert changes["deletions"]["utterances"]["kept_wrong_worsened"] == 1
    assert changes["insertions"]["relative_change"] == -0.5
    words = word_transitions(first, second)
    assert words["substituted"]["right"] == 1 and words["deleted"]["deleted"] == 1 and words["right"]["deleted"] == 1
    assert sum(sum(row.values()) for row in words.values()) == 9
    examples = changed_examples(first, second, ["1", "2", "3"])
    assert [e["id"] for e in examples["improved"]] == ["1", "3"]
    assert [e["id"] for e in examples["worsened"]] == ["2"]


def test_a_clear_difference_is_found_and_said(tmp_path: Any) -> None:
    comparison = compare({"base": system(1, 0.3), "lora": system(2, 0.1)}, language="nl", bootstrap=500)
    (pair,) = comparison["comparisons"]
    assert pair["differs"] and pair["paired_bootstrap"]["difference_ci"][1] < 0
    assert verdict(pair, 0.05).startswith("lora is better: lora minus base is -")
    path = write_comparison(tmp_path, comparison)
    assert json.loads((tmp_path / "comparison.json").read_text())["comparisons"][0]["differs"] is True
    text = path.read_text()
    assert "lora is better" in text and "| base → lora |" in text and "MAPSSWE" in text


def test_changes_by_kind_of_word_add_up() -> None:
    comparison = compare(
        {"a": system(1, 0.3), "b": system(2, 0.1)},
        normalizer="none",
        bootstrap=100,
        word_counts={"kat": 3, "boom": 500},
    )
    (pair,) = comparison["comparisons"]
    for rows in pair["word_changes"].values():
        assert sum(row["a"] for row in rows) == sum(pair["error_types"][k]["a"] for k in ("substitutions", "deletions"))
        assert sum(row["words"] for row in rows) == 1200
    frequency = {row["bin"]: row for row in pair["word_changes"]["by_frequency"]}
    assert set(frequency) == {"0", "2-4", "100 or more"}
    rare = frequency["2-4"]
    assert rare["change"] == pytest.approx((rare["b"] - rare["a"]) / rare["words"])
    assert rare["change_ci"][0] < rare["change"] < rare["change_ci"][1]


def test_no_difference_names_what_could_be_found() -> None:
    comparison = compare({"a": system(1, 0.2), "b": system(2, 0.2)}, normalizer="none", bootstrap=500)
    (pair,) = comparison["comparisons"]
    assert not pair["differs"]
    assert "would be found in 80 of 100 cases" in verdict(pair, 0.05)


def test_references_without_words_give_a_report_that_says_so(tmp_path: Any) -> None:
    rows = [{"id": str(i), "reference": "", "prediction": said} for i, said in enumerate(("", "hond"))]
    comparison = compare({"a": rows, "b": rows}, normalizer="none", bootstrap=100)
    (pair,) = comparison["comparisons"]
    assert not pair["differs"]
    assert "The references hold no words" in write_comparison(tmp_path, comparison).read_text()


def test_three_systems_are_all_paired_and_corrected() -> None:
    systems = {"a": system(1, 0.3), "b": system(2, 0.25), "c": system(3, 0.1)}
    comparison = compare(systems, normalizer="none", bootstrap=300)
    pairs = comparison["comparisons"]
    assert [(p["a"], p["b"]) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in ("paired_bootstrap", "matched_pairs"):
        assert all(p[test]["p_value_holm"] >= p[test]["p_value"] for p in pairs)
        smallest = min(pairs, key=lambda p: p[test]["p_value"])[test]
        assert smallest["p_value_holm"] == pytest.approx(min(1, 3 * smallest["p_value"]))
    assert "## b → c" in render_comparison(comparison)


def test_order_of_rows_does_not_matter_and_speakers_are_blocks() -> None:
    first, second = system(1, 0.3), system(2, 0.1)
    for i, row in enumerate(first):
        row["speaker_id"] = f"s{i % 12}"
    one = compare({"a": first, "b": second}, normalizer="none", bootstrap=200)
    other = compare({"a": first, "b": second[::-1]}, normalizer="none", bootstrap=200)
    assert one == other
    assert (one["bootstrap"]["unit"], one["bootstrap"]["blocks"]) == ("speaker", 12)


def test_text_scorer_adds_the_language_prior() -> None:
    comparison = compare(
        {"a": system(1, 0.3), "b": system(2, 0.1)},
        normalizer="none",
        bootstrap=100,
        text_scorer=lambda texts: [-float(len(t)) for t in texts],
        most_prior_errors=50,
    )
    assert comparison["comparisons"][0]["language_prior"]["scored"] == 50
    assert "Is it the language prior?" in render_comparison(comparison)


def test_wrong_systems_are_user_errors() -> None:
    with pytest.raises(UserError, match="at least two systems, got 1"):
        compare({"a": system(1, 0.1)})
    with pytest.raises(UserError, match="a has 150 rows and b has 149: b lacks 1"):
        compare({"a": system(1, 0.1), "b": system(1, 0.1)[1:]})


def test_markdown_is_escaped() -> None:
    first, second = system(1, 0.3, 20), system(2, 0.1, 20)
    first[0] |= {"reference": "x | y <b> `c`", "prediction": "| [k](z)"}
    second[0] |= {"reference": "x | y <b> `c`", "prediction": "x | y <b> `c`"}
    text = render_comparison(compare({"a": first, "b": second}, normalizer="none", bootstrap=50))
    assert r"x \| y \<b> \`c\`" in text
