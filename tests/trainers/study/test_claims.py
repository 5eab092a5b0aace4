"""Verdicts on the paper's claims follow from the rows alone."""

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from trainers.figures import draw_legend
from trainers.results import pareto_front
from trainers.study.claims import AGREE, DISAGREE, UNCLEAR, WITHHELD, effect_of, match, read_claims
from trainers.study.plots import draw_depths, plot_error_types, plot_pareto, plot_wer_by_depth, system_name


def row(
    errors: tuple[int, int, int],
    *,
    prune: int = 0,
    lora: bool = False,
    language: str = "nl",
    seed: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """A result row over 10,000 words with (substitutions, deletions, insertions) and an interval of +-1 % relative."""
    wer = sum(errors) / 10_000
    return {
        "audio_model": "a", "text_model": "t", "language": language, "seed": seed, "prune_encoder_layers": prune,
        "encoder_layers": 12 - prune, "lora": lora, "wer": wer, "wer_ci": [0.99 * wer, 1.01 * wer], "reference_words": 10_000,
        "substitutions": errors[0], "deletions": errors[1], "insertions": errors[2], "hits": 10_000 - errors[0] - errors[1],
        "total_params": 1000 - 50 * prune + 5 * lora, "trainable_params": 20 + 5 * lora, "encoder_params": 500 - 50 * prune,
        "eval_rtfx": 10 + prune, "memory_gib": 1.0,
        **more,
    }  # fmt: skip


def verdicts(rows: list[dict[str, Any]], **options: Any) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in read_claims(rows, **options)}


def test_the_papers_own_pattern_agrees() -> None:
    rows = []
    for language, after in (("nl", (480, 190, 180)), ("en", (480, 190, 180)), ("da", (440, 200, 320))):
        rows.append(row((600, 250, 150), language=language))
        rows.append(row((620, 260, 150), prune=2, language=language))
        before = (500, 300, 220) if language == "da" else (620, 260, 150)
        rows[-1] = row(before, prune=2, language=language) if language == "da" else rows[-1]
        rows.append(row(after, prune=2, lora=True, language=language))
    found = verdicts(rows)
    assert found == {
        "depth": AGREE,
        "pruned with LoRA": AGREE,
        "LoRA, Dutch": AGREE,
        "LoRA, English": AGREE,
        "LoRA, Danish": AGREE,
    }


def test_a_large_loss_disagrees_and_a_wide_interval_is_no_evidence() -> None:
    full, pruned = row((500, 300, 200)), row((700, 300, 200), prune=2)
    assert verdicts([full, pruned])["depth"] == DISAGREE
    unsure = [{**each, "wer_ci": [0.5 * each["wer"], 1.5 * each["wer"]]} for each in (full, pruned)]
    assert verdicts(unsure)["depth"] == UNCLEAR
    assert verdicts(unsure, paired=lambda a, b: (0.18, 0.22))["depth"] == DISAGREE
    assert verdicts([full])["depth"] == UNCLEAR and verdicts([])["LoRA, Danish"] == UNCLEAR


def test_the_kind_of_errors_is_part_of_the_claim() -> None:
    before, fewer_insertions = row((400, 200, 400)), row((400, 200, 250), lora=True)
    assert verdicts([before, fewer_insertions])["LoRA, Dutch"] == DISAGREE
    unsure = [{**each, "wer_ci": [0.7 * each["wer"], 1.3 * each["wer"]]} for each in (before, fewer_insertions)]
    assert verdicts(unsure)["LoRA, Dutch"] == UNCLEAR  # who knows whether there are fewer at all
    danish = [row((500, 300, 220), language="da"), row((470, 280, 215), lora=True, language="da")]
    assert verdicts(danish)["LoRA, Danish"] == UNCLEAR  # insertions neither rise nor fall for certain


def test_no_errors_at_all_is_no_evidence() -> None:
    rows = [row((0, 0, 0)), row((0, 0, 0), prune=2), row((0, 0, 0), prune=2, lora=True)]
    assert set(verdicts(rows).values()) == {UNCLEAR}


