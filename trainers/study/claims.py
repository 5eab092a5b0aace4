"""The paper's claims (arXiv 2603.27981), each read against the rows of a study or a quickstart.

A verdict rests on an interval of the relative change in word errors between matched runs: the same base models, language and
seed. The interval comes from a paired comparison of transcripts where one is handed in, else from the two runs' own WER
intervals (wider: it ignores that both transcribed the same utterances). Seeds of the same models, language and depth are
averaged; their spread is added to the interval. Models and depths are a choice and no sample: a claim on all depths is judged
at each.

- `agree`: the interval excludes no change, and the estimate lies where the claim says.
- `disagree`: the interval lies wholly outside of what the claim says.
- `not enough evidence`: anything else, and rows that are missing.
- `withheld`: every system of the pairs has a WER above `TOO_WRONG`. What barely recognises anything says nothing of a claim.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scipy import stats

from trainers.results import ERROR_TYPES, ErrorType, ResultRow, errors_of, known_wer, language_name, mean

PairedInterval = Callable[[ResultRow, ResultRow], tuple[float, float] | None]
"""From a baseline's row and another's to the 95 % interval of their relative difference in WER, or None if it is unknown."""

TOO_WRONG = 0.6
AGREE, DISAGREE, UNCLEAR = "agree", "disagree", "not enough evidence"
WITHHELD = f"withheld (all WER above {100 * TOO_WRONG:.0f} %)"
PRUNED = 2
_Z = 1.959964


@dataclass(frozen=True)
class Effect:
    """The relative change of the word errors (-0.1: a tenth fewer) with its 95 % interval, over `pairs` matched runs."""

    change: float
    low: float
    high: float
    pairs: int

    def describe(self) -> str:
        """`+3.1 % (95 % interval +1.0 to +5.2 %, 2 pairs of runs)`."""
        runs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
        return f"{_percent(self.change)} (95 % interval {_percent(self.low)} to {_percent(self.high)}; {runs} of runs)"


class _Ratio(NamedTuple):
    """The logarithm of a ratio of error rates, and how far its 95 % interval goes below and above it."""

    log: float
    below: float
    above: float


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper states, what was found here, and the verdict (`agree`, `disagree`, `not enough evidence`, `withheld ...`)."""

    name: str
    statement: str
    found: str
    verdict: str
    effects: dict[str, Effect] = field(default_factory=dict)
    """By language."""


def read_claims(rows: Iterable[ResultRow], paired: PairedInterval | None = None) -> list[Claim]:
    """
    The claims on depth, on pruning with LoRA, and on LoRA for each of the paper's languages.

    Args:
        rows: of `results.jsonl` or `results.json`. Rows of other ways to choose blocks, and healed ones, are left out. Rows
            of all languages together (`language` "all") count only where there are none by language.
        paired: gives the interval of a matched pair from its transcripts.
    """
    kept = [row for row in rows if row.get("selection", "last") == "last" and not row.get("healing") and _whole(row)]
    if any(row["language"] != "all" for row in kept):
        kept = [row for row in kept if row["language"] != "all"]
    counts = sorted({_dropped(row) for row in kept} - {0})
    pruned = PRUNED if PRUNED in counts or not counts else counts[0]
    return [
        _depth(kept, pruned, paired),
        _pruned_lora(kept, pruned, paired),
        *(_lora(kept, language, paired) for language in ("nl", "en", "da")),
    ]


def effect_of(pairs: Sequence[tuple[ResultRow, ResultRow]], paired: PairedInterval | None = None) -> Effect | None:
    """The mean relative change over matched pairs (baseline, other); None without a pair that has errors on both sides.

    Models, depths and seeds of one language share their test utterances, so their sampling errors are not averaged away;
    those of different languages are independent.
    """
    groups: dict[str, dict[tuple[str, ...], list[_Ratio]]] = {}
    for baseline, other in pairs:
        if errors_of(baseline) and errors_of(other):
            depths = (str(row["prune_encoder_layers"]) for row in (baseline, other))
            system = baseline["audio_model"], baseline["text_model"], *depths
            ratio = _log_ratio(baseline, other, paired)
            groups.setdefault(baseline["language"], {}).setdefault(system, []).append(ratio)
    if not groups:
        return None
    languages = []
    for by_system in groups.values():
        found = [_of_seeds(ratios) for ratios in by_system.values()]
        languages.append(_Ratio(*(mean(values) for values in zip(*found, strict=True))))
    centre = mean(each.log for each in languages)
    below, above = (math.hypot(*errors) / len(languages) for errors in list(zip(*languages, strict=True))[1:])
    count = sum(len(ratios) for by_system in groups.values() for ratios in by_system.values())
    return Effect(math.expm1(centre), math.expm1(centre - below), math.expm1(centre + above), count)


