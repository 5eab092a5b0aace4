"""The LLM of a model as a plain Hugging Face folder, which `AutoModelForCausalLM` loads without this project's code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.errors import UserError
from trainers.serving.exported import Request


def write_llm(model: SlamAsrForConditionalGeneration, folder: Path, dtype: torch.dtype) -> None:
    """
    Write the LLM's configuration, generation settings and weights in `dtype`.

    Args:
        model: without LoRA (see [`merge_lora`]); its LLM is converted in place.
    """
    llm = model.language_model.to(dtype)
    llm.config.dtype = dtype
    # The settings that the model transcribes with, its end token among them, hold for the LLM alone too.
    llm.generation_config = model.generation_config
    llm.save_pretrained(folder)


def write_tokenizer(processor: SlamAsrProcessor, folder: Path) -> None:
    """Write the tokenizer, with the processor's chat template where that has one of its own."""
    tokenizer = processor.tokenizer
    if processor.chat_template:
        tokenizer.chat_template = processor.chat_template
    tokenizer.save_pretrained(folder)


def load_llm(folder: Path) -> Any:
    """
    The LLM of such a folder as anybody loads it, in float32.

    Raises:
        UserError: when tensors are missing or extra.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    llm, report = loaded
    wrong = [*report["missing_keys"], *report["unexpected_keys"]]
    if wrong:
        raise UserError(
            f"The exported LLM does not load: {len(wrong)} tensors are missing or unknown, such as {sorted(wrong)[0]!r}. This "
            f"version of transformers does not save {type(llm).__name__} in the form that it loads."
        )
    return llm.eval()


@torch.no_grad()
def prompt_embeddings(embed: Callable[[torch.Tensor], torch.Tensor], request: Request) -> torch.Tensor:
    """What the LLM reads for a request, `(length, hidden)`: the audio's embeddings between those of the tokens around them."""
    before, after = (embed(torch.tensor(tokens, dtype=torch.long)) for tokens in (request.before, request.after))
    return torch.cat([before, torch.from_numpy(request.audio).to(before), after]).detach()
