"""The README's own words: its snippets run, its files exist, its commands are real."""

import re
import shlex
from pathlib import Path

import pytest

from trainers import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_processor, tiny_audio_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A folder that looks like the one in which the quickstart ran, with a tiny model."""
    here = tmp_path_factory.mktemp("reader")
    tiny_model.save_pretrained(here / "quickstart" / "model")
    tiny_processor.save_pretrained(here / "quickstart" / "model")
    sample = next((tiny_audio_dir / "test").glob("*.wav"))
    (here / "quickstart" / "sample.wav").write_bytes(sample.read_bytes())
    return here


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets_run(
    snippet: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() != ""


def test_first_snippet_is_five_lines_at_most() -> None:
    assert README.index("```python") < 30
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 5


def test_commands_exist() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("slam-asr ")]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[1] == "--help":
            continue
        assert words[1] in cli.COMMANDS
        if "..." not in words:
            cli.parser_for(words[1]).parse_args(words[2:])


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_results_are_those_of_the_recorded_run() -> None:
    table = README.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    assert table.count("|") > 20
    recorded = (ROOT / "benchmarks" / "quickstart" / "report.md").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line.startswith("| full") or line.startswith("| 2 "):
            assert line in recorded
