"""
The engine `vllm`: an export's LLM by vLLM, for GPUs, given prompt embeddings.

It has run with vLLM's build for CPUs; it has not run on a GPU yet.
"""

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainers.errors import UserError
from trainers.serving.exported import ExportedPipeline, Generated, Request, cut_loop, open_export
from trainers.serving.language_model import prompt_embeddings
from trainers.serving.manifest import read_manifest
from trainers.serving.onnx_audio import OnnxAudio

# vLLM scales these LLMs' token embeddings outside of the table, transformers all that the LLM reads, audio too.
_SCALED_INSIDE = ("gemma", "gemma2")

# What vLLM reads from the environment of its process and of those that it starts, unless the user has set it: its lines would stand
# among transcripts on the standard output, it tells its makers of the machine, and on a CPU its cache takes nearly all memory.
_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
}


def load_pipeline(
    model: str | os.PathLike[str], *, device: str | None = None, dtype: str | None = None, revision: str | None = None
) -> ExportedPipeline:
    """
    The pipeline of a folder made by `slam-asr export` with the LLM's weights.

    Args:
        device: vLLM chooses it itself: leave it out.
        dtype: what vLLM computes in; as exported, if None.
    Raises:
        UserError: for a folder without these parts, an option that this engine does not have, or vLLM not installed.
    """
    if device is not None:
        raise UserError(
            f"--device {device}: vLLM takes the device that it was built for. Leave it out, or set CUDA_VISIBLE_DEVICES."
        )
    if revision is not None:
        raise UserError(f"--revision {revision}: the engine vllm reads a folder. Export that revision.")
    folder = Path(model)
    open_export(folder, "vllm", "--dtype bfloat16")
    manifest = read_manifest(folder, "llm")
    audio = OnnxAudio(folder)
    return ExportedPipeline(folder, audio, Vllm(folder / "llm", dtype or manifest["parts"]["llm"]["precision"]))


class Vllm:
    """
    Greedy decoding by vLLM.

    Args:
        folder: the LLM, as `AutoModelForCausalLM` loads it.
        precision: what vLLM computes in.
    Raises:
        UserError: when vLLM is not installed or does not start, or would scale this LLM's embeddings otherwise than transformers.
    """

    name, joins = "vllm", False

    def __init__(self, folder: Path, precision: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UserError(f'The engine vllm needs vLLM: `pip install "slam-asr[vllm]"` ({error}).') from error
        self.precision = precision
        self.embed = token_embeddings(folder, precision)
        self.sampling: Any = vllm.SamplingParams
        try:
            self.engine: Any = vllm.LLM(
                model=os.fspath(folder),
                dtype=precision,
                enable_prompt_embeds=True,
                enable_prefix_caching=False,  # no two recordings begin alike
                generation_config="vllm",  # what a request leaves open is vLLM's own: requests leave nothing open
                max_model_len=-1,  # of the model's length what there is memory for
                enforce_eager=current_platform.is_cpu(),  # compiling takes minutes there, at each start
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise UserError(f"vLLM cannot start with {folder}: {reason} What it wrote before says more.") from error
        self.longest = int(self.engine.model_config.max_model_len)
        self._lock = threading.Lock()  # `generate` is for one thread

    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        """Of each request what the LLM writes."""
        for request in requests:
            places = len(request.before) + len(request.audio) + len(request.after) + request.limit
            if places > self.longest:  # vLLM would end such a transcript early, and nobody would know
                raise UserError(
                    f"A window takes {places} places with {request.limit} new tokens, and vLLM has {self.longest}. Lower "
                    "max_new_tokens or window_seconds, or use a shorter prompt."
                )
        prompts = [{"prompt_embeds": prompt_embeddings(self.embed, request)} for request in requests]
        settings = [self.sampling(**sampling_settings(request, ends, log_probs)) for request in requests]
        with self._lock:
            outputs = self.engine.generate(prompts, settings, use_tqdm=False)
        return [read_output(output.outputs[0].token_ids, output.outputs[0].logprobs) for output in outputs]


def token_embeddings(folder: Path, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    What an LLM reads for token ids, as transformers computes it; the rest of the LLM is let go.

    Raises:
        UserError: for an LLM that scales its inputs otherwise in vLLM.
    """
    from transformers import AutoModelForCausalLM

    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision))
    if llm.config.model_type in _SCALED_INSIDE:
        raise UserError(
            f"vLLM scales the embeddings of a {llm.config.model_type} otherwise than transformers. Use --engine torch."
        )
    table: Callable[[torch.Tensor], torch.Tensor] = llm.get_input_embeddings()
    return table


def sampling_settings(request: Request, ends: Collection[int], log_probs: bool) -> dict[str, Any]:
    """The arguments of vLLM's `SamplingParams`: greedy, to an end token of the model or the request's limit."""
    return {
        "temperature": 0.0,
        "max_tokens": request.limit,
        "stop_token_ids": list(ends),
        "ignore_eos": True,  # the tokenizer's own end token need not be one of the model's
        "detokenize": False,
        "logprobs": 0 if log_probs else None,  # 0: of the token that was taken
    }


def read_output(tokens: Sequence[int], log_probs: Sequence[Mapping[int, Any]] | None) -> Generated:
    """
    vLLM's answer, up to where another engine would have stopped a loop.

    Args:
        tokens: the end token is the last where there is one.
        log_probs: vLLM's `logprobs`: for each token a mapping with its `logprob`.
    """
    count = cut_loop(tokens)
    kept = list(tokens[:count])
    found = [] if log_probs is None else [float(log_probs[place][token].logprob) for place, token in enumerate(kept)]
    return Generated(kept, found)