def test_seeds_that_differ_widen_the_interval() -> None:
    def pairs(changes: list[int]) -> list[tuple[Any, Any]]:
        rows = [row((500, 300, 200), seed=seed) for seed in range(len(changes))]
        rows += [row((500 + change, 300, 200), prune=2, seed=seed) for seed, change in enumerate(changes)]
        return match(rows, (0, False), (2, False))

    steady, shaky = effect_of(pairs([30, 30, 30])), effect_of(pairs([-70, 30, 130]))
    assert steady is not None and shaky is not None
    assert steady.pairs == shaky.pairs == 3
    assert shaky.high - shaky.low > 2 * (steady.high - steady.low)


def test_few_seeds_are_widened_by_students_t() -> None:
    """Of two seeds the interval of the mean is 12.7 standard errors wide to each side; the normal one would cover 70 %."""
    rows = [row((500, 300, 200), seed=seed) for seed in (1, 2)]
    rows += [row((500 + more, 300, 200), prune=2, seed=seed) for seed, more in ((1, 20), (2, 40))]
    pairs = match(rows, (0, False), (2, False))
    effect = effect_of(
        pairs, lambda first, second: (second["wer"] / first["wer"] - 1,) * 2
    )  # nothing is left to sampling
    assert effect is not None
    error = (math.log(1.04) - math.log(1.02)) / 2
    assert math.log1p(effect.high) - math.log1p(effect.change) == pytest.approx(12.706 * error, rel=1e-3)


def test_other_models_are_no_seeds() -> None:
    rows = [row((500, 300, 200), text_model=name) for name in "ab"]
    rows += [row((500 + more, 300, 200), prune=2, text_model=name) for name, more in (("a", 100), ("b", 300))]
    effect = effect_of(match(rows, (0, False), (2, False)))
    assert effect is not None and effect.pairs == 2 and 0.15 < effect.low < effect.high < 0.25


def test_one_pair_has_the_interval_of_its_own_comparison() -> None:
    pairs = match([row((500, 300, 200)), row((400, 300, 200), prune=2)], (0, False), (2, False))
    effect = effect_of(pairs, lambda first, second: (-0.22, -0.03))
    assert effect is not None
    assert (effect.change, effect.low, effect.high) == pytest.approx((-0.1, -0.22, -0.03))


def test_lora_is_judged_at_each_depth() -> None:
    """Depths are no sample: what they differ by makes nothing uncertain, and one that is outside for certain disagrees."""
    rows = [row((500, 300, 200), prune=prune) for prune in (0, 2)]
    cuts = {0: (300, 200, 100), 2: (420, 260, 170)}
    rows += [row(errors, prune=prune, lora=True) for prune, errors in cuts.items()]
    hopeless = [row((6000, 2000, 500), prune=4), row((6000, 1500, 300), prune=4, lora=True)]
    (found,) = (claim for claim in read_claims(rows + hopeless) if claim.name == "LoRA, Dutch")
    assert found.verdict == DISAGREE
    assert (
        "12 layers -40.0 % (" in found.found and "10 layers -15.0 % (" in found.found and "8 layers" not in found.found
    )
    assert verdicts([row for row in rows if row["prune_encoder_layers"] == 2])["LoRA, Dutch"] == AGREE
    effect = found.effects["nl"]
    alone = effect_of(match(rows, (2, False), (2, True)))
    assert alone is not None and effect.pairs == 3
    assert math.log1p(effect.high) - math.log1p(effect.low) < 1.1 * (math.log1p(alone.high) - math.log1p(alone.low))


def test_the_same_utterances_at_many_depths_are_no_larger_test_set() -> None:
    def danish(depths: int, seeds: int) -> str:
        kinds = ((False, (2000, 900, 100)), (True, (1835, 888, 112)))
        rows = [
            row(errors, prune=prune, lora=lora, seed=seed, language="da")
            for prune in range(depths) for seed in range(seeds) for lora, errors in kinds
        ]  # fmt: skip
        return verdicts(rows, paired=lambda first, second: (-0.065, -0.045))["LoRA, Danish"]

    assert danish(1, 1) == danish(8, 1) == danish(8, 3) == UNCLEAR


