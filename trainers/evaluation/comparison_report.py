"""`comparison.json`, and its `report.md` and `report.html`."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainers.evaluation.comparison import Comparison, Pair
from trainers.evaluation.format import (
    RATE_NAMES,
    escape_markdown,
    number,
    p_value,
    percent,
    percent_with_interval,
    points_with_interval,
    rates_with_intervals,
    relative_with_interval,
)
from trainers.evaluation.html_report import render_page
from trainers.evaluation.language_prior import LanguagePrior
from trainers.evaluation.score_tables import BIN_TITLES, INSERTION_NAMES, Section, drawn, markdown_section
from trainers.files import write_json, write_text
from trainers.results import Metrics


def write_comparison(output_dir: str | os.PathLike[str], comparison: Comparison) -> Path:
    """Write `comparison.json`, `report.md` and `report.html` into `output_dir`; returns the Markdown report's path."""
    write_json(Path(output_dir) / "comparison.json", comparison)
    page = render_page(
        "comparison.html.jinja",
        title="Comparison",
        verdicts=[verdict(pair, comparison["alpha"]) for pair in comparison["comparisons"]],
        basis=_basis(comparison),
        sections=list(sections(comparison)),
    )
    write_text(Path(output_dir) / "report.html", page)
    return write_text(Path(output_dir) / "report.md", render_comparison(comparison))


def verdict(pair: Pair, alpha: float) -> str:
    """One sentence on whether two systems differ."""
    bootstrap = pair["paired_bootstrap"]
    if bootstrap["difference"] is None:
        return "The references hold no words: nothing to compare."
    better = pair["b"] if bootstrap["difference"] < 0 else pair["a"]
    change = points_with_interval(bootstrap["difference"], bootstrap["difference_ci"])
    if pair["differs"]:
        return f"{better} is better: {pair['b']} minus {pair['a']} is {change}, and both tests reject at {alpha:g}."
    return (
        f"No difference is shown: {pair['b']} minus {pair['a']} is {change}. On these utterances a true difference of "
        f"{percent(bootstrap['minimum_detectable_difference'])} would be found in 80 of 100 cases."
    )


def render_comparison(comparison: Comparison) -> str:
    """The comparison in Markdown."""
    verdicts = [f"- {escape_markdown(verdict(pair, comparison['alpha']))}" for pair in comparison["comparisons"]]
    return "\n".join(
        ["# Comparison\n", *verdicts, f"\n{_basis(comparison)}\n", *map(markdown_section, sections(comparison))]
    )


def sections(comparison: Comparison) -> Iterator[Section]:
    """The tables of a comparison, once for Markdown and HTML."""
    yield _systems(comparison["systems"])
    yield _tests(comparison)
    for pair in comparison["comparisons"]:
        yield from _pair(pair)


def _basis(comparison: Comparison) -> str:
    bootstrap = comparison["bootstrap"]
    return (
        f"{number(comparison['utterances'])} utterances, normalizer {comparison['normalizer']}. In brackets: "
        f"{100 * bootstrap['confidence']:g} % intervals from {bootstrap['resamples']:,} paired resamples of "
        f"{drawn(bootstrap)}."
    )


def _systems(systems: Mapping[str, Metrics]) -> Section:
    rows = [
        [name, *rates_with_intervals(m), *map(number, (m["substitutions"], m["deletions"], m["insertions"]))]
        for name, m in systems.items()
    ]
    return Section("Systems", ["System", *RATE_NAMES, "S", "D", "I"], rows)


def _tests(comparison: Comparison) -> Section:
    rows = []
    for pair in comparison["comparisons"]:
        bootstrap, segments = pair["paired_bootstrap"], pair["matched_pairs"]
        rows.append(
            [
                f"{pair['a']} → {pair['b']}",
                points_with_interval(bootstrap["difference"], bootstrap["difference_ci"]),
                relative_with_interval(bootstrap["relative_difference"], bootstrap["relative_difference_ci"]),
                p_value(bootstrap["p_value"]),
                p_value(bootstrap["p_value_holm"]),
                p_value(segments["p_value"]),
                p_value(segments["p_value_holm"]),
                percent(bootstrap["minimum_detectable_difference"]),
            ]
        )
    header = [
        "Pair", "WER difference", "relative", "p bootstrap", "Holm", "p MAPSSWE", "Holm", "smallest detectable",
    ]  # fmt: skip
    return Section("Tests", header, rows)


