"""One folder, one commit: over real HTTP, with a fault at every step. The Hub shows the old content or the new one."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run
from .lookalike import Server

# Publishes a folder with the steps that `slam-asr push` takes, without the model: quick enough to break often.
UPLOADER = """
import sys
from pathlib import Path
from hub_upload.client import PublishError, connect
from hub_upload.remote import commit_folder, read_repo, tag_commit
from hub_upload.rights import check_rights, open_repo

folder, repo_id, timeout, *options = sys.argv[1:]
try:
    api = connect(timeout=float(timeout))
    check_rights(api, repo_id, create_pr="pr" in options)
    state = open_repo(api, repo_id, private="private" in options)
    print("parent", state.head, flush=True)
    commit = commit_folder(
        api, repo_id, Path(folder), state, title="Publish", pause=0.05, create_pr="pr" in options
    )
    print("made" if commit.made else "unchanged", commit.oid, commit.pull_request)
    if "tag" in options:
        tag_commit(api, repo_id, "v1", commit.oid)
except PublishError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with regular files, a sub-folder and an LFS file."""
    content = tmp_path / "content"
    (content / "language_model_lora").mkdir(parents=True)
    (content / "config.json").write_text('{"model_type": "slam_asr"}')
    (content / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    (content / "language_model_lora" / "adapter_config.json").write_text("{}")
    (content / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return content


@pytest.fixture
def push(run_python: Run, folder: Path) -> Any:
    """Publishes the folder in a process of its own."""

    def run(*options: str, timeout: float = 5, repo_id: str = "acme/model", **environment: str) -> Any:
        return run_python("-c", UPLOADER, str(folder), repo_id, str(timeout), *options, **environment)

    return run


PUBLISHED = {
    ".gitattributes",
    "config.json",
    "README.md",
    "language_model_lora/adapter_config.json",
    "model.safetensors",
}


def test_one_commit_holds_everything_and_a_second_push_makes_none(hub: Server, push: Any, folder: Path) -> None:
    first = push("tag")
    assert first.returncode == 0, first.stderr
    assert set(hub.store.files("acme/model")) == PUBLISHED
    assert hub.store.read("acme/model", "model.safetensors") == (folder / "model.safetensors").read_bytes()
    assert hub.store.commits("acme/model") == ["Publish", "initial commit"]
    second = push("tag")
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1].startswith("unchanged")
    assert hub.store.commits("acme/model") == ["Publish", "initial commit"]
    assert set(hub.store.files("acme/model", "v1")) == PUBLISHED


def test_stale_files_that_would_be_loaded_are_deleted_and_pictures_stay(hub: Server, push: Any, folder: Path) -> None:
    assert push().returncode == 0
    hub.store.move_head("acme/model", "model-00001-of-00002.safetensors", b"old shard")
    hub.store.move_head("acme/model", "picture.png", b"a user's picture")
    assert push().returncode == 0
    assert set(hub.store.files("acme/model")) == PUBLISHED | {"picture.png"}


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "GET", "path": "/api/whoami-v2", "status": 503},
        {"method": "POST", "path": "/api/repos/create", "status": 500},
        {"method": "POST", "path": "/api/repos/create", "drop_before_reply": True},
        {"method": "GET", "path": "/api/models/acme/model/tree", "drop_before_reply": True},
        {"method": "POST", "path": "/api/validate-yaml", "status": 502},
        {"method": "POST", "path": "/preupload/", "drop_before_reply": True},
        {"method": "POST", "path": "/info/lfs/objects/batch", "status": 504},
        {"method": "PUT", "path": "/lfs/put/", "drop_after": 65536},
        {"method": "PUT", "path": "/lfs/put/", "status": 500},
        {"method": "POST", "path": "/lfs/verify/", "status": 500},
        {"method": "POST", "path": "/commit/main", "status": 503},
        {"method": "POST", "path": "/commit/main", "status": 500, "times": 2},
        {"method": "POST", "path": "/commit/main", "drop_after": 100},
        {"method": "POST", "path": "/commit/main", "drop_before_reply": True},
        {"method": "POST", "path": "/commit/main", "delay": 4},
        {"method": "POST", "path": "/tag/", "status": 503},
        {"method": "POST", "path": "/tag/", "drop_before_reply": True},
    ],
    ids=lambda fault: "-".join(str(value).strip("/").replace("/", "_") for value in fault.values()),
)
def test_a_passing_fault_at_any_step_ends_in_one_commit(hub: Server, push: Any, fault: dict[str, Any]) -> None:
    hub.store.faults.append(dict(fault))
    done = push("tag", timeout=2)
    assert done.returncode == 0, done.stderr
    assert not hub.store.faults, "the fault was never met"
    assert hub.store.commits("acme/model") == ["Publish", "initial commit"]
    assert set(hub.store.files("acme/model", "v1")) == PUBLISHED


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"path": "/commit/main", "status": 503, "times": 99}, "No commit was made"),
        ({"path": "/commit/main", "delay": 3, "times": 99, "status": 500}, "No commit was made"),
        ({"method": "GET", "path": "/api/whoami-v2", "delay": 3, "times": 99, "status": 500}, "whose token"),
        ({"path": "/preupload/", "status": 400}, "400"),
    ],
    ids=["commit-always-503", "commit-hangs", "hub-hangs", "bad-request"],
)
def test_a_lasting_fault_is_an_error_and_the_old_content_stays(
    hub: Server, push: Any, folder: Path, fault: dict[str, Any], said: str
) -> None:
    assert push().returncode == 0
    before = hub.store.files("acme/model")
    (folder / "config.json").write_text('{"model_type": "slam_asr", "changed": true}')
    (folder / "model.safetensors").write_bytes(b"\0" * 300_000)
    hub.store.faults.append(dict(fault))
    failed = push(timeout=0.5)
    assert failed.returncode != 0
    assert said in failed.stderr and "Traceback" not in failed.stderr, failed.stderr
    assert hub.store.files("acme/model") == before
    hub.store.faults.clear()
    assert push().returncode == 0, "and the next try goes on"
    assert hub.store.commits("acme/model") == ["Publish", "Publish", "initial commit"]


def test_a_lost_reply_is_recognised_even_when_the_branch_has_moved_on(hub: Server, push: Any) -> None:
    assert push().returncode == 0
    hub.store.move_head("acme/model", "config.json", b"{}")
    hub.store.faults.append({"path": "/commit/main", "drop_before_reply": True, "move_head_after": "acme/model"})
    done = push("tag")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("made")
    assert hub.store.commits("acme/model")[:2] == ["somebody else", "Publish"]
    assert hub.store.commits("acme/model", revision="v1")[0] == "Publish"


def test_a_moved_head_is_a_conflict_and_nothing_is_committed(hub: Server, push: Any, folder: Path) -> None:
    assert push().returncode == 0
    (folder / "config.json").write_text("{}")
    hub.store.faults.append({"method": "POST", "path": "/commit/main", "move_head": "acme/model"})
    failed = push()
    assert failed.returncode != 0
    assert "ConflictError" in failed.stderr and "somebody else" in failed.stderr
    assert hub.store.commits("acme/model")[0] == "somebody else"
    assert hub.store.read("acme/model", "config.json") == b'{"model_type": "slam_asr"}'


@pytest.mark.parametrize(
    ("token", "said"),
    [("hf_read", "read"), ("hf_other", "belongs to"), ("hf_nonsense", "token"), ("", "token")],
)
def test_rights_are_checked_before_anything_is_sent(hub: Server, push: Any, token: str, said: str) -> None:
    failed = push(HF_TOKEN=token)
    assert failed.returncode != 0
    assert said in failed.stderr and "Traceback" not in failed.stderr, failed.stderr
    assert not token or token not in failed.stderr
    assert not [row for row in hub.store.log if row["method"] in ("POST", "PUT")]
    assert hub.store.load("model", "acme/model") is None


def test_private_is_private_and_never_leaves_a_public_repository_public_in_silence(hub: Server, push: Any) -> None:
    assert push("private").returncode == 0
    state = hub.store.load("model", "acme/model")
    assert state is not None and state["private"]
    assert push(repo_id="acme/open").returncode == 0
    failed = push("private", repo_id="acme/open")
    assert failed.returncode != 0 and "public" in failed.stderr


def test_a_pull_request_leaves_main_alone_and_is_opened_once(hub: Server, push: Any, folder: Path) -> None:
    assert push().returncode == 0
    (folder / "config.json").write_text("{}")
    hub.store.faults.append({"method": "POST", "path": "/commit/main", "drop_before_reply": True})
    for _ in range(2):
        done = push("pr")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == "refs/pr/1"
    assert hub.store.read("acme/model", "config.json") == b'{"model_type": "slam_asr"}'
    assert hub.store.read("acme/model", "config.json", "refs/pr/1") == b"{}"


@pytest.mark.parametrize("stage", ["/preupload/", "/lfs/put/", "/commit/main"])
def test_kill_9_leaves_the_old_content_and_the_next_push_completes(
    hub: Server, push: Any, folder: Path, hub_environment: dict[str, str], stage: str
) -> None:
    assert push().returncode == 0
    before = hub.store.files("acme/model")
    (folder / "model.safetensors").write_bytes(b"\1" * 300_000)
    hub.store.faults.append({"path": stage, "delay": 2})
    uploader = subprocess.Popen(
        [sys.executable, "-c", UPLOADER, str(folder), "acme/model", "30"], env=hub_environment, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while hub.store.faults and time.monotonic() < deadline:  # until the request is under way
        time.sleep(0.02)
    uploader.send_signal(signal.SIGKILL)
    uploader.communicate()
    assert uploader.returncode == -signal.SIGKILL
    # A commit that had reached the server whole may stand; nothing between the two states may.
    time.sleep(2.2)
    after = hub.store.files("acme/model")
    assert after == before or set(after) == PUBLISHED
    assert push().returncode == 0
    assert hub.store.read("acme/model", "model.safetensors") == b"\1" * 300_000
    assert hub.store.commits("acme/model") == ["Publish", "Publish", "initial commit"]
