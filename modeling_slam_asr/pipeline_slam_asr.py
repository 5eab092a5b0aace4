"""`pipeline("automatic-speech-recognition")` for SLAM-ASR models, and what a model says of its finished transcripts."""

import copy
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutomaticSpeechRecognitionPipeline, TextStreamer
from transformers.utils import logging

from .generation_slam_asr import joint_weight, llm_arguments
from .processing_slam_asr import SlamAsrProcessor, pad_features, pad_rows
from .recordings_slam_asr import RecordingsMixin, WindowItem, WindowTranscript
from .transcripts_slam_asr import align_tokens

__all__ = [
    "ALIGNMENT_HEADS",
    "SecondLook",
    "SlamAsrPipeline",
    "align_transcripts",
    "alignment_matrix",
    "eager_twin",
    "look_again",
]

ALIGNMENT_HEADS = 8


@torch.no_grad()
def align_transcripts(
    model: Any, transcripts: Sequence[Sequence[int]], **audio: torch.Tensor | None
) -> list[np.ndarray | None]:
    """
    Where the CTC head hears each token of finished transcripts, by forced alignment.

    Args:
        model: a [`SlamAsrForConditionalGeneration`] with a CTC head.
        transcripts: token ids of each utterance, without end tokens.
        audio: the arguments of `model.get_audio_features`.
    Returns:
        For each utterance `(tokens, 3)` as [`align_tokens`] gives it, in audio embeddings; None where the transcript has more
        tokens than the audio has embeddings.
    """
    frames, mask = model.get_audio_features(**audio, return_dict=True).padded()
    known = set(model.ctc_tokens())
    found: list[np.ndarray | None] = []
    for row, transcript in enumerate(transcripts):
        classes = sorted(known | set(transcript))  # the LLM may write pieces that the head was not trained on
        log_probs = model.ctc_log_probs(frames[row : row + 1, mask[row]], classes)[0].cpu().numpy()
        place = {token: index + 1 for index, token in enumerate(classes)}
        try:
            found.append(align_tokens(log_probs, [place[token] for token in transcript]))
        except ValueError:
            found.append(None)
    return found


def alignment_matrix(
    attentions: Sequence[torch.Tensor], audio: torch.Tensor, heads: int = ALIGNMENT_HEADS
) -> np.ndarray:
    """
    One map of which audio each transcript token listens to.

    The mean of the heads whose attention moves most steadily through the audio from token to token, the steadier with the
    greater weight.

    Args:
        attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the transcript's tokens.
        audio: indices of the audio positions, `(audio_positions,)`.
    Returns:
        `(tokens, audio_positions)`, standardised over the tokens.
    """
    weights = torch.cat([layer[:, :, audio].float().cpu() for layer in attentions])
    mass = weights.sum(-1)
    shares = weights / mass.clamp(min=1e-9)[..., None]
    tokens, positions = shares.shape[1:]
    if tokens < 2 or positions < 2:
        return shares.mean(0).numpy()
    centres = shares @ torch.arange(positions, dtype=torch.float32)
    steps = torch.arange(tokens, dtype=torch.float32)
    centres_off, steps_off = centres - centres.mean(-1, keepdim=True), steps - steps.mean()
    steady = (centres_off * steps_off).sum(-1) / (centres_off.norm(dim=-1) * steps_off.norm()).clamp(min=1e-9)
    reach = centres_off.std(-1) / (positions / 12**0.5)  # 1 for a head that walks through the whole recording
    scores, best = (steady * reach.clamp(max=1.0)).topk(min(heads, len(shares)))
    chosen = shares[best]
    chosen = (chosen - chosen.mean(1, keepdim=True)) / chosen.std(1, keepdim=True).clamp(min=1e-6)
    # A small LLM has fewer good heads than are asked for; the fourth power leaves the others little say.
    weights = scores.clamp(min=1e-3) ** 4
    return torch.einsum("h,htp->tp", weights / weights.sum(), chosen).numpy()


def eager_twin(language_model: Any) -> Any:
    """
    An LLM that shares every tensor of this one and computes attention the plain way, the only one that gives weights back.

    Whoever else uses the LLM meanwhile, in another thread, sees nothing of it.
    """
    tensors = itertools.chain(language_model.parameters(), language_model.buffers())
    twin = copy.deepcopy(language_model, {id(tensor): tensor for tensor in tensors})
    for module in twin.modules():  # a compiled `forward` is the original's; accelerate's are the module's own
        if not hasattr(module, "_hf_hook"):
            module.__dict__.pop("forward", None)
    twin.set_attn_implementation("eager")
    return twin


@dataclass
class SecondLook:
    """
    log_probs: natural logarithm of each token's probability, `(tokens,)`, float32.
    attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the tokens; None if not asked for.
    audio: indices of the audio embeddings within `length`.
    """

    log_probs: torch.Tensor
    attentions: list[torch.Tensor] | None
    audio: torch.Tensor


