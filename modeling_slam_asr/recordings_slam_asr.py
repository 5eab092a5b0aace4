"""From recordings to answers, whatever computes the transcripts of their windows. Needs no torch."""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Required, TypedDict, cast

import numpy as np
from transformers.utils import logging

from .audio_slam_asr import describe, rate_pair, read_blocks
from .transcripts_slam_asr import (
    Answer,
    Chunk,
    Marks,
    Transcript,
    Word,
    attention_words,
    confidence,
    ctc_words,
    estimate_words,
    join_texts,
    join_words,
    merge_overlap,
    token_pieces,
    word_confidences,
)
from .windows_slam_asr import (
    SILENCE_DB,
    VoiceDetector,
    Window,
    active_frames,
    check_vad,
    cut_windows,
    default_window,
    holds_no_word,
    is_silent,
    is_steady,
    sound_range,
    window_sizes,
    with_bar,
)

__all__ = ["MARKS", "Piece", "RecordingsMixin", "SettledText", "WindowItem", "WindowTranscript", "assemble"]

logger = logging.get_logger(__name__)

TIMESTAMPS = (True, "word", "estimate")
MARKS = tuple(Marks.__annotations__)
_AUDIO_KEYS = {"array", "raw", "sampling_rate", "path", "bytes", "audio"}


@dataclass
class Piece:
    """
    A window and its transcript.

    start, end: of the sound that was transcribed, in seconds.
    window: start and end of all that was cut, with what a voice detector took away.
    active: which of its 20 ms are not quiet.
    overlap: start and end in seconds of what the window before holds too, or None.
    words: with times, when they were asked for.
    tokens, confidences: text and log-probability of each token, and of each word its confidence, when asked for.
    """

    start: float
    end: float
    window: tuple[float, float]
    active: np.ndarray
    overlap: tuple[float, float] | None = None
    no_speech: bool = False
    text: str = ""
    words: list[Word] | None = None
    tokens: list[tuple[str, float]] | None = None
    confidences: Sequence[float | None] = ()
    truncated: bool = False
    loop: bool = False
    incomplete: bool = False

    def timed_words(self) -> list[Word]:
        """The words with their times, or with estimates."""
        words = self.words or estimate_words(self.text, self.active, self.start, self.end)
        found = self.confidences if len(self.confidences) == len(words) else [None] * len(words)
        return [replace(word, confidence=one) for word, one in zip(words, found, strict=True)]

    def sound_range(self) -> tuple[float, float]:
        """When its sound begins and ends."""
        return sound_range(self.active, self.start, self.end)


class WindowItem(TypedDict, total=False):
    """A window on its way through the pipeline: `preprocess` yields it, `postprocess` gets all of a recording's."""

    piece: Piece
    features: Any  # these and the request's `ids` until it is transcribed, and where there is something to transcribe
    ids: list[int]
    error: str  # what went wrong, in place of `piece`
    extra: Required[dict[str, Any]]
    is_last: Required[bool]


@dataclass
class _Segment:
    """A piece once its overlaps are merged."""

    piece: Piece
    text: str
    start: float
    end: float
    words: list[Word]


def assemble(pieces: Sequence[Piece], return_timestamps: bool | str | None, return_confidence: bool | str) -> Answer:
    """
    The answer for one recording.

    Args:
        return_timestamps: `True` for a chunk a window, `"word"` or `"estimate"` for a chunk a word.
        return_confidence: `True` for confidences, `"tokens"` for each token's log-probability too.
    Returns:
        `text` and, as asked for, `chunks`, `confidence`, `tokens`; and the [`MARKS`] that are true.
    """
    segments: list[_Segment] = []
    for piece in pieces:
        segments.append(_follow(segments[-1] if segments else None, piece, return_timestamps in ("word", "estimate")))
    answer: Answer = {"text": join_texts([segment.text for segment in segments])}
    if return_timestamps is True:
        answer["chunks"] = [_chunk(segment, return_confidence) for segment in segments if segment.text]
    elif return_timestamps:
        answer["chunks"] = [_word(word, one.piece, return_confidence) for one in segments for word in one.words]
        answer["approximate_timestamps"] = True
    tokens = [token for piece in pieces for token in piece.tokens or []]
    if return_confidence:
        answer["confidence"] = confidence([log_prob for _, log_prob in tokens])
    if return_confidence == "tokens":
        answer["tokens"] = [{"text": text, "log_prob": log_prob} for text, log_prob in tokens]
    for mark in MARKS:
        if (all if mark == "no_speech" else any)(getattr(piece, mark) for piece in pieces):
            answer[mark] = True  # type: ignore[literal-required]
    return answer