def _of_seeds(ratios: Sequence[_Ratio]) -> _Ratio:
    """The mean of several seeds; their spread, by Student's t, is added to what sampling leaves open. One seed shows none."""
    middle = mean(each.log for each in ratios)
    freedom = max(len(ratios) - 1, 1)
    spread = sum((each.log - middle) ** 2 for each in ratios) / freedom / len(ratios)
    width = float(stats.t.ppf(0.975, freedom)) * math.sqrt(spread)
    sides = (mean(each.below for each in ratios), mean(each.above for each in ratios))
    return _Ratio(middle, *(math.hypot(side, width) for side in sides))


def verdict_in_range(effect: Effect | None, low: float, high: float) -> str:
    """Whether an effect is one of size `low` to `high` (relative changes of the same sign)."""
    if effect is None:
        return UNCLEAR
    if effect.low > high or effect.high < low:
        return DISAGREE
    if low <= effect.change <= high and (effect.low > 0 or effect.high < 0):
        return AGREE
    return UNCLEAR


def _unless_too_wrong(verdict: str, pairs: Sequence[tuple[ResultRow, ResultRow]]) -> str:
    """The verdict, or that it is withheld because no system of any pair recognises speech well enough."""
    return WITHHELD if _hopeless(pairs) else verdict


def _hopeless(pairs: Sequence[tuple[ResultRow, ResultRow]]) -> bool:
    return bool(pairs) and all(known_wer(row) > TOO_WRONG for pair in pairs for row in pair)


def _depth(rows: Sequence[ResultRow], pruned: int, paired: PairedInterval | None) -> Claim:
    pairs = match(rows, (0, False), (pruned, False))
    effect = effect_of(pairs, paired)
    effects = _by_language(pairs, paired)
    named = "two" if pruned == 2 else str(pruned)
    return Claim(
        "depth",
        f"Dropping {named} encoder layer{'' if pruned == 1 else 's'} costs 2-4 % relative WER.",
        _found(effect, effects, f"no pair of runs with 0 and {pruned} layers dropped, projector only"),
        _unless_too_wrong(verdict_in_range(effect, 0.02, 0.04), pairs),
        effects,
    )


def _pruned_lora(rows: Sequence[ResultRow], pruned: int, paired: PairedInterval | None) -> Claim:
    pairs = match(rows, (0, False), (pruned, True))
    effect = effect_of(pairs, paired)
    effects = _by_language(pairs, paired)
    found = _found(effect, effects, f"no pair of an unpruned projector-only run and one with {pruned} dropped and LoRA")
    verdict = UNCLEAR
    if effect is not None:
        total = 1 - mean(other["total_params"] / base["total_params"] for base, other in pairs)
        paper = 1 - mean(_paper_parameters(other) / _paper_parameters(base) for base, other in pairs)
        found += f" {_amount(total)} parameters in total, {_amount(paper)} without the LLM (the paper's accounting: 7-14 % fewer)."
        if effect.low > 0 or total <= 0:
            verdict = DISAGREE
        elif effect.high < 0:
            verdict = AGREE
    statement = "Pruned, with LoRA, the system beats the unpruned projector-only baseline and has fewer parameters."
    return Claim("pruned with LoRA", statement, found, _unless_too_wrong(verdict, pairs), effects)


def _lora(rows: Sequence[ResultRow], language: str, paired: PairedInterval | None) -> Claim:
    counts = sorted({_dropped(row) for row in rows})
    here = [row for row in rows if row["language"] == language]
    by_depth = {count: match(here, (count, False), (count, True)) for count in counts}
    pairs = [pair for each in by_depth.values() for pair in each]
    effect = effect_of(pairs, paired)
    danish = language == "da"
    low, high = (-0.07, -0.04) if danish else (-0.21, -0.11)
    what = "while insertions rise" if danish else "mostly substitutions and deletions"
    statement = f"LoRA cuts the word errors of {language_name(language)} by {-high:.0%} to {-low:.0%}, {what}.".replace(
        "%", " %"
    )
    judged = {count: each for count, each in by_depth.items() if each and not _hopeless(each)}
    depths = {count: effect_of(each, paired) for count, each in judged.items()}
    found = _found(effect, {}, f"no pair of {language_name(language)} runs of equal depth with and without LoRA")
    if effect is not None and len(pairs) > 1 and judged:
        shown = [
            f"{pairs_of[0][0]['encoder_layers']} layers {_with_interval(depths[count])}"
            for count, pairs_of in judged.items()
        ]
        found += (
            f" Judged by depth, where one of a pair has a WER of {100 * TOO_WRONG:.0f} % or less: {', '.join(shown)}."
        )
    verdict = _all_of([verdict_in_range(each, low, high) for each in depths.values()])
    if effect is not None:
        counted = [pair for each in judged.values() for pair in each] or pairs
        before = {kind: sum(base[kind] for base, _ in counted) for kind in ERROR_TYPES}
        after = {kind: sum(other[kind] for _, other in counted) for kind in ERROR_TYPES}
        found += " " + ", ".join(f"{kind} {before[kind]} to {after[kind]}" for kind in ERROR_TYPES).capitalize() + "."
        change = effect_of(counted, paired)
        fewer = change is not None and change.high < 0
        verdict = _with_error_types(verdict, before, after, len(counted), danish, fewer)
    verdict = _unless_too_wrong(verdict, pairs)
    return Claim(f"LoRA, {language_name(language)}", statement, found, verdict, {language: effect} if effect else {})


