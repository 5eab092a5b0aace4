"""
What computes the transcripts: engines behind one pipeline. One module an engine, and none is imported unless it is asked for.

Windows, gates, merged overlaps, timestamps and marks are the pipeline's own whatever the engine.
"""

import importlib
import os
from typing import TYPE_CHECKING

from trainers.errors import UserError

if TYPE_CHECKING:
    import argparse

    from modeling_slam_asr import SlamAsrPipeline

__all__ = ["ENGINES", "add_engine_argument", "load_pipeline"]

# Each module has `load_pipeline(model, *, device, dtype, revision)`.
ENGINES = {"torch": "trainers.inference.evaluate"}


def load_pipeline(
    model: str | os.PathLike[str],
    *,
    engine: str = "torch",
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> "SlamAsrPipeline":
    """
    The transcription pipeline of a model, computed by an engine.

    Args:
        model: a model folder or Hub name.
        engine: one of `ENGINES`.
        device, dtype, revision: as of `trainers.inference.evaluate.load_pipeline`.
    Raises:
        UserError: for an engine that is unknown or not installed, or a model that it cannot read.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine!r} is unknown. Choose one of {', '.join(ENGINES)}.")
    module = importlib.import_module(ENGINES[engine])
    pipeline: SlamAsrPipeline = module.load_pipeline(model, device=device, dtype=dtype, revision=revision)
    return pipeline


def add_engine_argument(parser: "argparse._ArgumentGroup") -> None:
    """Add `--engine` to a command."""
    parser.add_argument("--engine", choices=tuple(ENGINES), default="torch", help="what computes (default: torch)")
