"""The model package's files that need no torch: importing the package itself brings torch and registers its classes with transformers."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from trainers.engines import ENGINES

_PACKAGE = "modeling_slam_asr"
_ALONE = "slam_asr_without_torch"


def model_file(name: str) -> ModuleType:
    """
    One file of the model package, which itself is not imported unless it already is.

    The files are made for this: a checkpoint's copies are read one by one too, as parts of a package of another name.

    Args:
        name: of the file without `.py`, such as `windows_slam_asr`.
    """
    package = _PACKAGE if _PACKAGE in sys.modules else _ALONE
    if package not in sys.modules:
        found = importlib.util.find_spec(_PACKAGE)
        alone = ModuleType(_ALONE, __doc__)
        alone.__path__ = list(found.submodule_search_locations or []) if found is not None else []
        sys.modules[_ALONE] = alone
    return importlib.import_module(f"{package}.{name}")


def prepare_process(engine: str) -> None:
    """
    At the start of a program that uses one engine: an engine without torch spares it torch's memory and seconds.

    From then on the model package's files can be imported without the package itself, which follows when one of its classes is asked for.
    For a program of our own alone: where importing the package has to register its classes with transformers, it must not be postponed.
    Nothing happens where the package is imported already.
    """
    if ENGINES[engine].needs_torch:
        return
    spec = None if _PACKAGE in sys.modules else importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.loader is None:
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def load(name: str) -> Any:
        if not name.startswith("SlamAsr"):  # files are asked for as attributes before they are imported
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        module.__dict__.pop("__getattr__", None)
        loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[_PACKAGE] = module
