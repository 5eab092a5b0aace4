"""The documentation's own words: its Python runs, its commands parse, its links lead somewhere.

A Python block that cannot run here is marked on the line before it, with the reason: `<!-- not executed: REASON -->`.
"""

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest

from trainers import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(page for room in ("benchmarks", "trainers") for page in (ROOT / room).glob("**/README.md")),
]
BASES = ROOT / "trainers" / "embedded" / "bases"
FENCE = re.compile(
    r"(?:<!-- not executed: (?P<reason>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL
)


ASSIGNMENT = re.compile(r"\w+=")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[str, str | None]]:
    """Code and, where it is marked as not to be executed, the reason."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [(match["code"], match["reason"]) for match in found if match["language"] == language]


def command_lines(page: Path) -> list[list[str]]:
    """The words of each command of the page's shell blocks, without the variables that are set before it."""
    text = "".join(code for code, _ in blocks(page, "sh")).replace("\\\n", " ").replace(" | ", "\n")
    found = (shlex.split(line, comments=True) for line in text.splitlines())
    return [words for line in found if (words := list(dropwhile(ASSIGNMENT.match, line)))]


@pytest.fixture
def folder(
    tmp_path: Path,
    tiny_model: Any,
    tiny_processor: Any,
    tiny_audio_dir: Path,
    tiny_recipe_values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where a reader stands: the files that the pages name, made of tiny models, the embedded bases and tones."""
    for name in ("quickstart/model", "MODEL"):
        tiny_model.save_pretrained(tmp_path / name)
        tiny_processor.save_pretrained(tmp_path / name)
    recordings = sorted((tiny_audio_dir / "test").glob("*.wav"))
    for name in ("quickstart/sample.wav", "talk.wav", "a.wav", "b.wav", "lecture.mp3"):
        shutil.copy(recordings[0], tmp_path / name)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "recipe.yaml").write_text(json.dumps({**tiny_recipe_values, "eval_steps": 20}))
    for name, base in (
        ("openai/whisper-small", "encoder"),
        ("Qwen/Qwen2.5-3B", "lm"),
    ):
        shutil.copytree(BASES / base, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_for_transcribing(folder: Path) -> dict[str, Any]:
    import soundfile
    from transformers import TextStreamer

    from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor

    wave, _ = soundfile.read(folder / "a.wav", dtype="float32")
    processor = SlamAsrProcessor.from_pretrained("MODEL")
    return {
        "generator_or_data_set": iter([wave, wave]),
        "model": SlamAsrForConditionalGeneration.from_pretrained("MODEL"),
        "processor": processor,
        "wave_a": wave,
        "wave_b": wave,
        "inputs_of_one": processor.apply_transcription_request(audio=[wave]),
        "TextStreamer": TextStreamer,
    }


def names_for_evaluation(folder: Path) -> dict[str, Any]:
    rows = "".join(f'{{"id": {index}, "reference": "de kat zat er", "prediction": "de kat zat"}}\n' for index in "123")
    for name in ("predictions.jsonl", "lora.jsonl"):
        (folder / name).write_text(rows, encoding="utf-8")
    return {}


def names_for_study(folder: Path) -> dict[str, Any]:
    from datasets import Dataset

    from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor

    bases = "openai/whisper-small", "Qwen/Qwen2.5-3B"
    rows = Dataset.from_list([{"id": "a", "audio": {"path": str(folder / "a.wav"), "bytes": None}, "transcript": "to"}])
    return {
        "rows": rows,
        "model": SlamAsrForConditionalGeneration.from_base_models(*bases),
        "processor": SlamAsrProcessor.from_base_models(*bases),
    }


def names_for_model(folder: Path) -> dict[str, Any]:
    from modeling_slam_asr import SlamAsrForConditionalGeneration

    model = SlamAsrForConditionalGeneration.from_base_models(
        "openai/whisper-small", "Qwen/Qwen2.5-3B", prune_encoder_layers=2, lora={"r": 8, "lora_alpha": 16}
    )
    model.save_pretrained(folder / "out-danish", checkpoint_form="adapter")
    return {}


# What a page's blocks take for granted.
NAMES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "docs/transcribing.md": names_for_transcribing,
    "docs/evaluation.md": names_for_evaluation,
    "docs/study.md": names_for_study,
    "docs/model.md": names_for_model,
}
WITH_PYTHON = [page for page in PAGES if page.is_file() and blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_blocks_run(page: Path, folder: Path) -> None:
    """One after another with shared names, as a reader would."""
    names = NAMES[name_of(page)](folder) if name_of(page) in NAMES else {}
    executed = 0
    for code, reason in blocks(page, "python"):
        if reason is None:
            exec(compile(code, name_of(page), "exec"), names)
            executed += 1
    assert executed > 0


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_blocks_that_do_not_run_say_why(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("```python\n") == len(blocks(page, "python"))
    assert all(reason is None or len(reason) > 10 for _, reason in blocks(page, "python"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    for words in command_lines(page):
        if words[0] == "slam-asr" and not words[1].startswith("-"):
            assert words[1] in [*cli.COMMANDS, "help"], words
            if not {"...", "help"} & set(words):
                cli.parser_for(words[1]).parse_intermixed_args(words[2:])
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_stand_where_they_are_checked(page: Path) -> None:
    """A fence of another label would hide them."""
    for label, code in re.findall(
        r"^ *```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        assert label == "sh" or not re.search(r"^(slam-asr|make|python -m) ", code, re.MULTILINE), code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in command_lines(page):
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading in it, by GitHub's names for them."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            names = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in names, f"{target}#{heading}"