@torch.no_grad()
def look_again(
    model: Any,
    transcripts: Sequence[Sequence[int]],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    attentions: bool = False,
    **audio: Any,
) -> list[SecondLook]:
    """
    One forward pass of the LLM over request and finished transcript, an utterance at a time.

    Args:
        model: a [`SlamAsrForConditionalGeneration`].
        transcripts: generated token ids of each utterance, without padding.
        input_ids, attention_mask: the request, `(batch, length)`, padded at either side.
        attentions: give back attention weights too.
        audio: the audio arguments of `model.forward`.
    """
    merged = model.merge_inputs(input_ids, attention_mask, **audio)
    table = model.get_input_embeddings()
    language_model = eager_twin(model.language_model) if attentions else model.language_model
    few = "logits_to_keep" in llm_arguments(language_model.__class__)
    looks = []
    for row, transcript in enumerate(transcripts):
        held = merged.attention_mask[row].bool()
        request = merged.inputs_embeds[row, held]
        places = merged.audio[row, held].nonzero().squeeze(-1).cpu()
        if not len(transcript):
            looks.append(SecondLook(torch.zeros(0), [] if attentions else None, places))
            continue
        tokens = torch.tensor(list(transcript), device=request.device)
        whole = torch.cat([request, table(tokens).to(request)])[None]
        output = language_model(
            inputs_embeds=whole,
            attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device),
            output_attentions=attentions,
            use_cache=False,
            **({"logits_to_keep": len(tokens) + 1} if few else {}),
        )
        first = len(request) - 1  # each token is predicted at the place before it
        logits = output.logits[0, -len(tokens) - 1 : -1].float()
        log_probs = logits.log_softmax(-1).gather(-1, tokens[:, None].to(logits.device)).squeeze(-1).cpu()
        rows = [layer[0, :, first:-1].cpu() for layer in output.attentions] if attentions else None
        looks.append(SecondLook(log_probs, rows, places))
    return looks


logger = logging.get_logger(__name__)


