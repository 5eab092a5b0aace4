"""The plot of a card: word error rate against the depth of the encoder."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from trainers.figures import draw_legend, draw_rates, new_figure, rate_of, style, write_figure
from trainers.results import ResultRow, language_name, mean
from trainers.study.plots import PLAIN, model_names, system_name

SPREAD = 0.6  # of the least distance between two depths: the series of one depth stand side by side


def plot_depth(rows: Sequence[ResultRow], path: Path) -> Path | None:
    """
    Draw WER (per cent, with intervals) against the number of encoder blocks, a series for each language and kind of system (and base
    models, where there are several), with a line through the means over seeds. Nothing is drawn, and None returned, when all rows
    have the same depth.
    """
    usable = [row for row in rows if row.get("wer") is not None and row.get("encoder_layers")]
    depths = sorted({row["encoder_layers"] for row in usable})
    if len(depths) < 2:
        return None
    series: dict[str, list[ResultRow]] = {}
    for row in sorted(usable, key=lambda row: row["encoder_layers"]):
        system = system_name(row)
        parts = [*model_names(row, usable), language_name(row.get("language")), *([system] if system != PLAIN else [])]
        series.setdefault(", ".join(parts), []).append(row)
    step = SPREAD * min(high - low for low, high in pairwise(depths)) / len(series)
    figure, (axis,) = new_figure(width=5.0)
    for number, (label, points) in enumerate(sorted(series.items())):
        shift = (number - (len(series) - 1) / 2) * step
        draw_rates(axis, [row["encoder_layers"] + shift for row in points], list(map(rate_of, points)), number, label)
        here = sorted({row["encoder_layers"] for row in points})
        means = [mean(rate_of(row).value for row in points if row["encoder_layers"] == depth) for depth in here]
        axis.plot(
            [depth + shift for depth in here],
            [100 * value for value in means],
            color=style(number)["color"],
            linewidth=0.8,
        )
    axis.set_xticks(depths)
    axis.set_xlabel("encoder blocks")
    axis.set_ylabel("word error rate (%), 95 % interval")
    axis.set_ylim(bottom=0)
    draw_legend(figure, [axis])
    return write_figure(figure, path)