def test_kinds_are_read_where_the_size_is_judged() -> None:
    """A depth that hardly recognises anything, with its many errors, does not decide of which kind they are."""
    rows = [row((500, 300, 200)), row((420, 230, 200), lora=True)]
    rows += [row((4000, 2000, 3000), prune=4), row((4000, 2000, 1500), prune=4, lora=True)]
    (found,) = (claim for claim in read_claims(rows) if claim.name == "LoRA, Dutch")
    assert found.verdict == AGREE and "Substitutions 500 to 420, deletions 300 to 230" in found.found


def test_verdicts_on_systems_that_hardly_recognise_anything_are_withheld() -> None:
    def three(first: int) -> list[dict[str, Any]]:
        kinds = ((0, False, 0), (2, False, 300), (2, True, -500))
        return [row((first + more, 1000, 1000), prune=prune, lora=lora) for prune, lora, more in kinds]

    assert verdicts(three(5000))["depth"] == verdicts(three(5000))["LoRA, Dutch"] == WITHHELD
    assert WITHHELD not in verdicts(three(3900)).values()  # one system of the pair is below


def test_rows_of_other_methods_and_of_all_languages_do_not_count() -> None:
    rows = [row((500, 300, 200)), row((530, 300, 200), prune=2)]
    odd = [
        row((900, 300, 200), prune=2, seed=2, selection="cka"),
        row((900, 300, 200), seed=2),
        row((900, 300, 200), prune=2, healing=True),
        row((900, 300, 200), language="all"),
        row((100, 0, 0), prune=2, language="all"),
    ]
    assert read_claims(rows)[0].found == read_claims(rows + odd)[0].found


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_plots_are_the_same_bytes_each_time(tmp_path: Path, ending: str) -> None:
    rows = [
        row((500 + 40 * prune - 100 * lora, 200, 100), prune=prune, lora=lora, seed=seed, language=language)
        for prune in (0, 2)
        for lora in (False, True)
        for seed in (1, 2)
        for language in ("da", "nl")
    ]
    rows.append(row((700, 300, 200), prune=4, lora=True, healing=True, selection="evenly_spaced", language="da"))
    for name, draw in (
        ("depth", plot_wer_by_depth),
        ("types", plot_error_types),
        ("params", lambda rows, path: plot_pareto(rows, "total_params", path)),
        ("speed", lambda rows, path: plot_pareto(rows, "eval_rtf", path)),
    ):
        first, second = draw(rows, tmp_path / f"{name}.{ending}"), draw(rows, tmp_path / f"{name}2.{ending}")
        assert first.stat().st_size > 3000 and first.read_bytes() == second.read_bytes()
    plot_wer_by_depth([], tmp_path / f"empty.{ending}")
    assert system_name(rows[-1]) == "evenly spaced, healed, LoRA"


def test_one_legend_names_what_any_panel_shows() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1], label="projector")
    right.plot([1], label="projector")
    right.plot([2], label="LoRA")
    draw_legend(figure, (left, right))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["projector", "LoRA"]
    assert left.get_legend() is None and right.get_legend() is None


def test_systems_stay_at_their_own_depth() -> None:
    axis = Figure().subplots()
    for place in range(12):
        draw_depths(axis, [row((5, 2, 1), prune=2)], "a system", place, 12)
    places = [float(line.get_xdata()[0]) for line in axis.get_lines() if len(line.get_xdata()) == 1]
    assert places and max(abs(place - round(place)) for place in places) < 0.4
    assert system_name({"healing": "encoder", "lora": True}) == "encoder healed, LoRA"


def test_pareto_front() -> None:
    figures = ((3, 0.1), (1, 0.3), (2, 0.4), (2, 0.2), (2, 0.2), (4, 0.15), (0, None))
    rows: list[Any] = [{"total_params": cost, "wer": wer} for cost, wer in figures]
    front = pareto_front(rows, lambda row: row["total_params"])
    assert [(each["total_params"], each["wer"]) for each in front] == [(1, 0.3), (2, 0.2), (2, 0.2), (3, 0.1)]
