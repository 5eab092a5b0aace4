"""Plots for the HTML report, as PNG data URIs."""

from collections.abc import Mapping, Sequence

from trainers.figures import PALETTE, Rate, data_uri, new_figure, rate_with_interval
from trainers.results import ERROR_TYPES, Figures, Metrics

_WIDTH, _HEIGHT = 5.0, 3.2
_LAST_BAR = 150


def score_plots(metrics: Metrics, utterance_rates: Sequence[float]) -> list[tuple[str, str]]:
    """`(caption, data URI)` of every plot that there is data for. utterance_rates: WER of each utterance."""
    plots = [("Error types per 100 reference words", _error_types(metrics))]
    plots.append(("Utterances by their own word error rate", _histogram(utterance_rates)))
    analysis = metrics.get("error_analysis")
    if analysis is None:
        return plots
    for caption, bins in (
        ("WER by number of words", analysis["utterances"].get("by_words", [])),
        ("WER by seconds", analysis["utterances"].get("by_duration", [])),
        ("Word errors by word frequency", analysis["words"]["by_frequency"]),
    ):
        known = {row["bin"]: rate_with_interval(row["rate"], row["ci"]) for row in bins if row["rate"] is not None}
        if len(known) > 1:
            plots.append((caption, _bins(known)))
    return plots


def _error_types(metrics: Figures) -> str:
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


def _bins(bins: Mapping[str, Rate]) -> str:
    figure, (axis,) = new_figure(width=_WIDTH, height=_HEIGHT, legend=False)
    rates, places = bins.values(), range(len(bins))
    axis.plot(places, [100 * rate.value for rate in rates], marker="o", color=PALETTE[0])
    low, high = [100 * rate.low for rate in rates], [100 * rate.high for rate in rates]
    axis.fill_between(places, low, high, color=PALETTE[0], alpha=0.2)
    axis.set_xticks(places, list(bins), rotation=20)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("error rate (%)")
    return data_uri(figure)
