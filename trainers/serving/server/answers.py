"""Answers in OpenAI's forms: json, text, verbose_json, subtitles."""

import math
import zlib
from typing import Literal, TypedDict, cast

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modeling_slam_asr.recordings_slam_asr import MARKS, WindowItem
from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES, Answer, Chunk, Marks
from trainers.inference import subtitles
from trainers.inference.notices import answer_notices, is_unsure, knows_synthetic_speech_only, request_notices
from trainers.inference.transcribe import render, timestamps_for
from trainers.serving.server.form import TranscriptionForm
from trainers.serving.server.transcription import StepPipeline


class Usage(TypedDict):
    type: Literal["duration"]
    seconds: int


class LogProb(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class _Scores(TypedDict, total=False):
    logprobs: list[LogProb]


class PlainAnswer(_Scores, Marks):
    """The body of `json`, and of a stream's last event."""

    text: str
    usage: Usage


class Segment(Marks):
    """One window's text in `verbose_json`. What OpenAI's form has and the model does not know is 0 or empty: `seek`, `tokens`."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    confidence: float | None
    low_confidence: bool


class TimedWord(TypedDict):
    word: str
    start: float
    end: float
    confidence: float | None


class _Times(TypedDict, total=False):
    segments: list[Segment]
    words: list[TimedWord]


class VerboseAnswer(_Times, Marks):
    """The body of `verbose_json`."""

    task: Literal["transcribe"]
    language: str
    duration: float
    text: str
    confidence: float | None
    low_confidence: bool
    notices: list[str]
    usage: Usage


class Answers:
    """Writes answers of one model. Of an hour's recording that takes a while: not for an event loop's thread."""

    def __init__(self, pipe: StepPipeline) -> None:
        self._pipe = pipe
        self._synthetic = knows_synthetic_speech_only(self._pipe)

    def write(self, windows: list[WindowItem], form: TranscriptionForm) -> Response:
        """The answer to a request, from all windows of its recording."""
        if form.response_format == "json":
            return JSONResponse(self.plain(windows, form))
        if form.response_format == "verbose_json":
            return JSONResponse(self._verbose(windows, form))
        name = "txt" if form.response_format == "text" else form.response_format
        answer = self._pipe.postprocess(
            windows, return_timestamps=timestamps_for([name], False), return_confidence=form.confidence
        )
        text = render("", answer, name, is_unsure(answer, self._synthetic))
        media_type = "text/plain" if name == "txt" else subtitles.FORMATS[name].media_type
        return PlainTextResponse(text, media_type=media_type)

    def plain(self, windows: list[WindowItem], form: TranscriptionForm) -> PlainAnswer:
        """Text, marks where they are true, token log-probabilities where they are asked for, and the seconds."""
        answer = self._pipe.postprocess(windows, return_confidence=form.confidence)
        scores: _Scores = {}
        if "tokens" in answer:
            scores["logprobs"] = [
                {"token": token["text"], "logprob": token["log_prob"], "bytes": list(token["text"].encode())}
                for token in answer["tokens"]
            ]
        return {"text": answer["text"], **_marks(answer), **scores, "usage": _usage(windows)}

    def _verbose(self, windows: list[WindowItem], form: TranscriptionForm) -> VerboseAnswer:
        answer = self._pipe.postprocess(windows, return_timestamps=True, return_confidence=True)
        times: _Times = {}
        if not form.words or "segment" in form.timestamp_granularities:
            times["segments"] = [self._segment(*chunk, form) for chunk in enumerate(answer["chunks"])]
        if form.words:
            timed = self._pipe.postprocess(windows, return_timestamps="word", return_confidence=True)
            times["words"] = [
                {"word": word["text"], "start": start, "end": end, "confidence": word["confidence"]}
                for word in timed["chunks"]
                for start, end in [word["timestamp"]]
            ]
        said = request_notices(self._pipe, form.language, form.prompt)
        notices = [notice.removeprefix("--") for notice in said] + answer_notices(answer, self._synthetic)
        return {
            "task": "transcribe",
            "language": LANGUAGE_NAMES[form.language].lower() if form.language else "unknown",
            "duration": _seconds(windows),
            "text": answer["text"],
            **times,
            "confidence": answer["confidence"],
            "low_confidence": is_unsure(answer, self._synthetic),
            **_marks(answer),
            "notices": notices,
            "usage": _usage(windows),
        }

    def _segment(self, number: int, chunk: Chunk, form: TranscriptionForm) -> Segment:
        text, (start, end) = str(chunk["text"]), chunk["timestamp"]
        raw = text.encode()
        return {
            "id": number,
            "seek": 0,
            "start": start,
            "end": end,
            "text": text,
            "tokens": [],
            "temperature": form.temperature,
            "avg_logprob": math.log(chunk["confidence"]) if chunk["confidence"] else 0.0,
            "compression_ratio": len(raw) / len(zlib.compress(raw)),
            "no_speech_prob": 1.0 if chunk.get("no_speech") else 0.0,
            "confidence": chunk["confidence"],
            "low_confidence": is_unsure(chunk, self._synthetic),
            **_marks(chunk),
        }


def _marks(answer: Answer | Chunk) -> Marks:
    return cast(Marks, {mark: True for mark in MARKS if answer.get(mark)})


def _usage(windows: list[WindowItem]) -> Usage:
    return {"type": "duration", "seconds": math.ceil(_seconds(windows))}


def _seconds(windows: list[WindowItem]) -> float:
    return round(float(windows[-1]["piece"].window[1]), 3)
