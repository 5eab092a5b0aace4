"""The wheel in an environment of its own, in an empty folder: what it holds, its commands, a shortened quickstart.

Once with the packages of the environment that runs the tests, and where `SLAM_ASR_WHEEL_PYTHON` names an interpreter
(`make test-wheel`), once with what that one's pip installs by itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

from hub_upload.example import examples

ROOT = Path(__file__).parents[1]
PACKAGES = ("slam_asr", "modeling_slam_asr", "trainers", "hub_upload", "model_cards")
PYTHON = os.environ.get("SLAM_ASR_WHEEL_PYTHON", "")
NOT_INSTALLED = (*(f"model_cards/{folder.name}/" for folder in examples()), "trainers/embedded/bases/README.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "source")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`slam-asr` of an environment that has the wheel, and from this one the packages of others."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    asked = [scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    # A path in a .pth file is searched, but .pth files in it are not followed: no editable installation of this one counts.
    (own / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    command = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--ignore-installed", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return scripts / "slam-asr"


def run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [program, *arguments], cwd=folder, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in there - held if not name.startswith(NOT_INSTALLED)} == set()
    assert held - there == set()


def test_commands_start_in_an_empty_folder(program: Path, tmp_path: Path) -> None:
    for arguments in (["--version"], ["--help"], ["quickstart", "--help"], ["push", "--help"]):
        done = run(program, tmp_path, *arguments)
        assert done.returncode == 0 and "slam-asr" in done.stdout, done.stderr[-2000:]
    code = "import slam_asr, trainers.cli; print(slam_asr.__file__)"
    asked = [program.with_name("python"), "-c", code]
    home = Path(subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip())
    assert program.parents[1] in home.parents, "the wheel's own, not the checkout's"


def shortened_quickstart(program: Path, audio: Path, folder: Path) -> None:
    test = f"{{dataset: {audio / 'test' / 'manifest.jsonl'}, min_duration: 0}}"
    done = run(
        program, folder, "quickstart", "max_steps=2", "eval_steps=2", "batch_size=4", "decoding.max_new_tokens=4",
        f"train={{dataset: {audio / 'train' / 'manifest.jsonl'}, min_duration: 0}}", f"validation={test}", f"test={test}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    made = {path.name for path in (folder / "quickstart").iterdir()}
    assert made >= {"report.md", "results.json", "wer.svg", "model"}
    said = run(program, folder, "transcribe", "quickstart/model", str(audio / "test" / "test-00.wav"))
    assert said.returncode == 0, said.stderr[-2000:]


@pytest.mark.slow
def test_a_shortened_quickstart(program: Path, tiny_audio_dir: Path, tmp_path: Path) -> None:
    shortened_quickstart(program, tiny_audio_dir, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="SLAM_ASR_WHEEL_PYTHON names no interpreter; its pip fetches gigabytes")
def test_a_shortened_quickstart_as_pip_installs_it(wheel: Path, tiny_audio_dir: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as environment:  # pytest keeps `tmp_path` for days
        for command in (
            [PYTHON, "-m", "venv", environment],
            [f"{environment}/bin/python", "-m", "pip", "install", "--quiet", wheel],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
        shortened_quickstart(Path(environment, "bin", "slam-asr"), tiny_audio_dir, tmp_path)
