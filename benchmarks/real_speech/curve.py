"""Word error rate against hours of training speech, and validation's against steps.

    python -m benchmarks.real_speech.curve en/curve.json en/curve.svg

The file has `hours` (rows of results with their hours of speech, `series` names those that go together), `steps` (validation's word error
rates by step, a list a run) and `whisper`, the rate of Whisper's own decoder on the same test utterances.
"""

import argparse
import json
from pathlib import Path
from typing import NotRequired, TypedDict

from trainers.figures import GREY, draw_legend, draw_rates, new_figure, rate_with_interval, style, write_figure

APART = 1.02  # series of as many hours stand side by side


class HoursRow(TypedDict):
    """A system: its training speech in hours, and its rate on the test sets with the interval, as fractions."""

    series: str
    hours: float
    steps: int
    wer: float
    wer_ci: NotRequired[list[float]]


class Curves(TypedDict):
    """What is drawn."""

    hours: list[HoursRow]
    steps: dict[str, list[tuple[int, float]]]
    whisper: float


def draw(curves: Curves, path: Path) -> None:
    """Two panels: by hours, on a logarithmic axis, and by steps."""
    figure, (hours, steps) = new_figure(2)
    names = list(dict.fromkeys([*(row["series"] for row in curves["hours"]), *curves["steps"]]))
    for number, name in enumerate(names):
        rows = [row for row in curves["hours"] if row["series"] == name]
        if rows:
            found = [rate_with_interval(row["wer"], row.get("wer_ci")) for row in rows]
            draw_rates(hours, [row["hours"] for row in rows], found, number, name)
            hours.plot([row["hours"] for row in rows], [100 * row["wer"] for row in rows], color=style(number)["color"])
        points = curves["steps"].get(name, [])
        if points:
            places, rates = zip(*points, strict=True)
            steps.plot(places, [100 * rate for rate in rates], label=name, markersize=5, **style(number))
    hours.axhline(100 * curves["whisper"], color=GREY, linestyle="--", linewidth=0.9, label="whisper-base itself")
    hours.set_xscale("log")
    most = max(row["hours"] for row in curves["hours"])
    ticks = [2**power for power in range(20) if 2**power < 2 * most]
    hours.set_xticks(ticks, list(map(str, ticks)))
    hours.minorticks_off()
    hours.set_xlabel("hours of training speech")
    hours.set_ylabel("word error rate (%), 95 % interval")
    steps.set_xlabel("steps of 30 s (validation)")
    hours.set_ylim(bottom=0)
    draw_legend(figure, [hours, steps])
    write_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, help="JSON file with what is drawn")
    parser.add_argument("figure", type=Path, help=".svg or .png to write")
    given = parser.parse_args()
    draw(json.loads(given.curves.read_text(encoding="utf-8")), given.figure)


if __name__ == "__main__":
    main()
