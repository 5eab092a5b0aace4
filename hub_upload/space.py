"""A demo of a model as a Gradio app: the same files run here and as a Space on the Hub."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, SpaceCard, SpaceCardData, get_token
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from packaging.requirements import Requirement

from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES
from trainers.errors import UserError
from trainers.files import scratch_folder, write_json, write_text
from trainers.inference.notices import has_miniature_width, low_confidence
from trainers.serving.manifest import read_manifest

from . import checks
from .client import PublishError, call, connect, request_timeout
from .client_environment import HUB_TIMEOUT
from .facts import recipe_data
from .packages import NEEDED, NEEDED_FOR_LORA
from .published import read_json, read_recipe
from .remote import commit_folder
from .rights import check_repo_id, check_rights, open_repo

APP = Path(__file__).with_name("templates") / "app.py"
GRADIO_VERSION = "6.31.0"
# For a visitor: sound in seconds, a file's size, work in seconds (on a free Space), and how many may wait.
LIMITS = {"seconds_of_sound": 600, "megabytes": 50, "seconds_of_work": 300, "waiting": 20}


def write_space(
    folder: Path,
    model: str,
    revision: str | None,
    config: dict[str, Any],
    languages: list[str],
    engine: str = "torch",
    installed: bool = False,
) -> Path:
    """
    Write the app, its settings, requirements and card.

    Args:
        model: repository, or absolute path of a folder.
        revision: the commit to load; None for a folder.
        config: the model's `config.json`; of an export as much as its manifest says.
        languages: ISO codes to offer.
        engine: what computes, one of `trainers.engines.ENGINES`; others than torch read an export, and need this package.
        installed: load the model with this package's code, as on one's own machine, in place of the repository's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{Path(model).name}: speech to text"
    # An export says which languages its prompt can name, not of which the model has heard speech.
    names = [LANGUAGE_NAMES.get(code, code) for code in languages] if engine == "torch" else []
    settings = {
        "model": model,
        "revision": revision,
        "engine": engine,
        "installed": installed or engine != "torch",
        "title": title,
        "description": describe(names),
        "languages": languages,
        "names": names,
        "limits": LIMITS,
        "low_confidence": low_confidence(has_miniature_width((config.get("audio_config") or {}).get("d_model"))),
    }
    shutil.copyfile(APP, folder / "app.py")
    write_json(folder / "space.json", settings)
    adapters = config.get("lora") or config.get("encoder_lora")
    needed = {*NEEDED, *([NEEDED_FOR_LORA] if adapters else [])}
    lines = [line for line in requires("slam-asr") or () if Requirement(line).name in needed and ";" not in line]
    write_text(folder / "requirements.txt", "\n".join(lines) + "\n")
    data = SpaceCardData(
        title=title[:60], sdk="gradio", sdk_version=GRADIO_VERSION, python_version="3.11", app_file="app.py",
        models=[model] if revision else None, tags=["slam-asr", "automatic-speech-recognition"],
    )  # fmt: skip
    text = f"A demo of [{model}](https://huggingface.co/{model}) at the commit `{revision}`." if revision else "A demo."
    SpaceCard(f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{text}\n").save(folder / "README.md")
    return folder


def describe(names: list[str]) -> str:
    """What the page does, for whom, and its limits."""
    what = (
        f"Transcribes {', '.join(names)} speech; of other languages it makes wrong text."
        if names
        else "Transcribes speech."
    )
    return f"{what} Recordings of up to {LIMITS['seconds_of_sound'] // 60} minutes and {LIMITS['megabytes']} MB."


def push_space(
    model: str,
    space_id: str | None = None,
    revision: str | None = None,
    *,
    private: bool = False,
    timeout: float = HUB_TIMEOUT,
) -> str:
    """
    Publish the demo of a published model; its address.

    The app loads the commit that the model's revision names now, so that later code does not run there unread.

    Args:
        space_id: the Space's own name, `MODEL-demo` by default.
    """
    space_id = space_id or f"{model}-demo"
    check_repo_id(model)
    check_repo_id(space_id)
    api = connect(timeout)
    check_rights(api, space_id, repo_type="space")
    with scratch_folder("space") as folder:
        commit, config, languages = model_on_hub(api, model, revision)
        write_space(folder, model, commit, config, languages)
        checks.refuse_unfit(folder, get_token())
        state = open_repo(api, space_id, private=private, repo_type="space", space_sdk="gradio")
        done = commit_folder(api, space_id, folder, state, title=f"Demo of {model}", repo_type="space")
    url = f"{api.endpoint}/spaces/{space_id}"
    print(f"{'published' if done.made else 'unchanged:'} {url} ({done.oid})")
    return url


def model_on_hub(api: HfApi, model: str, revision: str | None) -> tuple[str, dict[str, Any], list[str]]:
    """Commit, configuration and languages of a published model."""
    step = f"reading {model}"
    try:
        info = call(step, lambda: api.model_info(model, revision=revision, timeout=request_timeout()))
        with scratch_folder("card") as cache:
            path = call(step, lambda: api.hf_hub_download(model, "config.json", revision=info.sha, cache_dir=cache))
            config = read_json(Path(path))
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise PublishError(
            f"{model} is not on the Hub, or has no config.json at {revision or 'main'}. Publish it first: "
            f"`slam-asr push DIR {model}`. A folder is shown with --local."
        ) from error
    if config.get("model_type") != "slam_asr":
        raise PublishError(f"{model} holds a model of type {config.get('model_type')!r}, not 'slam_asr'.")
    languages = info.card_data.to_dict().get("language", []) if info.card_data else []
    return str(info.sha), config, [languages] if isinstance(languages, str) else list(languages)


def run_local(
    model: str,
    revision: str | None = None,
    port: int | None = None,
    timeout: float = HUB_TIMEOUT,
    engine: str = "torch",
) -> int:
    """
    Run the app here, until it is stopped; its exit code.

    Args:
        model: repository or folder.
        engine: what computes; others than torch read a folder made by `slam-asr export`.
    Raises:
        UserError: Gradio is not installed, there is no such model, or the app cannot run with the engine.
    """
    if engine == "vllm":
        raise UserError(
            "--engine vllm: vLLM starts processes that import the app once more, and the app loads its model when it is imported. "
            f"Use `slam-asr serve {model} --engine vllm`, which has a page too, or --engine llama_cpp."
        )
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "The app needs Gradio, which is not installed: `pip install 'slam-asr[space]'` or `pip install gradio`."
        )
    with scratch_folder("space") as folder:
        if engine != "torch":
            manifest = read_manifest(model)
            config = {"audio_config": {"d_model": manifest["audio"].get("encoder_size")}}
            languages = sorted(manifest["prompt"]["languages"])
            write_space(folder, str(Path(model).resolve()), None, config, languages, engine)
        elif Path(model).is_dir():
            source = Path(model).resolve()
            config = read_json(source / "config.json", required=True)
            codes = {entry.get("language") for entry in recipe_data(read_recipe(source), "train")}
            languages = sorted(code for code in codes if code and code != "all")
            write_space(folder, str(source), None, config, languages, installed=True)
        elif Path(model).is_absolute() or model.startswith("."):
            raise UserError(
                f"The folder {model!r} does not exist. Name a model folder, or a repository as NAMESPACE/NAME."
            )
        else:
            check_repo_id(model)
            commit, config, languages = model_on_hub(connect(timeout), model, revision)
            write_space(folder, model, commit, config, languages, installed=True)
        environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "SLAM_ASR_ENDS_WITH_STDIN": "1"}
        command = [sys.executable, str(folder / "app.py"), *([str(port)] if port else [])]
        # The app ends when this end of the pipe is closed: with this process, however that ends.
        with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE) as app:
            return app.wait()
