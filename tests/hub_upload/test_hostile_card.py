"""A card on the Hub, and code in a model folder, that were written by somebody who means harm."""

import socket
from pathlib import Path

import pytest

from .conftest import Run
from .lookalike import Server

PUSH = ("-m", "trainers.cli", "push")
CARD = """---
license: mit
---

# tiny

<!-- user text: introduction; write below, it is kept on every push (as of none) -->
A stranger's example:

```python
import os, pathlib
pathlib.Path({marker!r}).write_text(os.environ.get("HF_TOKEN", "no token"))
```
<!-- end of user text -->

```python
import pathlib
pathlib.Path({marker!r}).write_text("outside the marks")
```

<!-- user text: notes; write below, it is kept on every push (as of none) -->
<!-- end of user text -->
"""
# Stands for what a folder's own code could do while it is loaded: what it finds of the account, and whom it can reach.
SPY = """
def _spy():
    import os, pathlib, socket, urllib.request
    def outcome(action):
        try:
            action()
        except Exception as error:
            return str(error)
        return "done"
    words = " ".join(os.environ.values())
    found = [word for word in ("_write", "canary", "{hub}") if word in words]
    request = urllib.request.Request(os.environ["HF_ENDPOINT"] + "/api" "/repos" "/create", b"{{}}", method="POST")
    return [
        found,
        str(pathlib.Path.home()) == os.environ["HF_HOME"],
        outcome(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=5)),
        outcome(lambda: socket.getaddrinfo("example.org", 443)),
        outcome(lambda: urllib.request.urlopen(request, timeout=5)),
        outcome(lambda: os.system("true")),
    ]
raise RuntimeError(f"SEEN {{_spy()}}")
"""


@pytest.mark.parametrize("option", ["--dry-run", "--tag=v1"])
def test_code_in_a_card_on_the_hub_is_kept_as_text_and_never_run(
    hub: Server, run_python: Run, model_folder: Path, tmp_path: Path, option: str
) -> None:
    marker = tmp_path / "marker"
    assert run_python("-c", "from huggingface_hub import HfApi; HfApi().create_repo('acme/tiny')").returncode == 0
    hub.store.move_head("acme/tiny", "README.md", CARD.format(marker=str(marker.name)).encode())
    done = run_python(*PUSH, str(model_folder), "acme/tiny", "--no-limits", option)
    assert done.returncode == 0, done.stderr
    assert not marker.exists() and not list(tmp_path.rglob("marker"))
    if option != "--dry-run":
        assert b"A stranger's example" in hub.store.read("acme/tiny", "README.md")


def test_code_that_is_loaded_for_a_check_finds_no_token_and_reaches_nobody(
    hub: Server, run_python: Run, model_folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        with (model_folder / "configuration_slam_asr.py").open("a") as file:
            file.write(SPY.format(port=elsewhere.getsockname()[1], hub=hub.url))
        # As the code of a repository that is loaded back would be; a push itself loads the package's code.
        check = f"from hub_upload.verify import observe; observe({str(model_folder)!r})"
        failed = run_python("-c", check, AWS_SECRET_ACCESS_KEY="canary-one", SSH_AUTH_SOCK="canary-two")
        pushed = run_python(*PUSH, str(model_folder), "acme/tiny", "--no-limits", "--dry-run", "--merge")
    assert failed.returncode != 0, failed.stdout
    assert pushed.returncode == 0 and "SEEN" not in pushed.stdout + pushed.stderr, pushed.stderr
    seen = " ".join(failed.stderr.split())
    assert "SEEN [[], True, 'a model that is loaded for a check may not connect to 127.0.0.1'" in seen
    assert "may not look up the address of 'example.org'" in seen
    assert "HTTP Error 501" in seen, "the gate only reads"
    assert "may not start another process (os.system)" in seen
    assert hub.store.load("model", "acme/tiny") is None
