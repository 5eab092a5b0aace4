"""What the README alone promises; what all pages do is in test_docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_snippet_is_five_lines_at_most() -> None:
    assert README.index("```python") < 30
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 5


def test_results_are_those_of_the_recorded_run() -> None:
    table = README.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    assert table.count("|") > 20
    recorded = (ROOT / "benchmarks" / "quickstart" / "report.md").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line.startswith("| full") or line.startswith("| 2 "):
            assert line in recorded
