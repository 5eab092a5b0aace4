"""What the README alone promises; what all pages do is in test_docs."""

import configparser
import json
import re
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_screen_says_what_it_is_shows_it_and_installs_it() -> None:
    first = README[: README.index("<!-- real study -->")]
    assert first.count("\n") < 40
    assert (
        first.index("A small, cheap speech recogniser")
        < first.index("docs/architecture.svg")
        < first.index("pip install")
    )
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 5


def test_results_are_those_of_the_recorded_run() -> None:
    table = README.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    recorded = json.loads((ROOT / "benchmarks" / "quickstart" / "results.json").read_text(encoding="utf-8"))
    rows = [row for row in recorded if row["language"] == "all"]
    assert len(rows) == 3
    for row in rows:
        low, high = (100 * bound for bound in row["wer_ci"])
        total, trained = row["total_params"] / 1e6, row["trainable_params"] / 1e6
        figures = f"{100 * row['wer']:.1f} % | {low:.1f}-{high:.1f} % | {total:.2f} M | {trained:.3f} M"
        assert f"| {row['name']} | {figures} |" in table


def test_the_example_card_is_of_the_recorded_run() -> None:
    recorded = json.loads((ROOT / "benchmarks" / "quickstart" / "results.json").read_text(encoding="utf-8"))
    facts = json.loads((ROOT / "model_cards" / "example" / "facts.json").read_text(encoding="utf-8"))
    (evaluation,) = facts["evaluations"]
    metrics = evaluation["metrics"]
    best = min((row for row in recorded if row["language"] == "all"), key=lambda row: row["wer"])
    for name in ("wer", "wer_ci", "cer", "substitutions", "deletions", "insertions"):
        assert metrics[name] == best[name], name
    files = {path.name for path in (ROOT / "modeling_slam_asr").glob("*_slam_asr.py")}
    card = (ROOT / "model_cards" / "example" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+_slam_asr\.py)\]", card, re.MULTILINE)) == files


def test_a_picture_is_a_file_without_scripts() -> None:
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert "pruned" in picture and "<script" not in picture


def test_extras_exist_and_are_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(setup["options.extras_require"])
    pages = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    pages += [path for name in ("trainers", "hub_upload", "modeling_slam_asr") for path in (ROOT / name).rglob("*.py")]
    named = {
        (extra.strip(), page.name)
        for page in pages
        for group in re.findall(r"(?:slam-asr|['\"]\.)\[([a-z, -]+)\]", page.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert len(named) > 5
    assert [one for one in named if one[0] not in extras] == []
    listed = set(re.findall(r"`([a-z-]+)`", README.partition("Extras:")[2].partition("\n\n")[0]))
    assert listed <= extras
    assert extras - {"test", "dev", "browser"} <= {*listed, *(name for name, _ in named)}, "told where users look"
