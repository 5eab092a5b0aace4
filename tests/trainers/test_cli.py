"""The command line as a person meets it: help, wrong arguments, errors without a traceback."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainers import cli
from trainers.errors import UserError, reading_files_of


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainers.cli", *arguments], capture_output=True, text=True, timeout=120
    )


def test_help_lists_every_command() -> None:
    output = run("--help")
    assert output.returncode == 0
    for command in cli.COMMANDS:
        assert f"\n  {command} " in output.stdout


def test_the_readme_lists_every_command_in_the_words_of_its_help() -> None:
    root = Path(cli.__file__).parents[1]
    section = (root / "README.md").read_text(encoding="utf-8").split("\n## Commands\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \| (.+?) \|$", section, re.MULTILINE)
    assert [(name, text) for name, _, text in rows] == [(name, text) for name, (_, text) in cli.COMMANDS.items()]
    for name, page, _ in rows:
        page = root / ("README.md" if page.startswith("#") else page)
        assert f"slam-asr {name} " in page.read_text(encoding="utf-8"), f"{page} does not show {name}"


def test_commands_of_publishing_register_themselves_in_their_place() -> None:
    lines = run("--help").stdout.split("commands:\n")[1].split("\n\n")[0].splitlines()
    names = [line.split()[0] for line in lines]
    start = names.index("card")
    assert names[start : start + 4] == ["card", "push", "push-study", "space"]
    assert names[start - 2 : start] == ["transcribe", "serve"] and names[-1] == "import-reference"
    sources = (Path(cli.__file__).parent).rglob("*.py")
    assert not [path for path in sources if "hub_upload" in path.read_text(encoding="utf-8")]


def test_an_installed_package_needs_no_source_tree(tmp_path: Path) -> None:
    """As from a wheel: the packages and their metadata lie in one folder, without setup.cfg."""
    for name in ("trainers", "hub_upload"):
        shutil.copytree(Path(cli.__file__).parents[1] / name, tmp_path / name)
    (tmp_path / "slam_asr-0.1.0.dist-info").mkdir()
    table = "[slam_asr.commands]\nhub_upload = hub_upload.commands:COMMANDS\nbroken = no_such_package:COMMANDS\n"
    (tmp_path / "slam_asr-0.1.0.dist-info" / "entry_points.txt").write_text(table)
    (tmp_path / "slam_asr-0.1.0.dist-info" / "METADATA").write_text("Name: slam-asr\nVersion: 0.1.0\n")
    command = [sys.executable, "-S", "-m", "trainers.cli", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={}, timeout=120)
    assert output.returncode == 0, output.stderr
    assert "\n  push-study " in output.stdout
    assert "'broken' cannot be loaded" in output.stderr and "Traceback" not in output.stderr


@pytest.mark.parametrize("ask", ["main(['--help'])", "parser_for('transcribe')", "parser_for('serve')"])
def test_help_needs_no_heavy_import(ask: str) -> None:
    code = f"import sys, trainers.cli as cli; cli.{ask}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    text = cli.parser_for(command).format_help()
    assert "--debug" in text
    assert len(cli.load(command).HELP) > 20
    assert f"slam-asr {command}" in text


def test_unknown_command_is_refused_with_the_choices() -> None:
    output = run("transcript")
    assert output.returncode == 2
    assert "transcribe" in output.stderr
    assert "Traceback" not in output.stderr


def test_no_command_shows_help() -> None:
    output = run()
    assert output.returncode == 2
    assert "slam-asr quickstart" in output.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["transcribe", "no/such/model", "no/such/file.wav"], "no/such"),
        (["score", "no/such/file.jsonl", "--language", "nl"], "no/such/file.jsonl"),
        (["train", "no/such/recipe.yaml"], "no/such/recipe.yaml"),
        (["compare", "no/such/a.jsonl", "no/such/b.jsonl"], "no/such/a.jsonl"),
    ],
)
def test_wrong_paths_are_one_paragraph(arguments: list[str], expected: str, tmp_path: Path) -> None:
    output = run(*arguments)
    assert output.returncode in (1, 2)
    assert expected in output.stderr.replace("\n", " ")
    assert "Traceback" not in output.stderr
    assert output.stderr.count("error:") == 1


def test_help_of_a_command() -> None:
    assert run("help", "score").stdout == run("score", "--help").stdout != ""
    assert run("help").stdout == run("--help").stdout
    wrong = run("help", "transcript")
    assert wrong.returncode == 2 and "transcribe" in wrong.stderr


@pytest.mark.parametrize(
    ("line", "expected"), [("slam-asr tra", {"train", "transcribe"}), ("slam-asr score --lang", {"--language"})]
)
def test_shells_complete_commands_and_options(line: str, expected: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": " ", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "trainers.cli"], env={**os.environ, **asked}, timeout=120, check=True)
    assert {word.strip() for word in answer.read_text().split()} == expected


def test_json_that_is_nested_too_deep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = tmp_path / "deep.jsonl", tmp_path / "other.jsonl"
    for path in (file, other):
        path.write_text('{"reference": "a", "prediction": ' + "[" * 200_000)
    for arguments in (["score", str(file), "--language", "nl"], ["compare", str(file), str(other)]):
        assert cli.main(arguments) == 2
        said = capsys.readouterr().err
        assert "nested too deep" in said.replace("\n", " ") and said.count("error:") == 1


def test_a_model_that_is_neither_here_nor_fetched_is_named() -> None:
    """What the Hub's library says without a network names neither the model nor the folder that was meant."""
    said = r"The model 'runs/danisch' cannot be read\. There is no such folder here, and We couldn't"
    with pytest.raises(UserError, match=said), reading_files_of("runs/danisch"):
        raise OSError("We couldn't connect to the Hub.")
    with pytest.raises(OSError, match="No space left"), reading_files_of("runs/danisch"):
        raise OSError(28, "No space left on device")
