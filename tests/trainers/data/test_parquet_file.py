"""One parquet file as a data set: with the sound inside, as the Hub's are, or with the names of files."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from trainers.data.rows import read_audio
from trainers.data.sources import detect_format, load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError


def table(path: Path, held: bool) -> Path:
    """Two rows of `c0.wav` and `c1.wav`, which lie beside it unless they are `held` in it, and their languages."""
    rows = []
    for number, language in enumerate(("nl", "da")):
        clip = path.parent / f"c{number}.wav"
        soundfile.write(clip, np.full(1600 * (number + 1), 0.1), 16_000)
        rows.append({"audio": {"bytes": clip.read_bytes(), "path": clip.name}, "text": "ja", "lang": language})
        if held:
            clip.unlink()
        else:
            rows[-1]["audio"] = {"bytes": None, "path": clip.name}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(("held", "kind"), [(True, "hub"), (False, "manifest")])
def test_sound_inside_or_beside(held: bool, kind: str, tmp_path: Path) -> None:
    spec = DataSpec(str(table(tmp_path / "test-00000-of-00001.parquet", held)), split="test")
    rows = load_source(spec)
    assert detect_format(spec) == kind
    assert [len(read_audio(row)) for row in rows] == [1600, 3200]
    assert list(rows["language"]) == ["nl", "da"]


def test_a_manifest_names_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1 holds its sound, where a manifest names files"):
        load_source(DataSpec(str(table(tmp_path / "a.parquet", held=True)), format="manifest"))
