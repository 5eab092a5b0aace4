"""A study's pictures. The file's ending (.svg or .png) says its kind; the same rows give the same bytes."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib.axes import Axes

from trainers.figures import (
    GREY,
    draw_legend,
    draw_rates,
    draw_stack,
    label_points,
    new_figure,
    rate_of,
    style,
    write_figure,
)
from trainers.results import ERROR_TYPES, ResultRow, known_wer, language_name, mean, pareto_front


class Cost(NamedTuple):
    """What a system costs: the axis that shows it, and its value in the axis' unit where a row tells it."""

    label: str
    of: Callable[[ResultRow], float | None]


def _real_time_factor(row: ResultRow) -> float | None:
    return 1 / row["eval_rtfx"] if row.get("eval_rtfx") else None


COSTS = {
    "total_params": Cost("parameters, millions", lambda row: 1e-6 * row["total_params"]),
    "encoder_params": Cost("encoder parameters, millions", lambda row: 1e-6 * row["encoder_params"]),
    "eval_rtf": Cost("real-time factor (seconds of computing a second of speech)", _real_time_factor),
    "memory_gib": Cost("memory, GiB (of the GPU at its peak, or of the weights)", lambda row: row.get("memory_gib")),
}
BasePart = Literal["audio_model", "text_model"]
BASE_PARTS: tuple[BasePart, ...] = ("audio_model", "text_model")
RATE = "word error rate (%)"
HEALED = {True: "healed", "encoder": "encoder healed", "lora": "encoder healed by LoRA"}
PLAIN = "projector"
"""the name of a system whose projector alone is trained"""


def plot_wer_by_depth(rows: Iterable[ResultRow], path: str | Path) -> Path:
    """WER against the number of encoder layers, a panel a language, a line a kind of system; bars are 95 % intervals.

    Seeds are drawn as points of their own, and the line goes through their mean.
    """
    rows = [row for row in rows if row.get("wer") is not None]
    panels = _panels(rows)
    figure, axes = new_figure(len(panels))
    systems = list(dict.fromkeys(system_name(row) for row in rows))
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        for place, system in enumerate(systems):
            draw_depths(axis, [row for row in own if system_name(row) == system], system, place, len(systems))
        axis.set_title(title)
        axis.set_xlabel("encoder layers")
        axis.set_xticks(sorted({row["encoder_layers"] for row in own}))
    axes[0].set_ylim(bottom=0)  # shared, and not before all is drawn: it ends the scaling to what is drawn
    axes[0].set_ylabel(RATE)
    draw_legend(figure, axes)
    return write_figure(figure, path)


def plot_pareto(rows: Iterable[ResultRow], cost: str, path: str | Path) -> Path:
    """WER against a cost (`total_params`, `encoder_params`, `eval_rtf`, `memory_gib`), a panel a language.

    The line joins the systems that no other beats in both. Seeds are points of their own; a depth is named once.
    """
    label, cost_of = COSTS[cost]
    rows = [row for row in rows if row.get("wer") is not None and cost_of(row) is not None]
    panels = _panels(rows)

    def place_of(row: ResultRow) -> tuple[float, float]:
        """In a panel."""
        return cost_of(row) or 0.0, 100 * known_wer(row)

    figure, axes = new_figure(len(panels))
    systems = list(dict.fromkeys(system_name(row) for row in rows))
    names: list[tuple[Axes, str, float, float]] = []
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        for number, system in enumerate(systems):
            points = [row for row in own if system_name(row) == system]
            places = [place_of(row) for row in points]
            axis.plot(
                *zip(*places, strict=True) if places else ([], []), linestyle="none", label=system, **style(number)
            )
            for depth in dict.fromkeys(row["encoder_layers"] for row in points):
                same = [place for place, row in zip(places, points, strict=True) if row["encoder_layers"] == depth]
                names.append((axis, str(depth), *max(same, key=lambda place: place[1])))
        front = [place_of(row) for row in pareto_front(own, lambda row: place_of(row)[0])]
        axis.plot([cost for cost, _ in front], [rate for _, rate in front], "-", color=GREY, zorder=0)
        axis.set_title(title)
        axis.set_xlabel(label)
        axis.margins(0.12)
    axes[0].set_ylabel(RATE)
    draw_legend(figure, axes, "number: encoder layers")
    label_points(figure, names)
    return write_figure(figure, path)