def _pair(pair: Pair) -> Iterator[Section]:
    title = f"{pair['a']} → {pair['b']}"
    types = [
        [
            name,
            number(row["a"]),
            number(row["b"]),
            points_with_interval(row["change"], row["change_ci"]),
            relative_with_interval(row["relative_change"], row["relative_change_ci"]),
            *(number(row["utterances"][key]) for key in ("fixed", "broken", "kept_wrong", "kept_right")),
        ]
        for name, row in pair["error_types"].items()
    ]
    header = [
        "Errors", pair["a"], pair["b"], "change per reference word", "relative", "fixed in", "broken in", "kept in",
        "never in",
    ]  # fmt: skip
    kinds = [
        [INSERTION_NAMES[kind], number(pair["insertion_kinds"]["a"][kind]), number(pair["insertion_kinds"]["b"][kind])]
        for kind in INSERTION_NAMES
    ]
    words = [[state, *map(number, counts.values())] for state, counts in pair["words"].items()]
    yield Section(title, header, types, "The last four columns count utterances.")
    yield Section(f"{title}: inserted words", ["Kind", pair["a"], pair["b"]], kinds)
    yield Section(f"{title}: reference words", [f"{pair['a']} ↓ {pair['b']} →", *pair["words"]], words)
    yield _word_changes(pair, title)
    for name, rows in pair["examples"].items():
        if rows:
            table = [
                [row["id"], row["reference"], row["a"], row["b"], f"{row['errors_a']} → {row['errors_b']}"]
                for row in rows
            ]
            header = ["Id", "Reference", pair["a"], pair["b"], "Errors"]
            yield Section(f"{title}: most {name}", header, table, numeric_from=5)
    if pair.get("language_prior"):
        yield _prior(pair["language_prior"], title)


def _word_changes(pair: Pair, title: str) -> Section:
    rows = [
        [
            name,
            row["bin"],
            number(row["words"]),
            number(row["a"]),
            number(row["b"]),
            points_with_interval(row["change"], row["change_ci"]),
        ]
        for (part, key), name in BIN_TITLES.items()
        if part == "words"
        for row in pair["word_changes"][key]
    ]
    header = ["By", "Bin", "Words", pair["a"], pair["b"], "change of the error rate"]
    return Section(f"{title}: wrong words", header, rows, numeric_from=2)


def _prior(prior: LanguagePrior, title: str) -> Section:
    rows = []
    for figures, name in ((prior["one_word_substitutions"], "one word for one word"), (prior["all"], "all errors")):
        for fate, row in (("fixed", figures["fixed"]), ("made", figures["made"]), ("kept", figures["kept"])):
            rows.append(
                [
                    f"{fate}, {name}",
                    number(row["errors"]),
                    _nats(row.get("mean_pull"), row.get("mean_pull_ci")),
                    percent_with_interval(row.get("positive_share"), row.get("positive_share_ci")),
                ]
            )
        over_kept = _nats(figures["fixed_over_kept"], figures["fixed_over_kept_ci"])
        over_first = _nats(figures["made_over_first"], figures["made_over_first_ci"])
        rows.append([f"P(fixed > kept), {name}", "", over_kept, ""])
        rows.append([f"P(made > first system's), {name}", "", over_first, ""])
    note = (
        "Pull: log P(reference) minus log P(reference with this error alone). P(fixed > kept) above 0.5: the errors that "
        "were fixed are those that the LLM dislikes. P(made > first) below 0.5: the new errors are what the LLM likes."
    )
    header = ["Errors", "Number", "Pull of the text-only LLM (nats)", "LLM prefers the reference"]
    return Section(f"{title}: Is it the language prior?", header, rows, note)


def _nats(value: float | None, ci: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if ci is None else f"{value:.3f} [{ci[0]:.3f}, {ci[1]:.3f}]"
