"""
What computes the transcripts: engines behind one pipeline. One module an engine, and none is imported unless it is asked for.

Windows, gates, merged overlaps, timestamps and marks are the pipeline's own whatever the engine.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trainers.errors import UserError
from trainers.gguf_precisions import GGUF_PRECISIONS

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True)
class Engine:
    """
    An engine before it is imported.

    module: has `load_pipeline(model, *, device, dtype, revision)`. about: what it is, for help texts. dtypes: what it takes as such.
    packages: what computes, whose versions a measured speed is told with. needs_torch: whether torch is imported.
    """

    module: str
    about: str
    dtypes: tuple[str, ...]
    packages: tuple[str, ...]
    needs_torch: bool = True


_FLOATS = ("float32", "bfloat16", "float16")
ENGINES = {
    "torch": Engine("trainers.inference.torch_engine", "the model itself", _FLOATS, ("torch", "transformers")),
    "llama_cpp": Engine(
        "trainers.serving.llama_cpp_engine",
        "an export with --gguf, on a CPU",
        tuple(GGUF_PRECISIONS),
        ("onnxruntime", "llama_cpp"),
        False,
    ),
    "vllm": Engine("trainers.serving.vllm_engine", "an export, on a GPU", _FLOATS, ("onnxruntime", "vllm")),
}


@dataclass(frozen=True)
class ModelSource:
    """
    What a pipeline's model was loaded from.

    name: a folder or Hub name. commit: the Hub repository's, 40 hex digits; None of a folder. parameters: its numbers of parameters, as
    `parameter_report` gives them, before LoRA is merged; None where an older export does not tell.
    """

    name: str
    commit: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)


class AsrPipeline(Protocol):
    """
    The transcription pipeline of any engine, with the arguments of `SlamAsrPipeline`.

    source: as `load_pipeline` found it; None where the pipeline was made of a model in memory.
    """

    source: ModelSource | None
    model: Any
    processor: Any
    tokenizer: Any
    device: Any

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """The answer for a recording; of a list a list, of a generator an iterable."""


def load_pipeline(
    model: str | os.PathLike[str],
    *,
    engine: str = "torch",
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> AsrPipeline:
    """
    The transcription pipeline of a model, computed by an engine.

    Args:
        model: a model folder or Hub name; of other engines than torch a folder made by `slam-asr export`.
        engine: one of `ENGINES`.
        device, dtype, revision: as of the engine's own `load_pipeline`.
    Raises:
        UserError: for an engine that is unknown or not installed, a precision that it does not have, or a model that it cannot read.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine!r} is unknown. Choose one of {', '.join(ENGINES)}.")
    chosen = ENGINES[engine]
    if dtype is not None and dtype not in chosen.dtypes:
        raise UserError(f"--dtype {dtype}: the engine {engine} takes {', '.join(chosen.dtypes)}.")
    pipeline: AsrPipeline = importlib.import_module(chosen.module).load_pipeline(
        model, device=device, dtype=dtype, revision=revision
    )
    return pipeline


def parameters_of(pipe: AsrPipeline) -> Mapping[str, Any]:
    """Numbers of parameters of a pipeline's model as it was saved, as `parameter_report` gives them."""
    return pipe.source.parameters if pipe.source else pipe.model.parameter_report()


def check_decoding(pipe: Any, decoding: Mapping[str, Any]) -> None:
    """Told before any work: a model without a CTC head has nothing to say beside the LLM, and not every engine decodes with beams.

    Raises:
        UserError: `ctc_weight` is asked of such a model, or the engine cannot decode as asked or as the model itself would.
    """
    if hasattr(pipe, "check_decoding"):
        pipe.check_decoding(decoding)
    if decoding.get("ctc_weight") and not getattr(pipe.model.config, "projector_ctc", True):
        raise UserError(
            f"--ctc-weight {decoding['ctc_weight']}: this model has no CTC head. Leave it out, or train with "
            "`projector: {ctc: true}` and a `ctc_weight` (docs/ctc.md)."
        )


def add_engine_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the arguments of [`load_pipeline`] to a command."""
    about = "; ".join(f"{name}: {engine.about}" for name, engine in ENGINES.items())
    group.add_argument(
        "--engine", choices=tuple(ENGINES), default="torch", help=f"what computes (default: torch). {about}"
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU when there is one)")
    dtypes = tuple(dict.fromkeys(dtype for engine in ENGINES.values() for dtype in engine.dtypes))
    group.add_argument(
        "--dtype",
        choices=dtypes,
        help=f"default: as saved; of llama_cpp the first there is of {', '.join(GGUF_PRECISIONS)}",
    )
    group.add_argument("--revision", help="branch, tag or commit of a Hub model")
