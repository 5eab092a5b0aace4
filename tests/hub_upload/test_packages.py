"""The fresh process that checks a model finds the packages that this one finds, and nothing else of the user's."""

import json
import os
import shutil
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import filelock

from .conftest import REPOSITORY
from .lookalike import Server

# What the fresh process found, told by the model's own code, which runs there.
TELLS = """
def _tell():
    import importlib, json, pathlib, sys, filelock
    def importable(name):
        try:
            importlib.import_module(name)
        except ImportError:
            return False
        return True
    project = [name for name in ("trainers", "hub_upload", "modeling_slam_asr", "slam_asr", "model_cards") if importable(name)]
    pathlib.Path({told!r}).write_text(json.dumps([project, filelock.__file__, sys.path]))
_tell()
"""
STARTUP = "import os, pathlib; (pathlib.Path({started!r}) / f'{name}-{{os.getpid()}}').touch()\n"


def test_packages_of_ones_own_are_found_and_their_startup_files_are_not_run(
    hub: Server, hub_environment: dict[str, str], model_folder: Path, tmp_path: Path
) -> None:
    """As after `pip install --user` or with modules of a cluster: Python's own site-packages hold nothing."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    others = Path(str(distribution("torch").locate_file("")))
    own, started, told = tmp_path / "own packages", tmp_path / "started", tmp_path / "told.json"
    started.mkdir()
    shutil.copytree(Path(filelock.__file__).parent, own / "filelock")
    metadata = next(others.glob("filelock-*.dist-info"))
    shutil.copytree(metadata, own / metadata.name)
    for name in ("sitecustomize.py", "usercustomize.py", "line.pth"):
        (own / name).write_text(STARTUP.format(started=str(started), name=name))
    with (model_folder / "configuration_slam_asr.py").open("a") as file:
        file.write(TELLS.format(told=str(told)))
    done = subprocess.run(
        [
            str(python),
            "-c",
            f"from hub_upload.verify import observe; print(observe({str(model_folder)!r}).logits.shape)",
        ],
        env={**hub_environment, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, own, others)))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    project, place, path = json.loads(told.read_text())
    assert Path(place).parent == (own / "filelock").resolve(), "the same copy as here, in the same order"
    assert str(REPOSITORY) not in path and project == []
    assert [each.name.split("-")[0] for each in started.iterdir()] == ["sitecustomize.py"], "of the first process alone"