class SettledText:
    """The text of a recording that no further window can change: that of all windows but the last, once merged."""

    def __init__(self) -> None:
        self.text = ""
        self._last: _Segment | None = None

    def add(self, piece: Piece) -> str:
        """The text, now that this window has come."""
        before, self._last = self._last, _follow(self._last, piece, with_words=False)
        self.text = join_texts([self.text, before.text if before else ""])
        return self.text


def _follow(before: _Segment | None, piece: Piece, with_words: bool) -> _Segment:
    """A piece's segment; what it and the one before both hold is taken out of either."""
    segment = _Segment(piece, piece.text, *piece.sound_range(), piece.timed_words() if with_words else [])
    if piece.overlap is not None and before is not None and before.text and segment.text:
        _join(before, segment, *piece.overlap)
    return segment


def _join(left: _Segment, right: _Segment, start: float, end: float) -> None:
    """Take out of two segments what both hold."""
    left.words = left.words or left.piece.timed_words()
    right.words = right.words or right.piece.timed_words()
    slack = 1.0 + (0.25 * (end - start) if left.piece.words is None else 0.0)
    left.words, right.words = merge_overlap(left.words, right.words, start, end, slack)
    left.text, right.text = join_words(left.words), join_words(right.words)
    seam = (start + end) / 2
    if left.words and right.words:
        seam = min(max((left.words[-1].end + right.words[0].start) / 2, start), end)
    left.words = [replace(word, start=min(word.start, seam), end=min(word.end, seam)) for word in left.words]
    right.words = [replace(word, start=max(word.start, seam), end=max(word.end, seam)) for word in right.words]
    left.end, right.start = min(left.end, seam), max(right.start, seam)


def _word(word: Word, piece: Piece, return_confidence: bool | str) -> Chunk:
    chunk: Chunk = {"text": word.text.strip(), "timestamp": (round(word.start, 2), round(word.end, 2))}
    if return_confidence:
        chunk["confidence"] = word.confidence
    return {**chunk, "no_speech": True} if piece.no_speech else chunk


def _chunk(segment: _Segment, return_confidence: bool | str) -> Chunk:
    chunk: Chunk = {"text": segment.text, "timestamp": (round(segment.start, 2), round(segment.end, 2))}
    if return_confidence:
        chunk["confidence"] = confidence([log_prob for _, log_prob in segment.piece.tokens or []])
    return cast(Chunk, chunk | {mark: True for mark in MARKS if getattr(segment.piece, mark)})


@dataclass
class WindowTranscript:
    """
    What an engine says of one window.

    log_probs: natural logarithm of each token's probability, the end token's too where there is one; None if not asked for.
    attention: which audio each of these tokens listens to, `(tokens, audio_positions)`; None if not asked for.
    aligned: where the CTC head hears each token, see [`align_tokens`]; None if not asked for, or if they have no room there.
    joint: whether the CTC head had a say (`ctc_weight`). Then it has one in the words' confidence too: it was trained to the end.
    """

    transcript: Transcript
    log_probs: Sequence[float] | None = None
    attention: np.ndarray | None = None
    aligned: np.ndarray | None = None
    joint: bool = False


