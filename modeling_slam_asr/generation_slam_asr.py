"""How a transcript is generated: the settings of one call, limits from the audio, and the end of runaway repetition."""

import copy
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

from .checkpoint_slam_asr import repository_file
from .configuration_slam_asr import is_number, refuse_sizes
from .transcripts_slam_asr import CHECK_EVERY, Transcript, loop_period, read_transcript, token_limit

__all__ = ["TranscriptLimit", "read_generation"]

# What transformers calls the LLM's cache: `past_key_values` until 5.23, `cache` since.
CACHE = next(name for name in ("cache", "past_key_values") if name in CausalLMOutputWithPast.__dataclass_fields__)

logger = logging.get_logger(__name__)

# The library's `max_length` where nobody asks for one. `Seq2SeqTrainer` writes it into the configuration of a model that generates.
DEFAULT_LENGTH = 20


class TranscriptLimit(StoppingCriteria):
    """
    End each row on its own: at its audio's token limit, or once it does nothing but repeat itself.

    Both look at the row alone, so a transcript does not depend on what it is batched with.

    Args:
        limits: most new tokens of each utterance, `(batch,)`; its beams or samples stand in neighbouring rows.
    """

    def __init__(self, limits: torch.Tensor) -> None:
        self.limits = limits

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Which rows `(rows,)` of new tokens `(rows, new_tokens)` are done."""
        rows, new_tokens = input_ids.shape
        done = self.limits.to(input_ids.device).repeat_interleave(rows // len(self.limits)) <= new_tokens
        if new_tokens % CHECK_EVERY == 0:
            loops = [loop_period(tokens) is not None for tokens in input_ids.tolist()]
            done = done | torch.tensor(loops, device=done.device)
        return done


def token_limits(seconds: torch.Tensor, tokens_per_second: float) -> torch.Tensor:
    """The most new tokens of utterances of `seconds` `(batch,)`: int64 `(batch,)`."""
    limits = [token_limit(each, tokens_per_second) for each in seconds.cpu().double().flatten().tolist()]
    return torch.tensor(limits, dtype=torch.long, device=seconds.device).reshape(seconds.shape)


def requested_generation(
    own: GenerationConfig, given: GenerationConfig | None, options: Mapping[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """
    The generation configuration of one call, and those of `options` that are no part of one.

    As in transformers, what `given` leaves open is as in `own`, the model's, and `options` go before both. A `max_length` goes
    before a `max_new_tokens` of a lower place: who asks for it does not mean the checkpoint's limit.
    """
    config = copy.deepcopy(own if given is None else given)
    if given is not None:
        config.update(**own.to_dict(), defaults_only=True, allow_custom_entries=True)
    if own.max_length == DEFAULT_LENGTH and (given is None or given.max_length is None):
        config.max_length = None
    rest = config.update(**options)
    by_place: list[Mapping[str, Any]] = [options, {} if given is None else vars(given)]
    for place in by_place:
        length, tokens = place.get("max_length"), place.get("max_new_tokens")
        if tokens is not None:
            if length is not None:
                logger.warning_once(
                    f"max_new_tokens={tokens} holds, and max_length={length} does not: give one of them."
                )
            break
        if length is not None:
            config.max_new_tokens = None
            break
    return config, rest


def new_token_limits(config: GenerationConfig, seconds: torch.Tensor, tokens_per_second: float) -> torch.Tensor:
    """
    The most new tokens of utterances of `seconds` `(batch,)` of audio, from each one's own length: int64 `(batch,)`.

    A `max_new_tokens` in `config` replaces them. A `max_length` there, which counts new tokens, as only they are returned,
    holds where it is less, and not beside a `max_new_tokens`.
    """
    if config.max_new_tokens is not None:
        return torch.full_like(seconds, config.max_new_tokens, dtype=torch.long)
    limits = token_limits(seconds, tokens_per_second)
    return limits if config.max_length is None else limits.clamp(max=config.max_length)


@dataclass
class TranscriptRequest:
    """
    The settings of one call of `generate`, derived once: what generates obeys them, and what reads the transcripts knows them.

    config: its `max_new_tokens` is the greatest of the limits.
    limits: most new tokens of each utterance, int64 `(batch,)`, see [`new_token_limits`].
    options: what is no part of a generation configuration, for `GenerationMixin.generate`.
    prompt_columns: whether a placeholder is to stand before the tokens for each column of the request.
    """

    config: GenerationConfig
    limits: torch.Tensor
    options: dict[str, Any]
    prompt_columns: bool = False

    @property
    def stop_strings(self) -> list[str]:
        """The texts that end a transcript."""
        asked = self.config.stop_strings
        return [asked] if isinstance(asked, str) else list(asked or [])

    @property
    def end_tokens(self) -> set[int]:
        """The tokens that end a transcript."""
        asked: Any = self.config.eos_token_id
        return set(asked) if isinstance(asked, list | tuple) else set() if asked is None else {asked}

    def stopping_criteria(self) -> StoppingCriteriaList:
        """Those that the caller gave, and the limits."""
        given = self.options.get("stopping_criteria") or []
        return StoppingCriteriaList([*given, TranscriptLimit(self.limits)])

    def read(self, sequences: torch.Tensor, trim_loops: bool = True) -> list[Transcript]:
        """What the first of each utterance's rows of new tokens says; `sequences` `(batch * several, new_tokens)`."""
        rows = sequences[:: len(sequences) // len(self.limits)].tolist()
        return [
            read_transcript(row, self.end_tokens, self.config.pad_token_id, limit, trim_loops)  # type: ignore[arg-type]
            for row, limit in zip(rows, self.limits.tolist(), strict=True)
        ]


def transcript_request(
    own: GenerationConfig,
    given: GenerationConfig | None,
    options: Mapping[str, Any],
    seconds: torch.Tensor,
    tokens_per_second: float,
) -> TranscriptRequest:
    """
    The settings of one call.

    Args:
        own, given, options: see [`requested_generation`].
        seconds: of audio of each utterance, `(batch,)`.
        tokens_per_second: the model's `max_tokens_per_second`.
    """
    config, rest = requested_generation(own, given, options)
    deaf = "assistant_model" if rest.get("assistant_model") is not None else "guidance_scale"
    if deaf == "assistant_model" or config.guidance_scale not in (None, 1):
        raise ValueError(
            f"{deaf} is not possible: what it adds is given tokens alone and cannot hear the audio. To save passes, "
            "`prompt_lookup_num_tokens` needs no assistant."
        )
    if config.min_length and config.min_new_tokens is None:
        config.min_new_tokens = config.min_length  # only new tokens are counted, as in `max_length`
    config.min_length = None
    columns = rest.pop("prompt_columns", getattr(config, "prompt_columns", False))
    limits = new_token_limits(config, seconds, tokens_per_second)
    config.max_new_tokens, config.max_length = int(limits.max()), None
    return TranscriptRequest(config, limits, rest, bool(columns))


@lru_cache
def llm_arguments(llm: type) -> frozenset[str]:
    """The arguments that an LLM's `forward` knows by name."""
    return frozenset(inspect.signature(llm.forward).parameters)  # type: ignore[attr-defined]


def multiply_once(language_model: Any) -> None:
    """
    Let an LLM's output layer read contiguous memory, whatever the LLM gives it.

    In the prefill LLMs slice the last position of each row. On a CPU torch's linear layer multiplies such a view with a copy of its
    matrix a row, several GiB in all. It goes by the strides: those of one row, too, which `contiguous` leaves as they are.
    """
    head = language_model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.flatten().view(value.shape) if isinstance(value, torch.Tensor) else value for value in inputs)


