"""What the tests that show a page in a browser need, and whether they may be skipped without it."""

import importlib.util
import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("SLAM_ASR_BROWSER_TESTS") == "required"  # as .ci/run says once all is installed


def needs(*packages: str, browser: bool = True) -> pytest.MarkDecorator:
    """Skips where one of the packages, or Chromium, is not installed, unless they are required. What is there has to work."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    missing += ["chromium"] if browser and CHROMIUM is None else []
    return pytest.mark.skipif(bool(missing) and not REQUIRED, reason=f"not installed: {', '.join(missing)}")
