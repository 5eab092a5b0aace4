"""The tables of a score report, once for Markdown and HTML: `(title, header, rows, note)`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from trainers.evaluation.format import (
    RATE_NAMES,
    escape_markdown,
    markdown_table,
    mebibytes,
    number,
    percent,
    percent_with_interval,
    rates_in_short,
    rates_with_intervals,
)
from trainers.results import (
    ERROR_TYPES,
    METADATA_COLUMNS,
    RATES,
    BootstrapRecord,
    ErrorAnalysis,
    Figures,
    Metrics,
    RateBin,
    ScoreTable,
    SpeedReport,
)

MOST_GROUPS = 40
GROUP_TITLES = {
    "by_language": "By language",
    "by_source": "By source",
    **{f"by_{name}": f"By {name.replace('_', ' ')}" for name in METADATA_COLUMNS},
    "by_speaker": "By speaker",
}
BIN_TITLES: dict[tuple[Literal["words", "utterances"], str], str] = {
    ("words", "by_frequency"): "Words by frequency",
    ("words", "by_length"): "Words by letters",
    ("words", "by_position"): "Words by position in the utterance",
    ("words", "by_class"): "Numerals, names, compounds",
    ("utterances", "by_words"): "Utterances by words",
    ("utterances", "by_duration"): "Utterances by seconds",
    ("utterances", "by_speech_rate"): "Utterances by speech rate",
}
INSERTION_NAMES = {
    "loops": "loops (a sequence said again and again)",
    "continuations": "invented continuations (two or more words after the end)",
    "on_empty_reference": "words where nothing was said",
    "others": "others",
}


@dataclass(frozen=True)
class Section:
    """One table of a report."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numeric_from: int = 1

    @property
    def anchor(self) -> str:
        """What links within a page name it by."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    @property
    def wide(self) -> bool:
        """Whether the table takes the page's whole width."""
        return len(self.header) > 4 or self.header[-1] == "Value"


def markdown_section(section: Section) -> str:
    """A section in Markdown."""
    table = markdown_table(section.header, section.rows, section.numeric_from)
    return f"## {escape_markdown(section.title)}\n\n{table}" + (f"\n{section.note}\n" if section.note else "")


def score_sections(metrics: Metrics) -> Iterator[Section]:
    """The tables for `metrics.json`, those that it has data for."""
    yield _summary(metrics)
    for key, title in GROUP_TITLES.items():
        groups = cast(Mapping[str, ScoreTable], metrics.get(key, {}))
        if len(groups) > 1:
            yield _groups(title, groups)
    speed = metrics.get("speed")
    if speed:
        yield _speed(speed)
    analysis = metrics.get("error_analysis")
    if analysis:
        yield _outputs(analysis)
        yield _insertions(analysis, metrics["insertions"])
        for (part, key), title in BIN_TITLES.items():
            bins = cast(Sequence[RateBin], analysis[part].get(key))
            if bins:
                yield _bins(title, part, bins, analysis)
        yield from _confusions(analysis)


def _summary(metrics: Metrics) -> Section:
    bootstrap = metrics.get("bootstrap")
    rows = [
        *([rate.name, cell] for rate, cell in zip(RATES, rates_with_intervals(metrics), strict=True)),
        [
            "Sentence error rate",
            percent_with_interval(metrics["sentence_error_rate"], metrics["sentence_error_rate_ci"]),
        ],
        ["Substitutions, deletions, insertions", _sdi(metrics)],
        ["Hits, reference words", f"{number(metrics['hits'])}, {number(metrics['reference_words'])}"],
        ["Utterances", number(metrics["utterances"])],
        [
            "Empty references, empty predictions",
            f"{number(metrics['empty_references'])}, {number(metrics['empty_predictions'])}",
        ],
        ["Normalizer", ", ".join(f"{name} ({text})" for name, text in metrics["normalizers"].items())],
    ]
    coral = metrics.get("coral_wer")
    if coral is not None:
        rows.insert(1, ["WER in CoRal's sense (Danish, the mean of the utterances' own rates)", percent(coral)])
    difference = metrics.get("minimum_detectable_difference")
    if difference is not None:
        rows.append(["Smallest difference that this test set shows (unpaired, upper bound)", percent(difference)])
    note = ""
    if bootstrap:
        note = (
            f"In brackets: {100 * bootstrap['confidence']:g} % bootstrap intervals, {bootstrap['resamples']:,} resamples of "
            f"{drawn(bootstrap)}."
        )
    note = " ".join([note, *metrics.get("notes", [])]).strip()
    return Section("Result", ["Figure", "Value"], rows, note, numeric_from=2)