class SlamAsrPipeline(RecordingsMixin, AutomaticSpeechRecognitionPipeline):  # type: ignore[misc]  # its steps are the mixin's
    """
    Transcribe recordings of any length: `{"text": ...}` each.

    Inputs are paths, addresses, file contents, arrays, mappings with `array` and `sampling_rate`, rows of data sets, or lists,
    generators and data sets of them. Recordings beyond 30 s are cut at pauses; `batch_size` windows go through the model
    together. Other keys of a mapping come back as lists, as in transformers' own pipeline, unless the answer has the key.

    Args (of the call or of the constructor):
        language, prompt, context: as in [`SlamAsrProcessor.apply_transcription_request`]. Without a `language` of the call, the
            recording's own counts, where its mapping has one (`{"array": ..., "sampling_rate": ..., "language": "da"}`).
        return_timestamps: `True`: `chunks` with the times of each window; `"word"`: of each word, by the CTC head or
            else by the LLM's attention; `"estimate"`: of each word, by the sound's level. Times of words are approximate.
        return_confidence: add `confidence`, the geometric mean of the tokens' probabilities, of a word the least of its tokens';
            `"tokens"`: each token's log-probability too.
        window_seconds (or `chunk_length_s`): longest window. None: the length that the model was trained for
            (`config.window_seconds`, else `WINDOW_SECONDS`); recordings up to a quarter longer, at most 30 s, are not cut then.
        overlap_seconds (or `stride_length_s`; of a pair the greater): what two windows share where there is no pause to cut at.
        silence_db: windows that stay below it, in dB of full scale, are not transcribed. The default is digital silence.
        drop_no_speech: leave windows of steady noise untranscribed too, in place of a `no_speech` mark.
        vad: `"silero"` or `"webrtc"`: transcribe only from the first to the last speech that it finds in a window.
        trim_loops: of a transcript that ran into a loop keep the first copy; it is marked `loop` in either case.
        on_error: `"raise"`, or `"return"`: a recording that cannot be read or transcribed gives `{"text": "", "error": ...}`.
        progress: a progress bar on stderr for each long recording. None: when stderr is a terminal.
        on_window: called after each window with the text so far that no later window changes.
        generate_kwargs: for `generate`; other keyword arguments go there too. As for Whisper, a `language` may stand among
            them, and `task="transcribe"`.
    """

    _no_stream = (*RecordingsMixin._no_stream, Dataset)  # transformers streams it by itself
    # None as elsewhere in transformers: it is loaded where there is one. It holds prompts and template.
    _load_processor = None  # type: ignore[assignment]

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self._detectors = {}
        super().__init__(model, *args, **kwargs)
        self.type = "seq2seq"
        # The stock defaults (5 beams, 256 tokens) are Whisper's; the model's own generation configuration counts here.
        self._generation_defaults: dict[str, Any] = {}
        if not isinstance(self.processor, SlamAsrProcessor):
            self.processor = SlamAsrProcessor.from_config(model.config, self.feature_extractor, self.tokenizer)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Transcribe one recording (a dict), a list of them (a list), or a generator or data set of them (an iterator)."""
        inputs = self._recordings(inputs)
        if isinstance(inputs, Dataset) and hasattr(inputs, "__len__") and not hasattr(inputs, "__iter__"):
            inputs = _Rows(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        streamer = kwargs.get("streamer", (kwargs.get("generate_kwargs") or {}).get("streamer"))
        lazy = isinstance(inputs, GeneratorType | Dataset)  # what is answered as it is asked for
        with one_stream(None if lazy else streamer):
            return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor: what this pipeline can do, its saved copy can do."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(
            save_directory
        )  # transformers' own saves the processor's parts without its prompts

    def _transcribe(
        self, windows: list[WindowItem], look: bool, words: bool, trim_loops: bool, options: dict[str, Any]
    ) -> list[WindowTranscript]:
        ctc = words and self.model.config.projector_ctc
        look = look or (words and not ctc)
        features, mask = pad_features([window["features"] for window in windows])
        rows = [window["ids"] for window in windows]
        features, mask = features.to(self.device), mask.to(self.device)
        request = {
            "input_ids": pad_rows(rows, 0, "left").to(self.device),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0, "left").to(self.device),
        }
        audio = {"input_features": features, "input_features_mask": mask}
        if look or ctc:  # one pass of the encoder for all
            depth = len(self.model.audio_encoder.layers)
            states, frames = self.model.audio_encoder.hidden_states_at(features, mask, [depth])
            audio = {"encoder_hidden_states": states[depth], "encoder_attention_mask": frames}
        if (options.get("stop_strings") or self.model.generation_config.stop_strings) is not None:
            options = {"tokenizer": self.processor.tokenizer, **options}
        plan = self.model.transcript_request(request["input_ids"], mask, **{**options, "prompt_columns": False})
        generated = self.model.generate(**request, **audio, request=plan)
        transcripts = plan.read(generated if isinstance(generated, torch.Tensor) else generated.sequences, trim_loops)
        for transcript in transcripts if plan.stop_strings else []:
            text = self.processor.tokenizer.decode(transcript.tokens)
            transcript.stopped = transcript.end is None and any(stop in text for stop in plan.stop_strings)
        looks: list[SecondLook | None] = [None] * len(windows)
        if look:
            finished = [t.tokens + ([] if t.end is None else [t.end]) for t in transcripts]
            looks = list(look_again(self.model, finished, **request, attentions=words and not ctc, **audio))
        joint = joint_weight(plan.config, plan.options) > 0
        aligned: list[np.ndarray | None] = [None] * len(windows)
        if ctc:
            aligned = align_transcripts(self.model, [transcript.tokens for transcript in transcripts], **audio)
        return [
            WindowTranscript(
                transcript,
                None if seen is None else seen.log_probs.tolist(),
                None if seen is None or seen.attentions is None else _listening(seen),
                places,
                joint,
            )
            for transcript, seen, places in zip(transcripts, looks, aligned, strict=True)
        ]

    def _batches(
        self, inputs: Iterable[Any], params: dict[str, Any], batch_size: int, num_workers: int
    ) -> Iterable[list[WindowItem]]:
        if num_workers > 0:
            start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
            if start == "fork":  # a second process would read everything again
                windows = _Windows(inputs, self.preprocess, params)
                return DataLoader(windows, num_workers=1, batch_size=batch_size, collate_fn=list)
            logger.warning_once(
                f"num_workers={num_workers} has no effect where processes start by {start!r}: each would need a copy of the model. "
                "Recordings are read in this process."
            )
        return super()._batches(inputs, params, batch_size, num_workers)


def _listening(look: SecondLook) -> np.ndarray:
    """Which audio each token listens to, `(tokens, audio_positions)`."""
    attentions = look.attentions or []
    return alignment_matrix(attentions, look.audio) if attentions else np.zeros((0, len(look.audio)))


@contextmanager
def one_stream(streamer: Any) -> Iterator[None]:
    """Of transformers' streamers of text: all windows of a recording are one text, which ends with the last, be it silent."""
    if not isinstance(streamer, TextStreamer):
        yield
        return
    say = streamer.on_finalized_text
    vars(streamer)["on_finalized_text"] = lambda text, stream_end=False: say(
        text + " " if stream_end and text else text
    )
    try:
        yield
    finally:
        del vars(streamer)["on_finalized_text"]
        say("", stream_end=True)


class _Rows(Dataset):
    """The items of a map-style data set, of which only those below its length are asked for."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(len(self)))


class _Windows(IterableDataset):
    """The windows of all recordings in a row; it has no length, as nobody knows how many there will be."""

    def __init__(self, inputs: Iterable[Any], cut: Callable[..., Iterator[WindowItem]], params: dict[str, Any]) -> None:
        self.inputs, self.cut, self.params = inputs, cut, params

    def __iter__(self) -> Iterator[WindowItem]:
        for item in self.inputs:
            yield from self.cut(item, **self.params)
