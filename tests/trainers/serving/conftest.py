"""One export of a tiny model with all parts, and one server, for all tests of serving."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.modeling_slam_asr.conftest import stir_lora
from trainers.cli import main

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="session")
def lora_model_dir(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model with LoRA on both sides and a CTC head of five classes, saved."""
    model = make_tiny_model(
        lora=LORA, encoder_lora=LORA, projector_ctc=True, projector_ctc_tokens=[5, 9, 40, 41, 99]
    ).eval()
    stir_lora(model.language_model)
    stir_lora(model.audio_encoder)
    folder = tmp_path_factory.mktemp("export") / "model"
    model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported(lora_model_dir: Path) -> Path:
    """The whole export of that model, made by the command."""
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("gguf", reason="the extra `export` is not installed")
    folder = lora_model_dir.parent / "exported"
    arguments = ["--int8", "--gguf", "f16", "--gguf", "q8_0"]
    assert main(["export", str(lora_model_dir), str(folder), *arguments]) == 0
    return folder


@pytest.fixture(scope="session")
def torch_model(lora_model_dir: Path) -> Any:
    from modeling_slam_asr import SlamAsrForConditionalGeneration

    return SlamAsrForConditionalGeneration.from_pretrained(lora_model_dir).eval()


@pytest.fixture(scope="session")
def make_server_pipe(make_pipe: Callable[..., Any], make_tiny_model: Callable[..., Any], unreadable: list[int]) -> Any:
    """A function that makes a pipeline of printable text: the settings are the model's own, as of one that was loaded."""

    def make(**options: Any) -> Any:
        pipe = make_pipe(make_tiny_model(**options).eval())
        pipe.model.generation_config.suppress_tokens = unreadable
        pipe.model.generation_config.max_new_tokens = 8
        return pipe

    return make


@pytest.fixture(scope="session")
def server_pipe(make_server_pipe: Callable[..., Any]) -> Any:
    """The pipeline behind `server`."""
    return make_server_pipe()


@pytest.fixture(scope="session")
def server(server_pipe: Any) -> Iterator[str]:
    """The address of a server that cuts recordings into windows of 2 s and takes uploads of 1 MB."""
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from tests.trainers.serving.running import running

    with running(server_pipe, window_seconds=2.0, max_upload_mb=1.0) as address:
        yield address


@pytest.fixture(scope="session")
def served_model_dir(server_pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model behind `server`, saved for servers that are processes of their own."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    server_pipe.save_pretrained(folder)
    return folder