class RecordingsMixin:
    """
    Windows, gates, merged overlaps, timestamps and marks of a pipeline, which brings:

    `_transcribe`, and `forward`, which calls `_forward`;
    `processor` with `sampling_rate`, `max_seconds`, `tokenizer`, `extract_features`, `prompt_ids` and `decode`;
    `feature_extractor` with `sampling_rate` and `n_samples`;
    `model.config` with `window_seconds`, `projector_ctc`, `projector_compress` and `audio_geometry`.
    """

    model: Any
    processor: Any
    feature_extractor: Any
    tokenizer: Any
    forward: Any
    source: Any = None  # what its loader notes of where the model comes from
    shows_attention = True  # whether `_transcribe` can give the LLM's attention to the audio
    # What can be iterated and is yet one input; so is an open file, whose lines are no recordings.
    _no_stream: tuple[type, ...] = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, np.ndarray)
    _detectors: dict[tuple[str, int], VoiceDetector]

    def _transcribe(
        self, windows: list[WindowItem], look: bool, words: bool, trim_loops: bool, options: dict[str, Any]
    ) -> list[WindowTranscript]:
        """
        Of each window the transcript and what was asked for.

        Args:
            windows: each with `features`, as the processor extracted them, and `ids`, the request up to the transcript.
            look: whether `log_probs` are wanted.
            words: whether times of words are wanted: `aligned` where the model has a CTC head, else `attention`.
            options: the call's other keyword arguments, those of `generate`.
        """
        raise NotImplementedError

    def _recordings(self, inputs: Any) -> Any:
        """What a call is given: several recordings as a list, a stream of them as a generator, one as it is."""
        inputs = rate_pair(inputs)
        if isinstance(inputs, list | tuple):
            if len(inputs) and isinstance(inputs[0], int | float | np.number):  # one recording's samples
                return {"array": list(inputs), "sampling_rate": self.processor.sampling_rate}
            return list(inputs)
        one = isinstance(inputs, self._no_stream) or hasattr(inputs, "read") or hasattr(inputs, "is_floating_point")
        return (item for item in inputs) if isinstance(inputs, Iterable) and not one else inputs

    def _sanitize_parameters(
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
        if (task := options.pop("task", None)) not in (None, "transcribe"):
            raise ValueError(f"task={task!r} is not possible: the model writes down what was said. Leave it out.")
        if return_language:
            raise ValueError("return_language=True is not possible: the model does not tell which language it heard.")
        if chunk_length_s:
            first.setdefault("window_seconds", chunk_length_s)
        if stride_length_s is not None:
            first.setdefault("overlap_seconds", float(np.max(stride_length_s)))
        longest = self.feature_extractor.n_samples / self.feature_extractor.sampling_rate
        window_sizes(first.get("window_seconds"), first.get("overlap_seconds"), longest)
        check_vad(first.get("vad"))
        if first.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f"on_error={first['on_error']!r} is unknown. Choose 'raise' or 'return'.")
        if return_timestamps and return_timestamps not in TIMESTAMPS:
            raise ValueError(
                f"return_timestamps={return_timestamps!r} is unknown. Choose True, 'word' or 'estimate'; characters have no times."
            )
        if return_timestamps == "word" and not self.model.config.audio_geometry.in_time_order:
            raise ValueError(
                "return_timestamps='word' needs audio embeddings in order of time; a Q-Former's are not. Use 'estimate' or True."
            )
        returned = {"return_timestamps": return_timestamps, "return_confidence": return_confidence}
        asked = {key: value for key, value in returned.items() if value is not None}
        forward = {**asked, **({} if trim_loops is None else {"trim_loops": trim_loops}), **options}
        return first, forward, asked if on_window is None else {**asked, "on_window": on_window}

    # ------------------------------------------------------------------ from a recording to windows

    def preprocess(
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
    ) -> Iterator[WindowItem]:
        inputs = rate_pair(inputs)
        extra = {k: v for k, v in inputs.items() if k not in _AUDIO_KEYS} if isinstance(inputs, Mapping) else {}
        if language is None and isinstance(extra.get("language"), str):
            language = extra["language"]
        try:
            if "stride" in extra:
                raise ValueError("`stride` is for CTC models. Give the recording whole: this pipeline cuts it itself.")
            windows, whole = self._windows(inputs, window_seconds, overlap_seconds, progress)
            for window in windows:
                piece, samples = self._gate(window, silence_db, drop_no_speech, vad)
                piece.incomplete = window.last and not whole
                item: WindowItem = {"piece": piece, "extra": extra, "is_last": window.last}
                if samples is not None:
                    item["features"] = self.processor.extract_features(samples)
                    item["ids"] = self.processor.prompt_ids(item["features"].shape[-1], prompt, language, context)
                yield item
        except Exception as error:  # whatever a recording does: the others are to be transcribed
            if on_error == "raise":
                raise
            yield {"error": _message(error), "extra": extra, "is_last": True}

    def _windows(
        self, inputs: Any, window_seconds: float | None, overlap_seconds: float | None, progress: bool | None
    ) -> tuple[Iterator[Window], bool]:
        """The windows of a recording, and whether its end is there."""
        longest, rate = self.processor.max_seconds, self.processor.sampling_rate
        trained = default_window(self.model.config, longest)
        wanted, uncut = trained if window_seconds is None else (window_seconds, None)
        size, overlap = window_sizes(wanted, overlap_seconds, longest)
        blocks, seconds, whole = read_blocks(inputs, rate)
        name = describe(inputs).removeprefix("The recording ").strip("'")
        shown = progress if progress is not None else sys.stderr.isatty()
        return with_bar(cut_windows(blocks, rate, size, overlap, uncut), rate, seconds, name, shown), whole

    def _gate(
        self, window: Window, silence_db: float, drop_no_speech: bool, vad: str | None
    ) -> tuple[Piece, np.ndarray | None]:
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
            window=(window.start, window.start + len(window.samples) / rate),
            active=active_frames(samples, rate) if len(samples) else np.ones(1, dtype=bool),
            overlap=(window.start, window.start + window.overlap) if window.overlap else None,
            no_speech=steady or not transcribed,
        )
        return piece, samples if transcribed else None

    # ------------------------------------------------------------------ through the model

    def _forward(
        self,
        model_inputs: dict[str, list[WindowItem]],
        return_timestamps: bool | str | None = None,
        return_confidence: bool | str = False,
        trim_loops: bool = True,
        **generate_kwargs: Any,
    ) -> dict[str, list[WindowItem]]:
        windows = model_inputs["windows"]
        asked = [window for window in windows if "features" in window]
        if asked:
            look, words = bool(return_confidence), return_timestamps == "word"
            found = self._transcribe(asked, look, words, trim_loops, generate_kwargs)
            for window, answer in zip(asked, found, strict=True):
                self._fill(window["piece"], answer)
        done: Any = [{k: v for k, v in window.items() if k not in ("features", "ids")} for window in windows]
        return {"windows": done}

    def _fill(self, piece: Piece, answer: WindowTranscript) -> None:
        transcript, length = answer.transcript, self.model.config.audio_geometry.seconds_per_token
        piece.text = self.processor.decode(transcript.tokens, skip_special_tokens=True)
        piece.truncated, piece.loop = transcript.end is None and not transcript.stopped, transcript.loop
        # The LLM of a compressing model is shown speech only: where there was none, it writes nothing.
        piece.no_speech |= self.model.config.projector_compress is not None and not transcript.tokens
        ended = transcript.tokens + ([] if transcript.end is None else [transcript.end])
        wanted = answer.log_probs, answer.attention, answer.aligned
        pieces = [] if all(one is None for one in wanted) else token_pieces(self.tokenizer, ended)
        if answer.log_probs is not None:
            piece.tokens = list(zip(pieces, answer.log_probs, strict=True))
            heard = answer.aligned if answer.joint else None
            piece.confidences = word_confidences(pieces, answer.log_probs, heard)
        if answer.aligned is not None:
            spoken = pieces[: len(transcript.tokens)]
            piece.words = ctc_words(spoken, answer.aligned, length(), piece.active, piece.start, piece.end)
        elif answer.attention is not None:
            listened = answer.attention, length(), piece.start, piece.sound_range()
            piece.words = attention_words(pieces, *listened) if transcript.tokens else []

    def postprocess(
        self,
        model_outputs: list[WindowItem],
        return_timestamps: bool | str | None = None,
        return_confidence: bool | str = False,
        on_window: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        extra = {key: [value] for key, value in model_outputs[0]["extra"].items()}
        errors = [output["error"] for output in model_outputs if "error" in output]
        if errors:
            answer: Answer = {"text": "", "error": errors[0]}
        else:
            answer = assemble([output["piece"] for output in model_outputs], return_timestamps, return_confidence)
        return {**answer, **{key: value for key, value in extra.items() if key not in answer}}

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> "_Answers":
        on_window = postprocess_params.get("on_window")
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")

        def answers() -> Iterator[dict[str, Any]]:
            held, settled = list[WindowItem](), SettledText()
            for batch in self._batches(inputs, preprocess_params, batch_size, num_workers):
                for window in self._forwarded(batch, forward_params, preprocess_params.get("on_error") == "return"):
                    held.append(window)
                    if on_window is not None and "piece" in window:
                        on_window(settled.add(window["piece"]))
                    if window["is_last"]:
                        yield self.postprocess(held, **postprocess_params)
                        held, settled = [], SettledText()

        return _Answers(inputs, answers)

    def _forwarded(self, batch: list[WindowItem], params: dict[str, Any], returns_errors: bool) -> list[WindowItem]:
        """A batch through the model. Where errors are returned, one that fails is tried window by window."""
        try:
            return self.forward({"windows": batch}, **params)["windows"]
        except Exception as error:
            if not returns_errors:
                raise
            message = _message(error)
        # After the `except`: until then the error holds the memory that the failed batch has taken.
        if len(batch) == 1:
            return [{"error": message, **batch[0]}]
        logger.warning(f"A batch of {len(batch)} windows failed ({message}); each is tried alone.")
        return [done for window in batch for done in self._forwarded([window], params, returns_errors)]

    def _batches(
        self, inputs: Iterable[Any], params: dict[str, Any], batch_size: int, num_workers: int
    ) -> Iterable[list[WindowItem]]:
        """The windows of all recordings in a row, so many at a time."""
        source = (window for item in inputs for window in self.preprocess(item, **params))
        return iter(lambda: list(islice(source, batch_size)), [])


def _message(error: Exception) -> str:
    """What an answer says of an error: its text, after its kind where the text alone is not meant for users."""
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


@dataclass
class _Answers:
    """The answers in the order of the inputs, made as they are asked for."""

    inputs: Any
    answers: Callable[[], Iterator[dict[str, Any]]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.answers()

    def __len__(self) -> int:
        return len(self.inputs)
