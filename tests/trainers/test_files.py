"""Files that are written whole or not at all, and locks, under processes that die."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainers.files import lock_file, read_jsonl, replacing, scratch_folder, sweep, write_bytes, write_json, write_jsonl

WRITE_AND_WAIT = """
import sys
from trainers.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""
LOCK_AND_WAIT = """
import sys
from pathlib import Path
from trainers.files import lock_file
with lock_file(Path(sys.argv[1]), wait=False) as owned:
    print("owned" if owned else "taken", flush=True)
    sys.stdin.read()
"""

FILL_AND_WAIT = """
import sys, tempfile
from trainers.files import scratch_folder
tempfile.tempdir = sys.argv[1]
with scratch_folder("push") as folder:
    (folder / "weights").write_bytes(b"many")
    print("written", flush=True)
    sys.stdin.read()
"""


def started(code: str, path: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() in (b"written", b"owned")
    return process


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"whole": 1})
    process = started(WRITE_AND_WAIT, path)
    write_bytes(tmp_path / "other.json", b"{}")
    assert len(list(tmp_path.glob(".*"))) == 1  # it lives, so its file stays
    process.kill()
    process.communicate()
    assert len(list(tmp_path.glob(".*"))) == 1
    assert path.read_text() == '{\n  "whole": 1\n}\n'
    write_bytes(tmp_path / "other.json", b"{}")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["other.json", "result.json"]


def test_files_of_other_programs_and_machines_stay(tmp_path: Path) -> None:
    names = [".elsewhere.1.abc123.partial", ".download.partial", ".hidden"]
    for name in names:
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(names)
    os.utime(tmp_path / names[0], (0, 0))
    sweep(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(names[1:])


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two\x85three"}, {"text": "four"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(path)) == rows
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b" \n")
    assert list(read_jsonl(path)) == rows


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / ("long" * 62 + ".txt"), b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError
    with pytest.raises(ValueError):
        write_jsonl(path, [{"number": float("nan")}])
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.touch()

    def umask(mask: int) -> int:
        raise AssertionError("the process's umask belongs to all its threads")

    monkeypatch.setattr(os, "umask", umask)
    assert write_bytes(tmp_path / "ours", b"").stat().st_mode == plain.stat().st_mode


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    process = started(LOCK_AND_WAIT, path)
    with lock_file(path, wait=False, patience=0.1) as owned:
        assert not owned
    process.kill()
    process.communicate()
    with lock_file(path, wait=True) as owned:
        assert owned
        with lock_file(tmp_path / "b.lock", wait=False) as other:
            assert other


def test_the_scratch_folders_of_killed_processes_go_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, living = started(FILL_AND_WAIT, tmp_path), started(FILL_AND_WAIT, tmp_path)
    killed.kill()
    killed.communicate()
    elsewhere = tmp_path / "slam-asr-push-link"
    (tmp_path / "data").mkdir()
    elsewhere.symlink_to(tmp_path / "data")
    with scratch_folder("push") as folder:
        assert len(list(tmp_path.glob("slam-asr-push-*/content"))) == 3, "a folder that was just made is left alone"
        assert list(folder.iterdir()) == []
    for path in tmp_path.glob("slam-asr-push-*"):
        os.utime(path, (0, 0))
    with pytest.raises(RuntimeError), scratch_folder("push"):
        raise RuntimeError
    assert elsewhere.is_symlink() and list((tmp_path / "data").iterdir()) == []
    (left,) = tmp_path.glob("slam-asr-push-*/content/weights")  # of the one that lives
    living.communicate()
    assert living.returncode == 0 and not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", elsewhere.name]
