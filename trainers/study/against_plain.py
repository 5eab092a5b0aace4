"""Healed encoders and elastic projectors against plain pruning: matched runs that differ in nothing else."""

from collections.abc import Sequence
from typing import Any

from trainers.evaluation.format import markdown_table, percent
from trainers.results import ResultRow, known_wer, language_name, mean
from trainers.study.claims import Effect, PairedInterval, effect_of
from trainers.study.plots import HEALED

NAMES = {**HEALED, "elastic": "one elastic projector for all depths"}
_ALIKE = ("audio_model", "text_model", "language", "seed", "lora", "split")


def against_plain(rows: Sequence[ResultRow], paired: PairedInterval | None = None) -> str | None:
    """A Markdown table of the relative change in word errors, by way, language and depth; None without such runs.

    Args:
        rows: of `results.jsonl`. A healed or elastic row is matched with the plainly pruned one that keeps the same blocks.
        paired: as for `read_claims`.
    """
    plain = {_key(row): row for row in rows if not row.get("healing")}
    groups: dict[tuple[str, str], dict[int, list[tuple[ResultRow, ResultRow]]]] = {}
    for row in rows:
        partner = plain.get(_key(row)) if row.get("healing") else None
        if partner is not None and None not in (partner["wer"], row["wer"]):  # a language without a word has no rate
            depths = groups.setdefault((str(row["healing"]), row["language"]), {})
            depths.setdefault(row["encoder_layers"], []).append((partner, row))
    if not groups:
        return None
    lines: list[list[Any]] = []
    for (way, language), depths in groups.items():
        everything = [pair for pairs in depths.values() for pair in pairs]
        shown = [(str(depth), depths[depth]) for depth in sorted(depths, reverse=True)]
        for label, pairs in [*shown, *([("all", everything)] if len(depths) > 1 else [])]:
            effect = effect_of(pairs, paired)
            before, after = (mean(known_wer(pair[side]) for pair in pairs) for side in (0, 1))
            lines.append(
                [
                    NAMES.get(way, way), language_name(language), label, percent(before), percent(after), *_change(effect),
                    len(pairs),
                ]
            )  # fmt: skip
    header = ["way", "language", "layers", "WER, plain", "WER, this way", "change", "95 % interval", "pairs"]
    return markdown_table(header, lines, numeric_from=2).rstrip()


def _key(row: ResultRow) -> tuple[Any, ...]:
    return (*(row.get(name) for name in _ALIKE), tuple(row.get("kept_encoder_layers") or [row["encoder_layers"]]))


def _change(effect: Effect | None) -> tuple[str, str]:
    """The change and its interval."""
    if effect is None:
        return "none", "none"
    return f"{100 * effect.change:+.1f} %", f"{100 * effect.low:+.1f} to {100 * effect.high:+.1f} %"
