"""The four files of a report, and the HTML page in a browser."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from trainers.evaluation import SpeedMeter, evaluate_rows, read_predictions
from trainers.evaluation.format import markdown_table, percent_with_interval
from trainers.evaluation.html_report import audio_link
from trainers.results import EVALUATION_FILES

from ...browser import CHROMIUM, needs

FIXED = Path(__file__).parent / "data" / "mixed.jsonl"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--timeout=20000",
    "--dump-dom",
]
ATTACK = '"><img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>{{ 7*7 }}&amp;'


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """The fixed file, the first row with sound, another one with hostile text everywhere."""
    rows = read_predictions(FIXED)
    sound = tmp_path / "sound files" / "één #1.wav"
    sound.parent.mkdir()
    soundfile.write(sound, 0.1 * np.sin(np.arange(8000) / 10), 16_000)
    rows[0] |= {"audio": str(sound), "confidence": 0.75}
    rows.append(
        {"id": ATTACK, "reference": f"a {ATTACK}", "prediction": f"{ATTACK} b", "speaker_id": ATTACK, "source": ATTACK}
    )
    return rows


def test_the_files(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    meter = SpeedMeter(warmup=0)
    with meter.batch(audio_seconds=10.0):
        pass
    speed = meter.report(parameters=1234567, batch_size=4)
    metrics = evaluate_rows(
        rows, tmp_path / "out", title="A test", speed=speed, extra={"model": "m"}, word_counts={"de": 5}, bootstrap=100
    )
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == set(EVALUATION_FILES)
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["model"] == "m" and metrics["speed"]["parameters"] == 1234567
    assert metrics["error_analysis"]["insertion_kinds"]["loops"] == 8

    predictions = read_predictions(out / "predictions.jsonl")
    first = predictions[0]
    assert first["prediction"] == rows[0]["prediction"] and first["confidence"] == 0.75 and first["seconds"] == 0.4
    assert first["normalized_reference"] == "de brandweerwagen reed in negentienhonderdvijfennegentig door amsterdam"
    assert first["alignment"][1] == ["I", None, "brandweer"]
    assert [first[k] for k in ("errors", "substitutions", "deletions", "insertions", "reference_words")] == [
        2,
        1,
        0,
        1,
        7,
    ]
    assert sum(p["errors"] for p in predictions) == sum(
        metrics[k] for k in ("substitutions", "deletions", "insertions")
    )
    again = evaluate_rows(predictions, bootstrap=100, word_counts={"de": 5})
    assert {k: again[k] for k in ("wer", "wer_ci", "cer")} == {k: metrics[k] for k in ("wer", "wer_ci", "cer")}

    markdown = (out / "report.md").read_text()
    assert markdown.startswith("# A test\n") and percent_with_interval(metrics["wer"], metrics["wer_ci"]) in markdown
    for heading in ("Result", "By language", "By speaker", "Speed and size", "Inserted words", "Words by frequency"):
        assert f"## {heading}" in markdown
    assert "1,234,567" in markdown and "<img" not in re.sub(r"\\<", "", markdown)


def test_tables_by_what_the_data_tell_of_speakers_and_no_ids_of_them(tmp_path: Path) -> None:
    def rows(speaker: str, age: str, prediction: str) -> list[dict[str, Any]]:
        common = {
            "reference": "a b c d",
            "prediction": prediction,
            "speaker_id": speaker,
            "age": age,
            "dialect": "fynsk",
        }
        return [{"id": f"{speaker}{number}", **common} for number in range(3)]

    metrics = evaluate_rows(
        [*rows("ida42", "teens", "a b c d"), *rows("ole7", "fifties", "a b")], tmp_path, bootstrap=0
    )
    assert {age: table["wer"] for age, table in metrics["by_age"].items()} == {"teens": 0.0, "fifties": 0.5}
    assert {name: table["wer"] for name, table in metrics["by_speaker"].items()} == {"speaker 1": 0.0, "speaker 2": 0.5}
    report = (tmp_path / "report.md").read_text()
    assert "## By age" in report and "## By dialect" not in report  # one dialect is no comparison
    for name in ("metrics.json", "report.md"):  # what may be published
        assert not re.search("ida42|ole7", (tmp_path / name).read_text())
    assert "ida42" in (tmp_path / "predictions.jsonl").read_text()


def test_danish_is_also_given_in_corals_sense(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "reference": "en lang sætning med syv ord her", "prediction": "en lang sætning med syv ord her", "language": "da"},
        {"id": "2", "reference": "ja", "prediction": "nej", "language": "da"},
        {"id": "3", "reference": "", "prediction": "nej", "language": "da"},
        {"id": "4", "reference": "nee", "prediction": "ja", "language": "nl"},
    ]  # fmt: skip
    metrics = evaluate_rows(rows, tmp_path, bootstrap=0)
    assert metrics["coral_wer"] == 0.5 and metrics["by_language"]["da"]["wer"] == 2 / 8
    assert (
        "| WER in CoRal's sense (Danish, the mean of the utterances' own rates) | 50.0 % |"
        in (tmp_path / "report.md").read_text()
    )
    assert "coral_wer" not in evaluate_rows(rows[3:], bootstrap=0)


def test_without_intervals_durations_or_words(tmp_path: Path) -> None:
    metrics = evaluate_rows([{"id": "1", "reference": "", "prediction": ""}], tmp_path, normalizer="none", bootstrap=0)
    assert metrics["wer"] is None
    assert "undefined" in (tmp_path / "report.md").read_text()


def test_html_is_self_contained(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    evaluate_rows(rows, tmp_path / "out", bootstrap=50)
    html = (tmp_path / "out" / "report.html").read_text()
    sources: list[str] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            assert not any(name.startswith("on") for name, _ in attrs)
            sources.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "action"))

    Collector().feed(html)
    audio = [s for s in sources if not s.startswith(("data:image/png;base64,", "#"))]
    assert audio == ["../sound%20files/%C3%A9%C3%A9n%20%231.wav"]
    assert "http:" not in html and "https:" not in html and "@import" not in html


def test_most_utterances_are_those_with_most_errors(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    evaluate_rows(rows[:12], tmp_path, bootstrap=0, most_utterances=2)
    html = (tmp_path / "report.html").read_text()
    assert "The 2 with the most errors of 12" in html
    assert 'data-value="nl-4"' in html and 'data-value="nl-3"' not in html


@pytest.mark.parametrize("audio", [None, 3, "", "missing.wav", "https://example.org/a.wav", "a\0.wav", __file__])
def test_only_local_sound_files_are_linked(tmp_path: Path, audio: Any) -> None:
    assert audio_link(audio, tmp_path) is None


def test_markdown_table_is_escaped() -> None:
    assert markdown_table(["a", "b"], [["x|y\nz", "<b>"]]).splitlines()[2] == r"| x\|y z | \<b> |"


def open_in_browser(page: Path, script: str) -> str:
    """The page's DOM after `script` ran in it, from headless Chromium."""
    copy = page.with_name("in_browser.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={page.parent / 'profile'}", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs()
def test_the_page_in_a_browser(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    evaluate_rows(rows, tmp_path / "out", bootstrap=50)
    dom = open_in_browser(
        tmp_path / "out" / "report.html",
        """
        const note = (key, value) => document.body.setAttribute("data-" + key, value);
        window.addEventListener("error", e => note("error", e.message));
        document.addEventListener("securitypolicyviolation", e => note("csp", e.violatedDirective + " " + e.blockedURI));
        const rows = () => [...document.querySelectorAll("#utterances tbody tr")];
        const column = i => rows().map(r => r.cells[i].dataset.value).join(",");
        const press = i => document.querySelectorAll("#utterances thead button")[i].click();
        note("before", column(2)); press(2); note("errors-down", column(2)); press(2); note("errors-up", column(2));
        press(4); note("seconds", column(4)); press(0); note("first-id", rows()[0].cells[0].dataset.value);
        note("sort", document.querySelector("th[aria-sort]").textContent.trim());
        const shown = () => rows().filter(r => !r.hidden).length;
        note("all", shown());
        const only = document.getElementById("only-errors"); only.click(); note("wrong", shown()); only.click();
        const filter = document.getElementById("filter");
        filter.value = "AARHUS"; filter.dispatchEvent(new Event("input")); note("filtered", shown());
        note("status", document.getElementById("shown").textContent);
        const colour = c => getComputedStyle(document.querySelector("." + c + ".pair")).backgroundColor;
        note("colours", new Set([colour("s"), colour("d"), colour("i"), colour("e")]).size);
        note("images", [...document.images].every(i => i.complete && i.naturalWidth > 100));
        note("title", document.title);
        const sound = document.querySelector("audio");
        sound.addEventListener("loadedmetadata", () => note("sound", sound.duration));
        sound.addEventListener("error", () => note("sound", "error " + sound.error.message));
        sound.preload = "metadata"; sound.load();
        """,
    )
    body = re.search(r"<body[^>]*>", dom)
    assert body is not None
    found = dict(re.findall(r'data-([a-z-]+)="([^"]*)"', body.group()))
    assert "error" not in found and "csp" not in found, found
    errors = [int(x) for x in found["errors-down"].split(",")]
    assert errors == sorted(errors, reverse=True) and len(errors) == len(rows)
    assert [int(x) for x in found["errors-up"].split(",")] == sorted(errors)
    seconds = [float(x) for x in found["seconds"].split(",")]
    assert seconds == sorted(seconds, reverse=True)
    assert found["sort"] == "Id"
    assert (found["all"], found["wrong"], found["filtered"]) == ("13", "10", "1")
    assert found["status"] == "1 shown"
    assert found["colours"] == "4"
    assert found["images"] == "true"
    assert found["title"] == "Evaluation"  # the hostile rows did not run
    assert float(found["sound"]) == pytest.approx(0.5, abs=0.01)
