"""The look of every plot: colours that all eyes tell apart, a shape beside each colour, legends outside, nothing clipped."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainers.files import write_bytes
from trainers.results import Figures, known_wer

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe & Ito's colours, "Color universal design" (2008), without the yellow that white paper swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
GREY = "0.6"
LEGEND_WIDTH = 2.2
"""inches"""
_MARK = 4
"""pixels from a marker's centre to its edge, at the 100 dots an inch at which labels are placed"""
_OFFSETS = (
    (7, 6), (-7, 6), (7, -6), (-7, -6), (0, 9), (0, -9), (10, 0), (-10, 0), (16, 0), (-16, 0), (0, 16), (0, -16),
)  # fmt: skip
_STYLE: Any = {"svg.hashsalt": "slam-asr", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class Rate:
    """An error rate with its interval, as fractions; plots show per cent."""

    value: float
    low: float
    high: float


def rate_with_interval(value: float, interval: Sequence[float] | None) -> Rate:
    """Without an interval, or with one that leaves the rate out, the interval ends at it."""
    low, high = interval or (value, value)
    return Rate(value, min(low, value), max(high, value))


def rate_of(table: Figures) -> Rate:
    """A table's word error rate."""
    return rate_with_interval(known_wer(table), table.get("wer_ci"))


def new_figure(
    panels: int = 1, *, width: float = 4.2, height: float = 3.8, legend: bool = True, one_scale: bool = True
) -> tuple[Figure, Any]:
    """A figure and its panels, side by side; `width` is a panel's, in inches. `legend` leaves room for one."""
    with matplotlib.rc_context(_STYLE):
        size = (width * panels + (LEGEND_WIDTH if legend else 0.0), height)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, panels, sharey=one_scale, squeeze=False)[0]
    for axis in axes:
        axis.grid(axis="y", color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def style(number: int) -> dict[str, Any]:
    """Colour and marker of the series with this number; no two of the first 56 are alike."""
    return {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}


def draw_rates(
    axis: Axes, places: Sequence[float], rates: Sequence[Rate], number: int, label: str | None = None
) -> None:
    """Points with their intervals; `label` names them in the legend."""
    heights = [100 * rate.value for rate in rates]
    spread = [[100 * (r.value - r.low) for r in rates], [100 * (r.high - r.value) for r in rates]]
    axis.errorbar(places, heights, spread, linestyle="none", markersize=5, capsize=3, label=label, **style(number))


def draw_bars(axis: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Rate]]) -> None:
    """A bar for each series in each group, with intervals; told apart by colour and hatching."""
    width = 0.8 / max(len(series), 1)
    for number, (name, rates) in enumerate(series.items()):
        places = [index + (number - (len(series) - 1) / 2) * width for index in range(len(groups))]
        spread = [[100 * (r.value - r.low) for r in rates], [100 * (r.high - r.value) for r in rates]]
        heights = [100 * rate.value for rate in rates]
        axis.bar(places, heights, width, yerr=spread, capsize=3, label=name, **_bar_style(number))
    axis.set_xticks(range(len(groups)), groups)


def draw_stack(axis: Axes, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """One bar a group, the series' shares (fractions) on top of each other; long group names stand upright."""
    bottoms = [0.0] * len(groups)
    for number, (name, shares) in enumerate(series.items()):
        heights = [100 * share for share in shares]
        axis.bar(range(len(groups)), heights, 0.8, bottoms, label=name, **_bar_style(number))
        bottoms = [below + height for below, height in zip(bottoms, heights, strict=True)]
    upright = any(len(name) > 12 for name in groups)
    axis.set_xticks(range(len(groups)), groups, rotation=90 if upright else 0, fontsize=8)


def draw_legend(figure: Figure, axes: Iterable[Axes], title: str | None = None) -> None:
    """One legend beside the panels, of what any of them shows; within one it would hide points."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(
            list(found.values()), list(found), loc="outside right upper", title=title, fontsize=8, title_fontsize=8,
            frameon=False,
        )  # fmt: skip


def label_points(figure: Figure, labels: Sequence[tuple[Axes, str, float, float]]) -> None:
    """Texts at points of data coordinates, `(axes, text, x, y)`, each where it hides no other and no marker.

    One without room stays out.
    """
    figure.draw_without_rendering()  # so that places on the page are known
    marks: dict[Axes, list[Any]] = {axis: [] for axis, *_ in labels}
    for axis, found in marks.items():
        for line in axis.get_lines():
            if line.get_marker() not in ("None", None, ""):
                found += list(axis.transData.transform(line.get_xydata()))
    taken: list[Any] = []
    for axis, text, x, y in labels:
        for offset in _OFFSETS:
            note = axis.annotate(
                text, (x, y), offset, textcoords="offset points", fontsize=7, ha="center", va="center", color="0.25"
            )
            box = note.get_window_extent()
            if _free(box.padded(_MARK), axis, marks[axis]) and not any(map(box.overlaps, taken)):
                taken.append(box)
                break
            note.remove()


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the file's ending (.svg or .png) says its kind, and no date stands in it."""
    path = Path(path)
    return write_bytes(path, _rendered(figure, path.suffix[1:]))


def data_uri(figure: Figure) -> str:
    """The figure as a PNG inside a web page."""
    return "data:image/png;base64," + base64.b64encode(_rendered(figure, "png")).decode("ascii")


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _bar_style(number: int) -> dict[str, Any]:
    colour, hatch = PALETTE[number % len(PALETTE)], HATCHES[number % len(HATCHES)]
    return {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.0, "ecolor": "0.25"}


def _free(box: Any, axis: Axes, marks: Sequence[Any]) -> bool:
    """Whether a box on the page lies within the axes and hides none of the marks."""
    inside = axis.get_window_extent()
    corners = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
    return corners and not any(box.contains(*mark) for mark in marks)
