"""The model package's files that need no torch: importing the package itself brings torch and registers its classes with transformers."""

import importlib
import importlib.util
import sys
from types import ModuleType

__all__ = ["model_file"]

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
