"""Imports go one way, those inside functions too: no room of the house needs one that needs it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_slam_asr", "trainers", "hub_upload", "slam_asr", "benchmarks")
# Former places of programs, which start them where they are now.
MOVED = {"trainers/evaluation/leaderboard_harness.py"}


def room(module: str) -> str:
    """A package, or a part of `trainers`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "trainers" else parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a file asks for, at its top or later; what stands under `if TYPE_CHECKING` is for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def test_imports_go_one_way() -> None:
    needs: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name not in MOVED:
                own = room(name.removesuffix(".py").replace("/", "."))
                asked = {room(module) for module in imports(ast.parse(path.read_text(encoding="utf-8")))}
                needs.setdefault(own, set()).update(asked - {own})
    own_rooms = {name: asked & needs.keys() for name, asked in needs.items()}
    order = list(TopologicalSorter(own_rooms).static_order())  # raises CycleError, with the circle
    assert order.index("modeling_slam_asr") < order.index("trainers.training") < order.index("trainers.study")
    assert "hub_upload" not in set().union(*(asked for name, asked in own_rooms.items() if name.startswith("trainers")))
    assert (
        "trainers.engines" in own_rooms["trainers.inference"]
        and "trainers.serving" not in own_rooms["trainers.inference"]
    )


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {
        path: len(path.read_bytes().splitlines()) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    assert len(lengths) > 200
    assert {str(path): lines for path, lines in lengths.items() if lines > 500} == {}
