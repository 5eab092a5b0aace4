"""SLAM-ASR by one name: `from slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor, score`.

Each name is loaded when it is first used, so that `import slam_asr` is quick; importing one of the model's registers the model
with transformers' auto classes and pipeline.
"""

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
    from trainers.evaluation import compare, evaluate_rows, read_predictions, register_normalizer, score
    from trainers.feature_cache import build_cache
    from trainers.inference.evaluate import evaluate
    from trainers.recipe import load_recipe
    from trainers.train import run_training

__all__ = [
    "SlamAsrConfig",
    "SlamAsrForConditionalGeneration",
    "SlamAsrPipeline",
    "SlamAsrProcessor",
    "build_cache",
    "compare",
    "evaluate",
    "evaluate_rows",
    "load_recipe",
    "read_predictions",
    "register_normalizer",
    "run_training",
    "score",
]

_HOMES = {
    "modeling_slam_asr": ("SlamAsrConfig", "SlamAsrForConditionalGeneration", "SlamAsrPipeline", "SlamAsrProcessor"),
    "trainers.evaluation": ("compare", "evaluate_rows", "read_predictions", "register_normalizer", "score"),
    "trainers.feature_cache": ("build_cache",),
    "trainers.inference.evaluate": ("evaluate",),
    "trainers.recipe": ("load_recipe",),
    "trainers.train": ("run_training",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("slam-asr")
    if name not in _HOME:
        raise AttributeError(f"module 'slam_asr' has no attribute {name!r}. It has: {', '.join(__all__)}")
    check_packages()
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def check_packages() -> None:
    """
    See that the packages behind this one are the project's own: `trainers` and `hub_upload` are names that others take too.

    Raises:
        ImportError: one is missing, or a folder or file of that name comes before it.
    """
    here = Path(__file__).resolve().parents[1]
    for name in ("modeling_slam_asr", "trainers", "hub_upload"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"slam-asr's package {name!r} is missing. Reinstall slam-asr.")
        found = Path(next(iter(spec.submodule_search_locations or []), spec.origin or name)).resolve()
        if found != here / name:
            raise ImportError(
                f"Python takes {name!r} from {str(found)!r}, which is not slam-asr's (that is {str(here / name)!r}). Rename it, "
                "start in another folder, or uninstall the package that brought it."
            )
