"""The plot of a card: word error rate against the depth of the encoder."""

from pathlib import Path
from typing import Any

from modeling_slam_asr.processing_slam_asr import LANGUAGE_NAMES


def plot_depth(rows: list[dict[str, Any]], path: Path) -> Path | None:
    """
    Draw WER (per cent, with intervals) against the number of encoder blocks, a line for each language and with and without
    LoRA. Nothing is drawn, and None returned, when all rows have the same depth.
    """
    usable = [row for row in rows if row.get("wer") is not None and row.get("encoder_layers")]
    if len({row["encoder_layers"] for row in usable}) < 2:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    series: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in usable:
        series.setdefault((row.get("language") or "", bool(row.get("lora"))), []).append(row)
    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=120)
    for (language, lora), points in sorted(series.items()):
        points = sorted(points, key=lambda row: row["encoder_layers"])
        rates = [100 * row["wer"] for row in points]
        bounds = [row.get("wer_ci") or [row["wer"], row["wer"]] for row in points]
        errors = [
            [max(0.0, rate - 100 * low) for rate, (low, _) in zip(rates, bounds, strict=True)],
            [max(0.0, 100 * high - rate) for rate, (_, high) in zip(rates, bounds, strict=True)],
        ]
        label = f"{LANGUAGE_NAMES.get(language, language) or 'all'}{', LoRA' if lora else ''}"
        depths = [row["encoder_layers"] for row in points]
        axes.errorbar(depths, rates, yerr=errors, marker="o", capsize=3, linestyle="--" if lora else "-", label=label)
    axes.set_xlabel("encoder blocks")
    axes.set_ylabel("word error rate (%), 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})  # the same rows give the same bytes
    pyplot.close(figure)
    return path