def drawn(bootstrap: BootstrapRecord) -> str:
    """What was drawn anew: `1,200 utterances`, or `54 speakers or utterances within 4 test sets`."""
    many, strata = bootstrap["blocks"] != 1, bootstrap.get("strata", 1)
    units = " or ".join(f"{unit}s" if many else unit for unit in bootstrap["unit"].split(" or "))
    return f"{bootstrap['blocks']:,} {units}{f' within {strata} test sets' if strata > 1 else ''}"


def _groups(title: str, groups: Mapping[str, ScoreTable]) -> Section:
    names = sorted(groups, key=lambda name: -groups[name]["reference_words"])
    rows = [
        [
            name,
            number(groups[name]["utterances"]),
            number(groups[name]["reference_words"]),
            *rates_in_short(groups[name]),
            _sdi(groups[name]),
        ]
        for name in names[:MOST_GROUPS]
    ]
    note = f"The {MOST_GROUPS} largest of {len(names)}." if len(names) > MOST_GROUPS else ""
    return Section(title, ["Group", "Utterances", "Words", *RATE_NAMES, "S / D / I"], rows, note)


def _speed(speed: SpeedReport) -> Section:
    first_token = speed["time_to_first_token_seconds"]
    rows = [
        ["RTFx (audio seconds over wall seconds, warm)", number(speed["rtfx"])],
        ["Audio, wall", f"{number(speed['audio_seconds'])} s, {number(speed['wall_seconds'])} s"],
        ["Time to first token", "–" if first_token is None else f"{number(1000 * first_token, 1)} ms"],
        ["Peak memory", f"{mebibytes(speed['peak_memory_bytes'])} ({speed['peak_memory_kind']})"],
        ["Parameters", number(speed["parameters"])],
        ["Device", f"{speed['device']}: {speed['device_name']}"],
        ["Threads, dtype, batch", f"{speed['threads']}, {speed['dtype']}, {number(speed['batch_size'])}"],
    ]
    return Section("Speed and size", ["Figure", "Value"], rows, numeric_from=2)


def _outputs(analysis: ErrorAnalysis) -> Section:
    rows = [
        [name, number(row["utterances"]), number(row["errors"]), percent(row["share_of_errors"])]
        for name, row in analysis["outputs"].items()
    ]
    spacing = analysis["spacing_errors"]
    rows.append(
        [
            "only spaces differ",
            f"{number(spacing['regions'])} places",
            number(spacing["errors"]),
            percent(spacing["share_of_errors"]),
        ]
    )
    note = "Runaway: more than twice as long as the reference and more than five words longer."
    return Section("Broken outputs", ["Kind", "Utterances", "Word errors", "Share of all errors"], rows, note)


def _insertions(analysis: ErrorAnalysis, total: int) -> Section:
    rows = [
        [INSERTION_NAMES[kind], number(count), percent(count / total if total else None)]
        for kind, count in analysis["insertion_kinds"].items()
    ]
    return Section("Inserted words", ["Kind", "Words", "Share"], rows)


def _bins(title: str, part: str, bins: Sequence[RateBin], analysis: ErrorAnalysis) -> Section:
    rows = [
        [row["bin"], number(row["items"]), number(row["errors"]), percent_with_interval(row["rate"], row["ci"])]
        for row in bins
    ]
    if part == "words":
        note = "Substituted and deleted words over reference words."
        if title == BIN_TITLES["words", "by_frequency"]:
            note += f" Frequencies: {analysis['words']['frequency_source']}."
        if title == BIN_TITLES["words", "by_class"] and not analysis["words"]["names_known"]:
            note += " The references carry no capitals, so names are among the other words."
        return Section(title, ["Bin", "Words", "Wrong", "Error rate"], rows, note)
    return Section(title, ["Bin", "Utterances", "Word errors", "WER"], rows)


def _confusions(analysis: ErrorAnalysis) -> Iterator[Section]:
    confusions = analysis["confusions"]
    pairs = [[c["reference"] or "", c["prediction"] or "", number(c["count"])] for c in confusions["substitutions"]]
    if pairs:
        yield Section("Most frequent substitutions", ["Reference", "Prediction", "Times"], pairs, numeric_from=2)
    for kind in ("deletions", "insertions"):
        words = [[c["reference"] or c["prediction"] or "", number(c["count"])] for c in confusions[kind]]
        if words:
            yield Section(f"Most frequent {kind}", ["Word", "Times"], words)


def _sdi(row: Figures) -> str:
    return " / ".join(number(row[kind]) for kind in ERROR_TYPES)
