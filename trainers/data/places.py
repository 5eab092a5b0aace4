"""Where a row's sound lies, and whether the row may reach there.

A manifest is the user's own file: it may name any file of this machine, and none on the web. Folders, and what comes from the
Hub, were perhaps packed by somebody else: their rows name files inside the data set. `audio_root` holds a manifest to a folder
too, and lets a folder's rows reach the one it names.
"""

import os
from pathlib import Path
from typing import Any

from trainers.data.rows import refuse_address
from trainers.data.spec import DataSpec


class Place:
    """
    Finds the files that rows name.

    Args:
        folder: what relative names start from, unless the spec has an `audio_root`.
        root: the data set, in which the files must lie; None for anywhere. An `audio_root` takes its place.
        cached: where the links of a folder in the Hub's cache may lead; None: links are the user's own, and followed.
    """

    def __init__(self, spec: DataSpec, folder: Path, *, root: Path | None, cached: Path | None = None) -> None:
        given = Path(spec.audio_root).expanduser() if spec.audio_root is not None else None
        self.folder, self.root, self.cached = given or folder, given or root, cached

    def find(self, name: Any, where: str) -> tuple[Path | None, str | None]:
        """The file that a row names, or None and why it is not read; `where` is the row's file and line."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return None, f"{where} names no sound file but {str(name)[:80]!r}. Give its path as text."
        try:
            refuse_address(name)
            path = self.folder / Path(name).expanduser()
        except ValueError as error:
            return None, f"{where}: {error}"
        except RuntimeError:  # a `~name` of nobody
            path = self.folder / name
        if "\\" in name and os.sep == "/" and not path.exists():
            path = self.folder / name.replace("\\", "/")  # a table that Windows wrote
        if self.root is not None and not self._inside(path, self.root):
            return None, (
                f"{where} names {name!r}, outside of {self.root}. Rows name files inside their data set; "
                "set audio_root to the folder that holds the sound."
            )
        return path, None

    def _inside(self, path: Path, root: Path) -> bool:
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
            return False
        return self.cached is None or path.resolve().is_relative_to(self.cached.resolve())
