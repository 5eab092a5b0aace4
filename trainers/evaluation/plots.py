"""Plots for the HTML report, as PNG data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLOURS = {"substitutions": "#d97706", "deletions": "#dc2626", "insertions": "#2563eb"}
LINE = "#0f766e"


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
    figure, axes = _figure()
    words = max(metrics["reference_words"], 1)
    values = [100 * metrics[kind] / words for kind in COLOURS]
    bars = axes.bar(list(COLOURS), values, color=list(COLOURS.values()))
    axes.bar_label(bars, fmt="%.2f")
    axes.margins(y=0.15)
    axes.set_ylabel("per 100 words")
    return _data_uri(figure)


def _histogram(rates: Sequence[float]) -> str:
    figure, axes = _figure()
    axes.hist(np.minimum(100 * np.asarray(rates), 150), bins=[*range(0, 155, 5)], color=LINE)
    axes.set_xlabel("WER of the utterance (%), 150 and more in the last bar")
    axes.set_ylabel("utterances")
    return _data_uri(figure)


def _bins(bins: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure()
    rates = np.array([100 * row["rate"] for row in bins])
    axes.plot(range(len(bins)), rates, marker="o", color=LINE)
    bounds = np.array([row["ci"] or [row["rate"], row["rate"]] for row in bins])
    axes.fill_between(range(len(bins)), 100 * bounds[:, 0], 100 * bounds[:, 1], color=LINE, alpha=0.2)
    axes.set_xticks(range(len(bins)), [row["bin"] for row in bins], rotation=20)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("error rate (%)")
    return _data_uri(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _data_uri(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
