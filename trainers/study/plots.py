"""A study's pictures. The file's ending (.svg or .png) says its kind; the same rows give the same bytes."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainers.files import write_bytes

Row = Mapping[str, Any]
LANGUAGES = {"all": "All languages", "da": "Danish", "nl": "Dutch", "en": "English"}
ERRORS = ("substitutions", "deletions", "insertions")
COSTS = {
    "total_params": ("parameters, millions", 1e-6),
    "encoder_params": ("encoder parameters, millions", 1e-6),
    "eval_rtf": ("real-time factor (seconds of computing a second of speech)", 1.0),
    "memory_gib": ("memory, GiB (of the GPU at its peak, or of the weights)", 1.0),
}
_HEALED = {True: "healed", "encoder": "encoder healed", "lora": "encoder healed by LoRA"}
_LEGEND_WIDTH = 2.0  # inches


def plot_wer_by_depth(rows: Iterable[Row], path: str | Path) -> Path:
    """WER against the number of encoder layers, a panel a language, a line a kind of system; bars are 95 % intervals.

    Seeds are drawn as points of their own, and the line goes through their mean.
    """
    rows = [row for row in rows if row.get("wer") is not None]
    panels = _panels(rows)
    figure = Figure(figsize=(4.0 * len(panels) + _LEGEND_WIDTH, 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    systems = list(dict.fromkeys(system_name(row) for row in rows))
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        for place, system in enumerate(systems):
            _draw_depths(axis, [row for row in own if system_name(row) == system], system, place, len(systems))
        axis.set_title(title)
        axis.set_xlabel("encoder layers")
        axis.set_xticks(sorted({row["encoder_layers"] for row in own}))
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("word error rate")
    _legend(figure, axes)
    return save(figure, path)


def plot_pareto(rows: Iterable[Row], cost: str, path: str | Path) -> Path:
    """WER against a cost (`total_params`, `encoder_params`, `eval_rtf`, `memory_gib`), a panel a language.

    The line joins the systems that no other beats in both.
    """
    label, scale = COSTS[cost]
    rows = [row for row in rows if row.get("wer") is not None and row.get(cost) is not None]
    panels = _panels(rows)
    figure = Figure(figsize=(4.0 * len(panels) + _LEGEND_WIDTH, 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    systems = list(dict.fromkeys(system_name(row) for row in rows))
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        for number, system in enumerate(systems):
            points = [row for row in own if system_name(row) == system]
            axis.plot(
                [scale * row[cost] for row in points],
                [row["wer"] for row in points],
                "o",
                color=f"C{number}",
                label=system,
            )
            for row in points:
                axis.annotate(
                    str(row["encoder_layers"]),
                    (scale * row[cost], row["wer"]),
                    (3, 3),
                    textcoords="offset points",
                    fontsize=7,
                )
        front = pareto_front(own, cost)
        axis.plot([scale * row[cost] for row in front], [row["wer"] for row in front], "-", color="0.6", zorder=0)
        axis.set_title(title)
        axis.set_xlabel(label)
    axes[0].set_ylabel("word error rate")
    _legend(figure, axes, "number: encoder layers")
    return save(figure, path)


def plot_error_types(rows: Iterable[Row], path: str | Path) -> Path:
    """Substitutions, deletions and insertions as shares of the reference words, stacked, a bar a depth and kind of system."""
    rows = [row for row in rows if row.get("reference_words")]
    panels = _panels(rows)
    figure = Figure(figsize=(max(4.5, 4.5 * len(panels)), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        groups: dict[tuple[int, str], list[Row]] = {}
        for row in sorted(own, key=lambda row: -row["encoder_layers"]):
            groups.setdefault((row["encoder_layers"], system_name(row)), []).append(row)
        bottoms = [0.0] * len(groups)
        for number, kind in enumerate(ERRORS):
            words = [sum(row["reference_words"] for row in group) for group in groups.values()]
            shares = [
                sum(row[kind] for row in group) / total for group, total in zip(groups.values(), words, strict=True)
            ]
            axis.bar(range(len(groups)), shares, 0.8, bottoms, color=f"C{number}", label=kind)
            bottoms = [below + share for below, share in zip(bottoms, shares, strict=True)]
        axis.set_xticks(range(len(groups)), [f"{depth} {system}" for depth, system in groups], rotation=90, fontsize=7)
        axis.set_title(title)
    axes[0].set_ylabel("errors per reference word")
    if rows:
        axes[0].legend()
    return save(figure, path)


def system_name(row: Row) -> str:
    """What kind of system a row is of, apart from its depth: `projector`, `LoRA`, `evenly spaced, healed, LoRA`, ..."""
    parts = [] if row.get("selection", "last") == "last" else [str(row["selection"]).replace("_", " ")]
    if row.get("healing"):
        parts.append(_HEALED.get(row["healing"], str(row["healing"])))
    return ", ".join([*parts, "LoRA" if row.get("lora") else "projector"])


def pareto_front(rows: Sequence[Row], cost: str) -> list[Row]:
    """Rows that no other row beats in both cost and WER, the cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[cost], row["wer"])):
        if not front or row["wer"] < front[-1]["wer"]:
            front.append(row)
    return front


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, atomically and without a date in it."""
    path = Path(path)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "slam-asr"}):
        figure.savefig(
            buffer, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None
        )
    return write_bytes(path, buffer.getvalue())


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what a panel is of: the language, and the audio model if there are several."""
    several = len({row.get("audio_model") for row in rows}) > 1
    panels: dict[str, list[Row]] = {}
    for row in rows:
        language = LANGUAGES.get(row["language"], str(row["language"]))
        panels.setdefault(f"{str(row['audio_model']).split('/')[-1]}, {language}" if several else language, []).append(
            row
        )
    return panels or {"no results": []}


def _legend(figure: Figure, axes: Iterable[Axes], title: str | None = None) -> None:
    """One legend beside the panels, of what any of them shows; within one it would hide points."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside right upper", title=title, fontsize=8, title_fontsize=8
        )


def _draw_depths(axis: Axes, rows: Sequence[Row], system: str, place: int, systems: int) -> None:
    if not rows:
        return
    # So that intervals of different systems do not hide one another, and stay nearer to their own depth than to the next.
    shift = min(0.12, 0.6 / systems) * (place - (systems - 1) / 2)
    depths = sorted({row["encoder_layers"] for row in rows})
    means = [_mean([row["wer"] for row in rows if row["encoder_layers"] == depth]) for depth in depths]
    axis.plot([depth + shift for depth in depths], means, "-", color=f"C{place}", label=system)
    for row in rows:
        low, high = row["wer_ci"] or (row["wer"], row["wer"])
        spread = [[max(0.0, row["wer"] - low)], [max(0.0, high - row["wer"])]]
        axis.errorbar(
            row["encoder_layers"] + shift, row["wer"], spread, fmt="o", markersize=4, capsize=3, color=f"C{place}"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
