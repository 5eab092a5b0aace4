"""What a stranger does with a published model. Run by file name in a fresh process; it imports nothing of this project.

`python -I stranger.py REQUEST.json`: the request names the model (folder or repository, with its revision), a wav file, the
examples of its card, folders of packages, and where to write the result: logits as safetensors, the rest as JSON.
"""

import contextlib
import io
import json
import os
import site
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# The project itself must not help: only what the repository holds counts.
for name in ("modeling_slam_asr", "trainers", "hub_upload", "model_cards", "slam_asr"):
    sys.modules[name] = None  # type: ignore[assignment]
HUB = urlsplit(os.environ["HF_ENDPOINT"])


# Ways to start another process, which would have no such hook.
STARTS = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty", "pty.spawn",
    "_winapi.CreateProcess",
}  # fmt: skip


def refuse_others(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: this process talks to the gate to the Hub, and to nobody else, and starts no other."""
    if event in STARTS:
        raise PermissionError(f"a model that is loaded for a check may not start another process ({event})")
    if event == "socket.getaddrinfo" and arguments[0] not in (HUB.hostname, None, "localhost"):
        raise PermissionError(f"a model that is loaded for a check may not look up the address of {arguments[0]!r}")
    elsewhere = event in ("socket.connect", "socket.sendto") and arguments[1][:2] != (HUB.hostname, HUB.port)
    if elsewhere and isinstance(arguments[1], tuple):  # a string is a socket of this machine
        raise PermissionError(f"a model that is loaded for a check may not connect to {arguments[1][0]}")


sys.addaudithook(refuse_others)


def add_packages(folders: list[str]) -> None:
    """
    Look in these folders too, after Python's own library and before site-packages. None of their startup files (`*.pth`,
    `usercustomize`, `sitecustomize`) is run, as it would be with a user's own site folder or PYTHONPATH.
    """
    known = {str(Path(place).resolve()) for place in sys.path}
    sites = [index for index, place in enumerate(sys.path) if place in site.getsitepackages()]
    at = min(sites, default=len(sys.path))
    sys.path[at:at] = [folder for folder in folders if folder not in known]


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    add_packages(request["packages"])

    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoProcessor, pipeline

    name, audio = request["model"], request["audio"]
    where = {"trust_remote_code": True, **({"revision": request["revision"]} if request["revision"] else {})}
    processor: Any = AutoProcessor.from_pretrained(name, **where)
    model = AutoModel.from_pretrained(name, **where)
    inputs = processor.apply_transcription_request(audio)
    with torch.no_grad():
        logits = model(**inputs).logits.float()
    text = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0]
    transcribe: Any = pipeline("automatic-speech-recognition", name, **where)
    if not isinstance(transcribe.model, type(model)):
        raise TypeError(f"the pipeline loaded a {type(transcribe.model).__name__}, AutoModel a {type(model).__name__}")
    printed = []
    for snippet in request["snippets"]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(snippet, "the card's example", "exec"), {"__name__": "__main__"})
        printed.append(output.getvalue().strip())
    save_file({"logits": logits.contiguous()}, request["logits"])
    result = {
        "model_class": type(model).__name__,
        "processor_class": type(processor).__name__,
        "text": text,
        "pipeline_text": transcribe(audio)["text"],
        "printed": printed,
    }
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")


main()
