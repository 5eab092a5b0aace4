"""Plots for the HTML report, as PNG data URIs."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainers.figures import PALETTE, data_uri, new_figure, rate_of
from trainers.results import ERROR_TYPES

_WIDTH, _HEIGHT = 5.0, 3.2
_LAST_BAR = 150


def score_plots(metrics: Mapping[str, Any], utterance_rates: Sequence[float]) -> list[tuple[str, str]]:
    """`(caption, data URI)` of every plot that there is data for. utterance_rates: WER of each utterance."""
    plots = [("Error types per 100 reference words", _error_types(metrics))]
    plots.append(("Utterances by their own word error rate", _histogram(utterance_rates)))
    analysis = metrics.get("error_analysis") or {}
    for part, key, caption in (
        ("utterances", "by_words", "WER by number of words"),
        ("utterances", "by_duration", "WER by seconds"),
        ("words", "by_frequency", "Word errors by word frequency"),
    ):
        bins = [row for row in analysis.get(part, {}).get(key, []) if row["rate"] is not None]
        if len(bins) > 1:
            plots.append((caption, _bins(bins)))
    return plots


def _error_types(metrics: Mapping[str, Any]) -> str:
    figure, (axis,) = new_figure(width=_WIDTH, height=_HEIGHT, legend=False)
    words = max(metrics["reference_words"], 1)
    bars = axis.bar(
        ERROR_TYPES, [100 * metrics[kind] / words for kind in ERROR_TYPES], color=PALETTE[: len(ERROR_TYPES)]
    )
    axis.bar_label(bars, fmt="%.1f")
    axis.margins(y=0.15)
    axis.set_ylabel("per 100 words")
    return data_uri(figure)


def _histogram(rates: Sequence[float]) -> str:
    figure, (axis,) = new_figure(width=_WIDTH, height=_HEIGHT, legend=False)
    axis.hist([min(100 * rate, _LAST_BAR) for rate in rates], bins=[*range(0, _LAST_BAR + 5, 5)], color=PALETTE[0])
    axis.set_xlabel(f"WER of the utterance (%), {_LAST_BAR} and more in the last bar")
    axis.set_ylabel("utterances")
    return data_uri(figure)


def _bins(bins: Sequence[Mapping[str, Any]]) -> str:
    figure, (axis,) = new_figure(width=_WIDTH, height=_HEIGHT, legend=False)
    rates = [rate_of(row, "rate", "ci") for row in bins]
    places = range(len(bins))
    axis.plot(places, [100 * rate.value for rate in rates], marker="o", color=PALETTE[0])
    low, high = [100 * rate.low for rate in rates], [100 * rate.high for rate in rates]
    axis.fill_between(places, low, high, color=PALETTE[0], alpha=0.2)
    axis.set_xticks(places, [row["bin"] for row in bins], rotation=20)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("error rate (%)")
    return data_uri(figure)
