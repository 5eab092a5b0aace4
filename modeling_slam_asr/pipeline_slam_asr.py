"""`pipeline("automatic-speech-recognition")` for SLAM-ASR models."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutomaticSpeechRecognitionPipeline
from transformers.utils import logging

from .audio_slam_asr import describe, rate_pair, read_blocks
from .generation_slam_asr import Transcript
from .processing_slam_asr import SlamAsrProcessor, pad_features, pad_rows
from .results_slam_asr import TIMESTAMPS, Piece, assemble, settled_text
from .timestamps_slam_asr import (
    SecondLook,
    active_frames,
    align_transcripts,
    alignment_matrix,
    attention_words,
    ctc_words,
    look_again,
    token_pieces,
)
from .windows_slam_asr import (
    SILENCE_DB,
    VoiceDetector,
    Window,
    check_vad,
    cut_windows,
    holds_no_word,
    is_silent,
    is_steady,
)

__all__ = ["LONG_SECONDS", "OVERLAP_SECONDS", "WINDOW_SECONDS", "SlamAsrPipeline", "default_window"]

logger = logging.get_logger(__name__)

WINDOW_SECONDS = 25.0
OVERLAP_SECONDS = 4.0
LONG_SECONDS = 60.0  # from here on a progress bar is worth its line
# What can be iterated and is yet one input; so is an open file, whose lines are no recordings.
_NO_STREAM = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, np.ndarray, torch.Tensor, Dataset)
_AUDIO_KEYS = {"array", "raw", "sampling_rate", "path", "bytes", "audio"}


class SlamAsrPipeline(AutomaticSpeechRecognitionPipeline):
    """
    Transcribe recordings of any length: `{"text": ...}` each.

    Inputs are paths, addresses, file contents, arrays, mappings with `array` and `sampling_rate`, rows of data sets, or lists,
    generators and data sets of them. Recordings beyond 30 s are cut at pauses; `batch_size` windows go through the model
    together. Other keys of a mapping come back as lists, as in transformers' own pipeline, unless the answer has the key.

    Args (of the call or of the constructor):
        language, prompt, context: as in [`SlamAsrProcessor.apply_transcription_request`].
        return_timestamps: `True`: `chunks` with the times of each window; `"word"`: of each word, by the LLM's attention;
            `"estimate"`: of each word, by the sound's level. Times of words are approximate.
        return_confidence: add `confidence`, the geometric mean of the tokens' probabilities; `"tokens"`: each token's
            log-probability too.
        window_seconds (or `chunk_length_s`): longest window. None: the length that the model was trained for
            (`config.window_seconds`, else 25 s); recordings up to a quarter longer, at most 30 s, are not cut then.
        overlap_seconds (or `stride_length_s`; of a pair the greater): what two windows share where there is no pause to cut at.
        silence_db: windows that stay below it are not transcribed; -90 dB of full scale is digital silence.
        drop_no_speech: leave windows of steady noise untranscribed too, in place of a `no_speech` mark.
        vad: `"silero"` or `"webrtc"`: transcribe only from the first to the last speech that it finds in a window.
        trim_loops: of a transcript that ran into a loop keep the first copy; it is marked `loop` in either case.
        on_error: `"raise"`, or `"return"`: a recording that cannot be read or transcribed gives `{"text": "", "error": ...}`.
        progress: a progress bar on stderr for each long recording. None: when stderr is a terminal.
        on_window: called after each window with the text so far that no later window changes.
        generate_kwargs: for `generate`; other keyword arguments go there too. As for Whisper, a `language` may stand among
            them, and `task="transcribe"`.
    """

    model: Any
    processor: Any
    feature_extractor: Any
    # None as elsewhere in transformers: it is loaded where there is one. It holds prompts and template.
    _load_processor = None  # type: ignore[assignment]

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self._detectors: dict[tuple[str, int], VoiceDetector] = {}
        super().__init__(model, *args, **kwargs)
        self.type = "seq2seq"
        # The stock defaults (5 beams, 256 tokens) are Whisper's; the model's own generation configuration counts here.
        self._generation_defaults: dict[str, Any] = {}
        if not isinstance(self.processor, SlamAsrProcessor):
            self.processor = SlamAsrProcessor.from_config(model.config, self.feature_extractor, self.tokenizer)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Transcribe one recording (a dict), a list of them (a list), or a generator or data set of them (an iterator)."""
        inputs = rate_pair(inputs)
        if isinstance(inputs, list | tuple):
            if len(inputs) == 0:
                return []
            if isinstance(inputs[0], int | float | np.number):  # one recording's samples
                inputs = {"array": list(inputs), "sampling_rate": self.processor.sampling_rate}
            else:
                inputs = list(inputs)
        elif isinstance(inputs, Iterable) and not isinstance(inputs, _NO_STREAM) and not hasattr(inputs, "read"):
            inputs = (item for item in inputs)  # what transformers takes for a stream
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor: what this pipeline can do, its saved copy can do."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(
            save_directory
        )  # transformers' own saves the processor's parts without its prompts

    def _sanitize_parameters(  # type: ignore[override]
        self,
        return_timestamps: bool | str | None = None,
        return_confidence: bool | str | None = None,
        chunk_length_s: float | None = None,
        stride_length_s: float | Sequence[float] | None = None,
        ignore_warning: bool | None = None,
        return_language: bool | None = None,
        trim_loops: bool | None = None,
        on_window: Callable[[str], None] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **other: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        names = ("language", "prompt", "context", "window_seconds", "overlap_seconds", "silence_db", "drop_no_speech",
                 "vad", "on_error", "progress")  # fmt: skip
        first = {name: other.pop(name) for name in names if name in other}
        options = {**(generate_kwargs or {}), **other}
        if "language" in options:
            first.setdefault("language", options.pop("language"))
        task = options.pop("task", None)
        if task not in (None, "transcribe"):
            raise ValueError(f"task={task!r} is not possible: the model writes down what was said. Leave it out.")
        if return_language:
            raise ValueError("return_language=True is not possible: the model does not tell which language it heard.")
        if chunk_length_s:
            first.setdefault("window_seconds", chunk_length_s)
        if stride_length_s is not None:
            both = stride_length_s if isinstance(stride_length_s, list | tuple) else [stride_length_s]
            first.setdefault("overlap_seconds", max(both))
        longest = self.feature_extractor.n_samples / self.feature_extractor.sampling_rate
        _window_sizes(first.get("window_seconds"), first.get("overlap_seconds"), longest)
        check_vad(first.get("vad"))
        if first.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f"on_error={first['on_error']!r} is unknown. Choose 'raise' or 'return'.")
        if return_timestamps and return_timestamps not in TIMESTAMPS:
            raise ValueError(
                f"return_timestamps={return_timestamps!r} is unknown. Choose True, 'word' or 'estimate'; characters have no times."
            )
        if return_timestamps == "word" and not self.model.config.audio_geometry.in_time_order:
            raise ValueError(
                "return_timestamps='word' needs audio embeddings in order of time, which a Q-Former's are not. "
                "Use 'estimate' or True."
            )
        asked = {
            key: value
            for key, value in (("return_timestamps", return_timestamps), ("return_confidence", return_confidence))
            if value is not None
        }
        forward = {
            **asked,
            **({} if trim_loops is None else {"trim_loops": trim_loops}),
            **options,
        }
        return first, forward, asked if on_window is None else {**asked, "on_window": on_window}

    # ------------------------------------------------------------------ from a recording to windows

    def preprocess(  # type: ignore[override]
        self,
        inputs: Any,
        language: str | None = None,
        prompt: str | None = None,
        context: str | None = None,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
        silence_db: float = SILENCE_DB,
        drop_no_speech: bool = False,
        vad: str | None = None,
        on_error: str = "raise",
        progress: bool | None = None,
    ) -> Iterator[dict[str, Any]]:
        inputs = rate_pair(inputs)
        extra = {k: v for k, v in inputs.items() if k not in _AUDIO_KEYS} if isinstance(inputs, Mapping) else {}
        try:
            if "stride" in extra:
                raise ValueError("`stride` is for CTC models. Give the recording whole: this pipeline cuts it itself.")
            for window in self._windows(inputs, window_seconds, overlap_seconds, progress):
                item = self._gate(window, silence_db, drop_no_speech, vad)
                if "samples" in item:
                    item["features"] = self.processor.extract_features(item.pop("samples"))
                    item["ids"] = self.processor.prompt_ids(item["features"].shape[-1], prompt, language, context)
                yield {**item, "extra": extra, "is_last": window.last}
        except Exception as error:  # whatever a recording does: the others are to be transcribed
            if on_error == "raise":
                raise
            yield {"error": _message(error), "extra": extra, "is_last": True}

    def _windows(
        self, inputs: Any, window_seconds: float | None, overlap_seconds: float | None, progress: bool | None
    ) -> Iterator[Window]:
        longest = self.processor.max_seconds
        whole = None
        if window_seconds is None:
            window_seconds, whole = default_window(self.model.config, longest)
        size, overlap = _window_sizes(window_seconds, overlap_seconds, longest)
        rate = self.processor.sampling_rate
        blocks, seconds = read_blocks(inputs, rate)
        shown = progress if progress is not None else sys.stderr.isatty()
        bar = logging.tqdm(
            total=round(seconds), unit="s", disable=not (shown and seconds >= LONG_SECONDS), leave=False,
            desc=describe(inputs).removeprefix("The recording ").strip("'"),
        )  # fmt: skip
        told = 0  # not `bar.n`: transformers' bar has none where progress bars are switched off
        for window in cut_windows(blocks, rate, size, overlap, whole):
            if window.last:
                bar.close()  # nobody asks for more after the last
            yield window
            position = max(round(window.start + len(window.samples) / rate), told)
            bar.update(position - told)
            told = position

    def _gate(self, window: Window, silence_db: float, drop_no_speech: bool, vad: str | None) -> dict[str, Any]:
        """The window's frame for an answer and, where there may be speech, the samples to transcribe."""
        rate, samples, start = self.processor.sampling_rate, window.samples, window.start
        quiet = is_silent(samples, rate, silence_db) or holds_no_word(window, rate)
        steady = not quiet and is_steady(samples, rate)
        transcribed = not quiet and not (steady and drop_no_speech)
        if transcribed and vad is not None:
            mine = vad, threading.get_ident()  # a detector remembers what it heard last
            if mine not in self._detectors:
                self._detectors[mine] = VoiceDetector(vad)
            found = self._detectors[mine].speech_range(samples, rate)
            transcribed = found is not None
            if found is not None:
                samples, start = samples[found[0] : found[1]], start + found[0] / rate
        piece = Piece(
            start=start,
            end=start + len(samples) / rate,
            active=active_frames(samples, rate) if len(samples) else np.ones(1, dtype=bool),
            overlap=(window.start, window.start + window.overlap) if window.overlap else None,
            no_speech=steady or not transcribed,
        )
        return {"piece": piece, "samples": samples} if transcribed else {"piece": piece}

    # ------------------------------------------------------------------ through the model

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        return_timestamps: bool | str | None = None,
        return_confidence: bool | str = False,
        trim_loops: bool = True,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        windows = model_inputs["windows"]
        asked = [window for window in windows if "features" in window]
        if asked:
            words = return_timestamps == "word"
            found = self._transcribe(asked, bool(return_confidence), words, trim_loops, generate_kwargs)
            for window, (transcript, look, aligned) in zip(asked, found, strict=True):
                self._fill(window["piece"], transcript, look, aligned)
        return {"windows": [{k: v for k, v in window.items() if k not in ("features", "ids")} for window in windows]}

    def _transcribe(
        self, windows: list[dict[str, Any]], look: bool, words: bool, trim_loops: bool, options: dict[str, Any]
    ) -> list[tuple[Transcript, SecondLook | None, np.ndarray | None]]:
        """Of each window the transcript, the LLM's second look at it, and its CTC alignment, where they are wanted."""
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
        aligned: list[np.ndarray | None] = [None] * len(windows)
        if ctc:
            aligned = align_transcripts(self.model, [transcript.tokens for transcript in transcripts], **audio)
        return list(zip(transcripts, looks, aligned, strict=True))

    def _fill(self, piece: Piece, transcript: Transcript, look: SecondLook | None, aligned: np.ndarray | None) -> None:
        piece.text = self.processor.decode(transcript.tokens, skip_special_tokens=True)
        piece.truncated, piece.loop = transcript.end is None and not transcript.stopped, transcript.loop
        # The LLM of a compressing model is shown speech only: where there was none, it writes nothing.
        piece.no_speech |= self.model.config.projector_compress is not None and not transcript.tokens
        length = (
            self.model.config.audio_geometry.seconds_per_token() if aligned is not None or look is not None else 0.0
        )
        if aligned is not None:
            spoken = token_pieces(self.tokenizer, transcript.tokens)
            piece.words = ctc_words(spoken, aligned, length, piece.start, piece.sound_range())
        if look is None:
            return
        ended = [] if transcript.end is None else [transcript.end]
        pieces = token_pieces(self.tokenizer, transcript.tokens + ended)
        piece.tokens = list(zip(pieces, look.log_probs.tolist(), strict=True))
        if look.attentions is not None:
            piece.words = []
            if transcript.tokens:
                matrix = alignment_matrix(look.attentions, look.audio)
                piece.words = attention_words(pieces, matrix, length, piece.start, piece.sound_range())

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: list[dict[str, Any]],
        return_timestamps: bool | str | None = None,
        return_confidence: bool | str = False,
        on_window: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        extra = {key: [value] for key, value in model_outputs[0]["extra"].items()}
        errors = [output["error"] for output in model_outputs if "error" in output]
        if errors:
            answer: dict[str, Any] = {"text": "", "error": errors[0]}
        else:
            answer = assemble([output["piece"] for output in model_outputs], return_timestamps, return_confidence)
        return answer | {key: value for key, value in extra.items() if key not in answer}

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> "_Answers":
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")

        on_window = postprocess_params.get("on_window")

        def answers() -> Iterator[dict[str, Any]]:
            held: list[dict[str, Any]] = []
            for batch in _batches(_Windows(inputs, self.preprocess, preprocess_params), batch_size, num_workers):
                try:
                    done = self.forward({"windows": batch}, **forward_params)["windows"]
                except Exception as error:
                    if preprocess_params.get("on_error") != "return":
                        raise
                    done = [{"error": _message(error), **window} for window in batch]
                for window in done:
                    held.append(window)
                    if on_window is not None and "piece" in window:
                        on_window(settled_text([item["piece"] for item in held]))
                    if window["is_last"]:
                        yield self.postprocess(held, **postprocess_params)
                        held = []

        return _Answers(inputs, answers)


