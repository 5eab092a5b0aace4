"""The one public door, and what starts without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import slam_asr

ROOT = Path(__file__).parents[2]
# Everything that takes long to import: none of it is needed to print help or to score.
HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "matplotlib", "scipy", "pandas", "huggingface_hub")


def python(code: str, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def loaded_by(code: str, *arguments: str) -> set[str]:
    done = python(f"import sys\n{code}\nprint('loaded:', *sys.modules)", *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_every_public_name_is_there() -> None:
    for name in slam_asr.__all__:
        assert getattr(slam_asr, name).__name__ == name
        assert name in dir(slam_asr)
    with pytest.raises(AttributeError, match="SlamAsrProcessor"):
        slam_asr.nothing_of_the_kind  # noqa: B018


def test_the_door_opens_without_torch() -> None:
    assert not loaded_by("import slam_asr; slam_asr.__version__; slam_asr.check_packages()") & set(HEAVY)


def test_help_starts_without_heavy_packages() -> None:
    code = "import slam_asr.__main__ as door; sys.argv = ['slam-asr', '--help']; assert door.main() == 0"
    assert not loaded_by(code) & {*HEAVY, "numpy", "yaml", "jinja2"}


def test_score_starts_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"reference": "de kat zat er", "prediction": "de kat zat"}\n')
    code = "from trainers import cli; assert cli.main(['score', sys.argv[1], '--language', 'nl']) == 0"
    assert not loaded_by(code, str(file)) & {"torch", "transformers", "datasets", "peft", "accelerate"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_namesake_is_named(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        (tmp_path / "trainers").mkdir()
        (tmp_path / "trainers" / "__init__.py").touch()
    else:
        (tmp_path / "trainers.py").touch()
    code = f"import sys; sys.path.append({str(ROOT)!r}); from slam_asr.__main__ import main; sys.exit(main())"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "trainers") in done.stderr and "Rename it" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
