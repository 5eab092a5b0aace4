"""Figures as people read them."""

from collections.abc import Sequence
from typing import Any

from trainers.results import RATES, ScoreTable

Interval = Sequence[float] | None
RATE_NAMES = [rate.short for rate in RATES]


def percent(rate: float | None) -> str:
    """0.1234 as "12.3 %", the one way in which a rate is written for people; a dash where there is no figure."""
    return "–" if rate is None else f"{100 * rate:.1f} %"


def percent_range(ci: Interval) -> str:
    """[0.1, 0.15] as "10.0 to 15.0 %"."""
    return "–" if ci is None else f"{100 * ci[0]:.1f} to {100 * ci[1]:.1f} %"


def percent_with_interval(rate: float | None, ci: Interval) -> str:
    """0.12 with [0.1, 0.15] as "12.0 % [10.0, 15.0]"."""
    return percent(rate) if rate is None or ci is None else f"{percent(rate)} [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def rates_with_intervals(table: ScoreTable) -> list[str]:
    """Every rate of a table with its interval, in the order of `RATE_NAMES`."""
    return [percent_with_interval(rate.of(table), table.get(rate.interval)) for rate in RATES]


def rates_in_short(table: ScoreTable) -> list[str]:
    """As `rates_with_intervals`, but only the first with its interval."""
    return [*rates_with_intervals(table)[:1], *(percent(rate.of(table)) for rate in RATES[1:])]


def points_with_interval(difference: float | None, ci: Interval) -> str:
    """A difference of rates in percentage points, with its sign."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.1f} points"
    return text if ci is None else f"{text} [{100 * ci[0]:+.1f}, {100 * ci[1]:+.1f}]"


def relative_with_interval(change: float | None, ci: Interval) -> str:
    """A relative change, with its sign."""
    if change is None:
        return "–"
    text = f"{100 * change:+.1f} %"
    return text if ci is None else f"{text} [{100 * ci[0]:+.1f}, {100 * ci[1]:+.1f}]"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def mebibytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:,.0f} MiB"


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], numeric_from: int = 1, *, raw: bool = False
) -> str:
    """A Markdown table; columns from `numeric_from` on stand to the right. Cells are escaped, unless they are Markdown (`raw`)."""
    rule = ["---" if i < numeric_from else "---:" for i in range(len(header))]
    lines = [header, rule, *rows]
    cell = str if raw else _cell
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def escape_markdown(text: str) -> str:
    """One line of `text` that Markdown shows as it is."""
    text = " ".join(text.split())
    for character in "\\|`*_<[":
        text = text.replace(character, "\\" + character)
    return text


def _cell(value: Any) -> str:
    return str(value) if value in ("---", "---:") else escape_markdown(str(value)) or " "