def plot_error_types(rows: Iterable[ResultRow], path: str | Path) -> Path:
    """Substitutions, deletions and insertions as shares of the reference words, stacked, a bar a depth and kind of system."""
    rows = [row for row in rows if row.get("reference_words")]
    panels = _panels(rows)
    bars = max(len({(row["encoder_layers"], system_name(row)) for row in own}) for own in panels.values())
    figure, axes = new_figure(len(panels), width=max(3.4, 0.28 * bars + 0.8), height=4.4)
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        groups: dict[str, list[ResultRow]] = {}
        for row in sorted(own, key=lambda row: -row["encoder_layers"]):
            groups.setdefault(f"{row['encoder_layers']} {system_name(row)}", []).append(row)
        shares: dict[str, list[float]] = {
            kind: [
                sum(row[kind] for row in group) / sum(row["reference_words"] for row in group)
                for group in groups.values()
            ]
            for kind in ERROR_TYPES
        }
        draw_stack(axis, list(groups), shares)
        axis.set_title(title)
    axes[0].set_ylabel("errors per 100 reference words")
    draw_legend(figure, axes)
    return write_figure(figure, path)


def system_name(row: ResultRow) -> str:
    """What kind of system a row is of, apart from its depth: `projector`, `LoRA`, `evenly spaced, healed, LoRA`, ..."""
    parts = [] if row.get("selection", "last") == "last" else [str(row["selection"]).replace("_", " ")]
    if row.get("healing"):
        parts.append(HEALED.get(row["healing"], str(row["healing"])))
    return ", ".join([*parts, "LoRA" if row.get("lora") else PLAIN])


def draw_depths(axis: Axes, rows: Sequence[ResultRow], system: str, place: int, systems: int) -> None:
    """One system's WER at its depths: intervals, and a line through the means over seeds."""
    if not rows:
        return
    # So that intervals of different systems do not hide one another, and stay nearer to their own depth than to the next.
    shift = min(0.12, 0.6 / systems) * (place - (systems - 1) / 2)
    depths = sorted({row["encoder_layers"] for row in rows})
    means = [100 * mean(known_wer(row) for row in rows if row["encoder_layers"] == depth) for depth in depths]
    axis.plot([depth + shift for depth in depths], means, "-", color=style(place)["color"])
    for number, row in enumerate(rows):
        draw_rates(axis, [row["encoder_layers"] + shift], [rate_of(row)], place, None if number else system)


def model_names(row: ResultRow, rows: Sequence[ResultRow], always: Sequence[str] = ()) -> list[str]:
    """
    The base models of a row in which `rows` differ, audio model first: `["whisper-small", "SmolLM2-135M"]`. Short names, or whole
    ones where two have the same short name.

    Args:
        always: `audio_model` or `text_model`, to be named also where there is one alone.
    """
    names = []
    for part in BASE_PARTS:
        short = {str(one.get(part)): str(one.get(part)).rstrip("/").split("/")[-1] for one in rows}
        if part in always or len(short) > 1:
            whole = str(row.get(part))
            names.append(short[whole] if len(set(short.values())) == len(short) else whole)
    return names


def _panels(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """Rows by what a panel is of: the language, and the audio model and the LLM where there are several."""
    panels: dict[str, list[ResultRow]] = {}
    for row in rows:
        panels.setdefault(", ".join([*model_names(row, rows), language_name(row["language"])]), []).append(row)
    return panels or {"no results": []}