def _message(error: Exception) -> str:
    """What an answer says of an error: its text, after its kind where the text alone is not meant for users."""
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


class _Windows(IterableDataset):
    """The windows of all recordings in a row; it has no length, as nobody knows how many there will be."""

    def __init__(
        self, inputs: Iterable[Any], cut: Callable[..., Iterator[dict[str, Any]]], params: dict[str, Any]
    ) -> None:
        self.inputs, self.cut, self.params = inputs, cut, params

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self.inputs:
            yield from self.cut(item, **self.params)


class _Answers:
    """The answers in the order of the inputs, made as they are asked for."""

    def __init__(self, inputs: Any, answers: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self.inputs, self.answers = inputs, answers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.answers()

    def __len__(self) -> int:
        return len(self.inputs)


def _batches(windows: _Windows, batch_size: int, num_workers: int) -> Iterable[list[dict[str, Any]]]:
    if num_workers > 0:
        start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
        if start == "fork":  # a second process would read everything again
            return DataLoader(windows, num_workers=1, batch_size=batch_size, collate_fn=list)
        logger.warning_once(
            f"num_workers={num_workers} has no effect where processes start by {start!r}: each would need a copy of the model. "
            "Recordings are read in this process."
        )
    source = iter(windows)
    return iter(lambda: list(islice(source, batch_size)), [])


def default_window(config: Any, longest: float) -> tuple[float, float]:
    """The longest window, and up to what length a recording is not cut, in seconds, for a model with this configuration."""
    size = min(config.window_seconds or WINDOW_SECONDS, longest)
    return size, min(longest, 1.25 * size)


def _window_sizes(window: float | None, overlap: float | None, longest: float) -> tuple[float, float]:
    """Both in seconds, checked, with their defaults."""
    size = WINDOW_SECONDS if window is None else float(window)
    if not 1 <= size <= longest:
        raise ValueError(f"window_seconds must lie between 1 and {longest:.0f}, the encoder's limit; got {size:g}.")
    shared = min(OVERLAP_SECONDS, size / 4) if overlap is None else float(overlap)
    if not 0 <= shared <= size / 2:
        raise ValueError(f"overlap_seconds must lie between 0 and half of window_seconds ({size:g}), got {shared:g}.")
    return size, shared