# What a stored generation configuration may hold: numbers above zero, other numbers, token ids, and a few short texts.
_COUNTS = ("num_beams", "num_return_sequences", "max_new_tokens", "max_length")
_NUMBERS = (
    "min_new_tokens", "min_length", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h", "temperature",
    "length_penalty", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "max_time", "ctc_weight",
    "encoder_no_repeat_ngram_size", "prompt_lookup_num_tokens",
)  # fmt: skip
_TOKENS = (
    "bos_token_id", "pad_token_id", "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
_MOST_STOPS, _MOST_BYTES = 100, 10_000_000


def stored_generation_config(path: Any, hub: dict[str, Any]) -> GenerationConfig | None:
    """The generation configuration that lies beside a checkpoint, or None. A ValueError as of [`read_generation`]."""
    file = repository_file(path, "generation_config.json", **hub)
    if file is None:
        return None
    read_generation(file, os.fspath(path))
    config = GenerationConfig.from_pretrained(path, **hub)
    config.max_length = None if config.max_length == DEFAULT_LENGTH else config.max_length
    return config


def read_generation(file: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """
    The settings in a `generation_config.json`, of the model `name`.

    Raises:
        ValueError: it names code, asks for sizes that no model has, or holds something of another kind than it should.
    """
    damaged = (
        "generation_config.json of {} {}. Mend it, get the model again, or take the file away to use the defaults."
    )
    try:
        content = Path(file).read_bytes()
        values = json.loads(content) if len(content) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(damaged.format(name, f"is no JSON object of at most {_MOST_BYTES:,} bytes"))
    named = values.get("custom_generate")
    if isinstance(named, str):
        raise ValueError(
            f"generation_config.json asks for custom_generate={named!r}, code of a repository. Take the key out "
            "of it, or give custom_generate to `generate` yourself."
        )
    refuse_sizes(values, "generation_config.")
    for key, value in values.items():
        if value is not None and not _is_possible(key, value):
            raise ValueError(damaged.format(name, f"has {key}={repr(value)[:100]}, which is not possible"))
    return values


def _is_possible(name: str, value: Any) -> bool:
    """Whether a setting of a stored generation configuration has a value of the right kind."""
    if name in _COUNTS:
        return _is_whole(value, 1)
    if name in _NUMBERS:
        return is_number(value) and math.isfinite(value)
    if name in _TOKENS:
        return _is_whole(value, -1) or (isinstance(value, list) and all(_is_whole(token, -1) for token in value))
    if name == "stop_strings":
        stops = value if isinstance(value, list) else [value]
        return len(stops) <= _MOST_STOPS and all(
            isinstance(stop, str) and 0 < len(stop) <= _MOST_STOPS for stop in stops
        )
    return True


def _is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of `least` or more."""
    return is_number(value) and isinstance(value, int) and value >= least


def transcription_defaults(base: GenerationConfig, end: int | None) -> GenerationConfig:
    """Greedy decoding that ends with the LLM's own end tokens and `end`."""
    listed: Any = base.eos_token_id
    ends = list(listed) if isinstance(listed, Sequence) else [] if listed is None else [listed]
    if end is not None and end not in ends:
        ends.insert(0, end)
    pad = base.pad_token_id if base.pad_token_id is not None else (ends[0] if ends else None)
    eos: Any = ends[0] if len(ends) == 1 else (ends or None)
    return GenerationConfig(
        bos_token_id=base.bos_token_id, eos_token_id=eos, pad_token_id=pad, num_beams=1, do_sample=False
    )


@torch.no_grad()
def refuse_unfit(language_model: Any) -> None:
    """Raise a ValueError for an LLM whose `generate` reads tokens alone, and so no audio, or that sees what it is to predict."""
    if (
        getattr(language_model.config, "is_decoder", None) is False
    ):  # BERT and its like; GPT-NeoX says so too and is causal
        logits = language_model(input_ids=torch.tensor([[0, 1], [0, 2]], device=language_model.device)).logits[:, 0]
        if (logits[0] - logits[1]).abs().max() > 1e-4 * logits.abs().max():
            raise ValueError(
                f"{type(language_model).__name__} reads text in both directions, so it cannot learn to write on. Choose a causal LLM."
            )
    if "inputs_embeds" not in inspect.signature(language_model.prepare_inputs_for_generation).parameters:
        raise ValueError(
            f"{type(language_model).__name__} cannot generate from embeddings, which audio becomes. Choose an LLM of another class; of "
            "those that see images too there is often one for text alone."
        )


def quieten(language_model: Any) -> None:
    """Chat models' sampling and penalties would come along wherever a request leaves a setting open."""
    language_model.generation_config = transcription_defaults(language_model.generation_config, None)


def pad_left(mask: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """
    `mask` `(batch, length)` and tensors `(batch, length, ...)` with what is masked moved to the left of each row, where
    generation needs padding, and columns that no row uses left out.
    """
    order = torch.argsort(mask.long(), dim=1, stable=True)
    order = order[:, order.shape[1] - int(mask.sum(-1).max()) :]
    if torch.equal(order, torch.arange(mask.shape[1], device=mask.device).expand_as(mask)):
        return [mask, *tensors]
    moved = []
    for tensor in (mask, *tensors):
        index = order.to(tensor.device).reshape(*order.shape, *[1] * (tensor.dim() - 2))
        moved.append(tensor.gather(1, index.expand(*order.shape, *tensor.shape[2:])))
    return moved


NO_DRAFT = (
    "ctc_draft=True needs a model with a CTC head, an LLM with a cache, one utterance at a time, num_beams=1 and no sampling. "
    "Leave it out: the transcript is the same without."
)
_AHEAD = 8  # tokens of a draft that a pass reads: more take longer, and are wasted behind the first that the LLM writes otherwise


class EndSilence(LogitsProcessor):
    """
    Rows without speech end at once: nothing is invented for them.

    Args:
        silent: `(batch,)`, bool; an utterance's beams or samples stand in neighbouring rows.
        end: the end token.
    """

    def __init__(self, silent: torch.Tensor, end: int) -> None:
        self.silent, self.end = silent, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` `(rows, vocab)` with nothing but the end token possible in silent rows."""
        rows = self.silent.to(scores.device).repeat_interleave(len(scores) // len(self.silent))
        only_end = torch.full_like(scores, -float("inf"))
        only_end[:, self.end] = 0.0
        return torch.where(rows[:, None], only_end, scores)


class DraftTextStreamer(TextIteratorStreamer):
    """
    The text so far, again and again: the CTC transcript at first, while the LLM is still reading, then what the LLM has written with
    the rest of the CTC transcript behind it, and at the end the LLM's text alone.

    As `TextIteratorStreamer`, but each piece is the whole text and replaces the one before. Use it as `streamer=` of `generate`
    for one utterance; a model without a CTC head has no first guess.
    """

    draft = written = ""

    def put_draft(self, tokens: Sequence[int]) -> None:
        """Called by `generate` with the token ids of the CTC transcript."""
        self.draft = str(self.tokenizer.decode(list(tokens), **self.decode_kwargs)).strip()
        self.text_queue.put(self.draft, timeout=self.timeout)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.written += text
        rest = [] if stream_end else self.draft.split()[len(self.written.split()) :]
        self.text_queue.put(" ".join([self.written.strip(), *rest]).strip(), timeout=self.timeout)
        if stream_end:
            self.text_queue.put(self.stop_signal, timeout=self.timeout)


def can_draft(config: GenerationConfig, options: Mapping[str, Any], llm: type) -> bool:
    """Whether a call with this configuration and these other `options` wants greedy tokens alone, which a draft can serve."""
    return (
        (config.num_beams or 1) == (config.num_return_sequences or 1) == 1
        and not config.do_sample
        and not config.return_dict_in_generate
        and config.prompt_lookup_num_tokens is None
        and options.get("custom_generate") is None
        and {CACHE, "logits_to_keep"} <= llm_arguments(llm)
        and not getattr(llm, "_is_stateful", False)
    )


@dataclass(frozen=True)
class CtcShare:
    """What the CTC head does in a call of `generate`: gives the transcript itself, a draft of it, its say in each token, or nothing."""

    only: bool
    draft: bool
    weight: float

    @property
    def needed(self) -> bool:
        """Whether its scores are."""
        return self.only or self.draft or self.weight > 0


def joint_weight(config: GenerationConfig, options: Mapping[str, Any]) -> float:
    """The `ctc_weight` of a call: how much the CTC head has to say in each next token, by `options` or else by `config`."""
    return options.get("ctc_weight", getattr(config, "ctc_weight", None)) or 0.0


def ctc_share(config: GenerationConfig, options: dict[str, Any], head: bool, utterances: int, llm: type) -> CtcShare:
    """
    What is asked of the CTC head, by `options` (it is taken out of them) or else by `config`.

    Args:
        head: whether the model has one. llm: its LLM's class, which a draft needs to keep a cache that can be taken back, and to give several tokens' logits.

    Raises:
        ValueError: more is asked than this model or this call can do.
    """
    only = options.pop("ctc_only", getattr(config, "ctc_only", False))
    asked = options.pop("ctc_draft", None)
    weight = joint_weight(config, options)
    options.pop("ctc_weight", None)
    if not 0 <= weight < 1 or (weight and (not head or config.prompt_lookup_num_tokens is not None)):
        raise ValueError(
            f"ctc_weight={weight!r} must be from 0 to below 1, and 0 for a model without a CTC head and with prompt_lookup_num_tokens."
        )
    fits = head and utterances == 1 and can_draft(config, options, llm)
    if asked and not fits:
        raise ValueError(NO_DRAFT)
    # A head that has a say is true, and then its transcript saves half of the LLM's passes or more.
    usual = getattr(config, "ctc_draft", weight > 0) or isinstance(options.get("streamer"), DraftTextStreamer)
    return CtcShare(only, fits and (usual if asked is None else asked), weight)


def draft_decoding(draft: Sequence[int], streamer: Any = None) -> Callable[..., torch.Tensor]:
    """
    Greedy decoding that verifies a draft, as the `custom_generate` of `GenerationMixin.generate`; for one utterance.

    The LLM reads the prompt and the draft's next tokens in one pass and keeps those that it would have written itself. After one that it
    writes otherwise, the draft is taken up again where it is most like what is written. The transcript is that of greedy decoding.

    Args:
        draft: token ids of a first guess, such as a greedy CTC transcript.
        streamer: as of `generate`, which hands none on to a `custom_generate`.
    Source: Leviathan et al. 2023 (arXiv 2211.17192), with a draft that costs no model of its own.
    """

    def decode(
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: GenerationConfig,
        **model_kwargs: Any,  # what is named above would not come as an input of the LLM
    ) -> torch.Tensor:
        embed, prompt = model.get_input_embeddings(), model_kwargs["inputs_embeds"]
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()
        guessed, distances = np.array(draft, dtype=np.int64), np.arange(len(draft) + 1)
        embeddings = prompt
        while True:
            place = int(np.flatnonzero(distances == distances.min())[-1])
            guess = list(draft[place : place + _AHEAD])
            embeddings = torch.cat([embeddings, embed(input_ids.new_tensor(guess)[None]).to(embeddings)], dim=1)
            output = model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=len(guess) + 1, **{CACHE: cache})
            for read, logits in enumerate(output.logits[0].float()):
                token = int(logits_processor(input_ids, logits[None]).argmax())
                distances = _read_on(distances, guessed, token)
                input_ids = torch.cat([input_ids, input_ids.new_tensor([[token]])], dim=1)
                if streamer is not None:
                    streamer.put(input_ids[0, -1:].cpu())
                if bool(stopping_criteria(input_ids, None).all()):
                    if streamer is not None:
                        streamer.end()
                    return input_ids
                if read == len(guess) or token != guess[read]:
                    break
            cache.crop(read - len(guess))
            embeddings = embed(input_ids[:, -1:]).to(prompt)

    return decode


def _read_on(distances: np.ndarray, draft: np.ndarray, token: int) -> np.ndarray:
    """Edit distances of what is written to each beginning of the draft, `(len(draft) + 1,)`, once `token` is written too."""
    swapped = np.minimum(distances[1:] + 1, distances[:-1] + (draft != token))
    steps = np.arange(len(distances))
    return np.minimum.accumulate(np.concatenate([distances[:1] + 1, swapped]) - steps) + steps
