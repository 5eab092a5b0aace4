"""The plot of a card: word error rate against the depth of the encoder."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from trainers.figures import draw_legend, draw_rates, new_figure, rate_of, style, write_figure
from trainers.results import ResultRow, language_name

SPREAD = 0.6  # of the least distance between two depths: the series of one depth stand side by side


def plot_depth(rows: Sequence[ResultRow], path: Path) -> Path | None:
    """
    Draw WER (per cent, with intervals) against the number of encoder blocks, a series for each language with and without LoRA.
    Nothing is drawn, and None returned, when all rows have the same depth.
    """
    usable = [row for row in rows if row.get("wer") is not None and row.get("encoder_layers")]
    depths = sorted({row["encoder_layers"] for row in usable})
    if len(depths) < 2:
        return None
    series: dict[tuple[str, bool], list[ResultRow]] = {}
    for row in sorted(usable, key=lambda row: row["encoder_layers"]):
        series.setdefault((language_name(row.get("language")), bool(row.get("lora"))), []).append(row)
    step = SPREAD * min(high - low for low, high in pairwise(depths)) / len(series)
    figure, (axis,) = new_figure(width=5.0)
    for number, ((language, lora), points) in enumerate(sorted(series.items())):
        places = [row["encoder_layers"] + (number - (len(series) - 1) / 2) * step for row in points]
        rates = [rate_of(row) for row in points]
        draw_rates(axis, places, rates, number, f"{language}{', LoRA' if lora else ''}")
        axis.plot(places, [100 * rate.value for rate in rates], color=style(number)["color"], linewidth=0.8)
    axis.set_xticks(depths)
    axis.set_xlabel("encoder blocks")
    axis.set_ylabel("word error rate (%), 95 % interval")
    axis.set_ylim(bottom=0)
    draw_legend(figure, [axis])
    return write_figure(figure, path)
