"""Inference, training and scoring need nothing that POSIX systems alone have."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_slam_asr", "trainers", "hub_upload", "slam_asr")
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
# Other packages are loaded first: what they need is their own affair.
IMPORT_ALL = """
import importlib, os, pkgutil, sys
SCRIPTS = ("hub_upload.stranger",)  # runs when it is imported, in a process of its own
EXTRAS = {"fastapi", "gradio", "llama_cpp", "ray", "uvicorn"}  # an environment may be without them
import accelerate, datasets, filelock, huggingface_hub, jiwer, matplotlib.pyplot, peft, soundfile, soxr, torch, transformers

for name in sys.argv[2].split():
    sys.modules[name] = None
for name in ("fork", "forkpty", "getuid", "geteuid", "getpgid", "killpg", "setsid", "uname"):
    delattr(os, name)
for package in sys.argv[1].split():
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if ".templates." not in module.name and module.name not in SCRIPTS:
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in EXTRAS:
                    raise
            else:
                print(module.name)
"""


def test_every_module_loads_without_posix() -> None:
    packages = [name for name in PACKAGES if (ROOT / name).is_dir()]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, " ".join(packages), " ".join(sorted(POSIX_MODULES))],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"trainers.train", "trainers.study.quickstart", "trainers.evaluation.scoring"} <= loaded
    assert len(loaded) > 100


def test_posix_is_used_only_where_its_absence_is_caught() -> None:
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(handler) for handler in node.handlers)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX_MODULES & set(names) or id(node) in guarded, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert f"{node.value.id}.{node.attr}" != "os.umask", f"{path}:{node.lineno}"
