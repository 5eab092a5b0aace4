"""Answers in OpenAI's forms: json, text, verbose_json, subtitles."""

import math
import zlib
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modeling_slam_asr.recordings_slam_asr import MARKS
from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES, Answer, Chunk
from trainers.inference import subtitles
from trainers.inference.notices import answer_notices, is_unsure, knows_synthetic_speech_only, request_notices
from trainers.inference.transcribe import render, timestamps_for
from trainers.serving.server.batching import Window
from trainers.serving.server.form import TranscriptionForm
from trainers.serving.server.transcription import StepPipeline


class Answers:
    """Writes answers of one model. Of an hour's recording that takes a while: not for an event loop's thread."""

    def __init__(self, pipe: StepPipeline) -> None:
        self._pipe = pipe
        self._synthetic = knows_synthetic_speech_only(self._pipe)

    def write(self, windows: list[Window], form: TranscriptionForm) -> Response:
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

    def plain(self, windows: list[Window], form: TranscriptionForm) -> dict[str, Any]:
        """Text, marks where they are true, token log-probabilities where they are asked for, and the seconds."""
        answer = self._pipe.postprocess(windows, return_confidence=form.confidence)
        content: dict[str, Any] = {"text": answer["text"], **_marks(answer)}
        if "tokens" in answer:
            content["logprobs"] = [
                {"token": token["text"], "logprob": token["log_prob"], "bytes": list(token["text"].encode())}
                for token in answer["tokens"]
            ]
        return content | {"usage": {"type": "duration", "seconds": math.ceil(_seconds(windows))}}

    def _verbose(self, windows: list[Window], form: TranscriptionForm) -> dict[str, Any]:
        answer = self._pipe.postprocess(windows, return_timestamps=True, return_confidence=True)
        segments = [self._segment(number, chunk, form) for number, chunk in enumerate(answer["chunks"])]
        content: dict[str, Any] = {
            "task": "transcribe",
            "language": LANGUAGE_NAMES[form.language].lower() if form.language else "unknown",
            "duration": _seconds(windows),
            "text": answer["text"],
            "segments": segments,
        }
        if form.words:
            timed = self._pipe.postprocess(windows, return_timestamps="word")
            content["words"] = [
                {"word": word["text"], "start": word["timestamp"][0], "end": word["timestamp"][1]}
                for word in timed["chunks"]
            ]
            if "segment" not in form.timestamp_granularities:
                content.pop("segments")
        said = request_notices(self._pipe, form.language, form.prompt)
        notices = [notice.removeprefix("--") for notice in said] + answer_notices(answer, self._synthetic)
        return {
            **content,
            "confidence": answer["confidence"],
            "low_confidence": is_unsure(answer, self._synthetic),
            **_marks(answer),
            "notices": notices,
            "usage": {"type": "duration", "seconds": math.ceil(_seconds(windows))},
        }

    def _segment(self, number: int, chunk: Chunk, form: TranscriptionForm) -> dict[str, Any]:
        """One window's text. What OpenAI's form has and the model does not know is 0 or empty: `seek`, `tokens`."""
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


def _marks(answer: Answer | Chunk) -> dict[str, bool]:
    return {mark: True for mark in MARKS if answer.get(mark)}


def _seconds(windows: list[Window]) -> float:
    return round(float(windows[-1]["piece"].end), 3)