def _all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that has to hold in several cases."""
    if DISAGREE in verdicts:
        return DISAGREE
    return AGREE if verdicts and set(verdicts) == {AGREE} else UNCLEAR


def _with_error_types(
    verdict: str, before: Mapping[ErrorType, int], after: Mapping[ErrorType, int], pairs: int, danish: bool, fewer: bool
) -> str:
    """A claim on size and kind of errors holds only if both halves do; kinds are read off errors that are `fewer` for certain.

    Args:
        before, after: sums over `pairs`, which all transcribed the same utterances: no more certain than the counts of one.
    """
    if danish:
        rise = after["insertions"] - before["insertions"]
        # The mean counts as Poisson variables, times the number of pairs.
        margin = _Z * math.sqrt(pairs * (after["insertions"] + before["insertions"]))
        kinds = AGREE if rise > margin else DISAGREE if rise < -margin else UNCLEAR
    else:
        cut = sum(before.values()) - sum(after.values())
        saved = cut - (before["insertions"] - after["insertions"])
        kinds = UNCLEAR if not fewer else AGREE if saved > cut / 2 else DISAGREE
    return _all_of([verdict, kinds])


def match(
    rows: Sequence[ResultRow], first: tuple[int, bool], second: tuple[int, bool]
) -> list[tuple[ResultRow, ResultRow]]:
    """Pairs of rows with (layers dropped, LoRA) as `first` and as `second`, alike in base models, language and seed."""
    names = ("audio_model", "text_model", "language", "seed")
    kinds: list[dict[tuple[Any, ...], ResultRow]] = [{}, {}]
    for row in rows:
        for kind, wanted in zip(kinds, (first, second), strict=True):
            if (_dropped(row), row["lora"]) == wanted:
                kind[tuple(row.get(name) for name in names)] = row
    return [(kinds[0][key], kinds[1][key]) for key in kinds[0] if key in kinds[1]]


def _log_ratio(baseline: ResultRow, other: ResultRow, paired: PairedInterval | None) -> _Ratio:
    ratio = math.log(known_wer(other) / known_wer(baseline))
    interval = paired(baseline, other) if paired is not None else None
    if interval is not None and min(interval) > -1:
        low, high = map(math.log1p, interval)
        return _Ratio(ratio, max(ratio - low, 0.0), max(high - ratio, 0.0))
    own = math.hypot(*map(_half_width, (baseline, other)))
    return _Ratio(ratio, own, own)


def _half_width(row: ResultRow) -> float:
    """Of a row's own interval, relative to its rate."""
    assert row["wer_ci"] is not None
    low, high = row["wer_ci"]
    return (high - low) / (2 * known_wer(row))


def _by_language(pairs: Sequence[tuple[ResultRow, ResultRow]], paired: PairedInterval | None) -> dict[str, Effect]:
    languages = dict.fromkeys(base["language"] for base, _ in pairs)
    found = {name: effect_of([pair for pair in pairs if pair[0]["language"] == name], paired) for name in languages}
    return {name: effect for name, effect in found.items() if effect is not None}


def _found(effect: Effect | None, effects: Mapping[str, Effect], missing: str) -> str:
    if effect is None:
        return f"{missing[0].upper()}{missing[1:]}, or one of a pair has no errors at all."
    parts = [f"{language_name(name)} {_percent(each.change)}" for name, each in effects.items()]
    return f"WER {effect.describe()}{': ' + ', '.join(parts) if len(parts) > 1 else ''}."


def _whole(row: ResultRow) -> bool:
    # A list of indices is another way to choose blocks than the paper's.
    return isinstance(row.get("prune_encoder_layers"), int) and row.get("wer") is not None and bool(row.get("wer_ci"))


def _dropped(row: ResultRow) -> int:
    """How many layers were dropped, where they are counted and not listed."""
    count = row["prune_encoder_layers"]
    assert isinstance(count, int)
    return count


def _paper_parameters(row: ResultRow) -> int:
    """Encoder, projector and LoRA: what the paper's savings are of."""
    return row["encoder_params"] + row["trainable_params"]


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _with_interval(effect: Effect | None) -> str:
    return (
        "no errors"
        if effect is None
        else f"{_percent(effect.change)} ({_percent(effect.low)} to {_percent(effect.high)})"
    )


def _amount(saving: float) -> str:
    return f"{100 * abs(saving):.1f} % {'fewer' if saving >= 0 else 'more'}"
