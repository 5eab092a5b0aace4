"""The report's tables on healing and on test sets follow from the rows alone."""

from pathlib import Path
from typing import Any

import pytest

from trainers.study import plots
from trainers.study.against_plain import against_plain
from trainers.study.recipe import load_study
from trainers.study.report import render, results_table, sources_table

from .test_claims import row


def kept(prune: int, errors: int, **more: Any) -> dict[str, Any]:
    """A row with LoRA that keeps the first blocks."""
    return row((errors, 0, 0), prune=prune, lora=True, kept_encoder_layers=list(range(12 - prune)), **more)


def test_healed_and_elastic_runs_meet_the_plain_run_with_the_same_blocks() -> None:
    rows = [
        kept(2, 1000), kept(4, 2000), kept(2, 1000, seed=2),
        kept(2, 900, healing="encoder"), kept(4, 1000, healing="encoder"), kept(2, 1200, healing="elastic", seed=2),
        {**kept(4, 100, healing="encoder"), "kept_encoder_layers": [4, 5, 6, 7, 8, 9, 10, 11]},  # other blocks: no match
        row((10, 0, 0), prune=2, lora=False),  # without LoRA: no match
    ]  # fmt: skip
    table = against_plain(rows)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [(line[0], line[2], line[3], line[4], line[5], line[7]) for line in lines] == [
        ("encoder healed", "10", "10.0 %", "9.0 %", "-10.0 %", "1"),
        ("encoder healed", "8", "20.0 %", "10.0 %", "-50.0 %", "1"),
        ("encoder healed", "all", "15.0 %", "9.5 %", "-32.9 %", "2"),
        ("one elastic projector for all depths", "10", "10.0 %", "12.0 %", "+20.0 %", "1"),
    ]


def test_healed_runs_whose_dropped_blocks_are_listed() -> None:
    listed = {"prune_encoder_layers": [3, 7], "kept_encoder_layers": [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]}
    table = against_plain([{**kept(2, 1000), **listed}, {**kept(2, 900, healing="lora"), **listed}])
    assert table is not None and "| encoder healed by LoRA | Dutch | 10 | 10.0 % | 9.0 % | -10.0 % |" in table


def test_no_healed_run_is_no_table() -> None:
    assert against_plain([kept(2, 1000), kept(0, 500)]) is None


def test_test_sets_stand_in_columns_with_means_over_seeds() -> None:
    def sources(first: float) -> dict[str, Any]:
        return {
            "dev": {"wer": first, "wer_ci": [first - 0.1, first + 0.1], "reference_words": 70},
            "test": {"wer": 0.5, "wer_ci": None, "reference_words": 30},
        }

    rows = [kept(2, 1000, by_source=sources(0.2)), kept(2, 1000, seed=2, by_source=sources(0.4)), kept(4, 1000)]
    lines = sources_table(rows).splitlines()
    assert lines[0] == "| system | layers | dev (70 words) | test (30 words) |"
    assert lines[2] == "| LoRA | 10 | 30.0 % (20.0 to 40.0 %) | 50.0 % (none) |"
    assert lines[3] == "| LoRA | 8 |  |  |"


def test_a_test_set_without_words_has_no_rate() -> None:
    silent = {"sounds": {"wer": None, "wer_ci": None, "reference_words": 0}}
    cost = {"saving": 0.1, "eval_rtfx": 9.0, "train_seconds": 60.0}
    rows = [kept(2, 1000, by_source=silent, **cost), {**kept(4, 2000, **cost), "wer": None, "wer_ci": None}]
    assert sources_table(rows[:1]).splitlines()[2] == "| LoRA | 10 | – (none) |"
    shown = [line.split("|")[4].strip() for line in results_table(rows).splitlines()[2:4]]
    assert shown == ["**10.0 %**", "–"]
    assert against_plain([rows[1], {**rows[1], "healing": "encoder"}]) is None


def test_several_language_models_are_no_seeds_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"saving": 0.1, "eval_rtfx": 9.0, "train_seconds": 60.0, "key": "k"}
    rows = [kept(2, errors, text_model=model, **more) for model, errors in (("org/lm-a", 1000), ("org/lm-b", 5000))]
    report = render(load_study("paper_study"), [], rows, [], [])
    assert "systems with one seed show none: another training run of theirs may differ by more" in report
    for name, rate in (("lm-a", "10.0 %"), ("lm-b", "50.0 %")):
        table = report.split(f"## Dutch, a, {name}\n", 1)[1].split("\n## ", 1)[0]
        assert f"| LoRA | 10 | 1 | **{rate}** |" in table
    panels: list[list[str]] = []
    written = plots.write_figure

    def look(figure: Any, path: Any) -> Path:
        panels.append([axis.get_title() for axis in figure.axes])
        return written(figure, path)

    monkeypatch.setattr(plots, "write_figure", look)
    plots.plot_wer_by_depth(rows, tmp_path / "depth.svg")
    plots.plot_error_types([{**one, "text_model": f"{i}/lm"} for i, one in enumerate(rows)], tmp_path / "types.svg")
    assert panels == [["lm-a, Dutch", "lm-b, Dutch"], ["0/lm, Dutch", "1/lm, Dutch"]]
