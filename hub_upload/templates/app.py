"""A page that transcribes speech: microphone or file, text as it is written, times if wanted.

Settings and limits stand in space.json beside this file: the model, its commit, what computes, the languages to offer, the
confidence below which a text is probably wrong, and how long, large and many recordings may be. One recording is transcribed at a time; others wait in a queue. A visitor who leaves ends the work.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import soundfile
import torch
from transformers import StoppingCriteria, TextStreamer, pipeline

SETTINGS: dict[str, Any] = json.loads(Path(__file__).with_name("space.json").read_text(encoding="utf-8"))
LIMITS: dict[str, float] = SETTINGS["limits"]
AS_TRAINED = "as the model was trained"
WORDS = "words (approximate)"
TIMES = {"none": None, "segments": True, WORDS: "word"}
HEARTBEAT = 0.5  # seconds; how soon it is seen that a visitor has left
NOTES = {
    "no_speech": "There is probably no speech in this recording (or in parts of it), only noise.",
    "loop": "The model repeated itself; the text is unreliable.",
    "truncated": "The text was cut off at its longest length.",
    "incomplete": "The recording is cut short: the end of its file is missing.",
}

where = {"revision": SETTINGS["revision"]} if SETTINGS["revision"] else {}
BY_TORCH = SETTINGS["engine"] == "torch"
DECODING: dict[str, Any] = {} if BY_TORCH else {"num_beams": 1}  # no other engine has beams
if not SETTINGS["installed"]:
    transcribe: Any = pipeline(
        "automatic-speech-recognition",
        SETTINGS["model"],
        device="cuda" if torch.cuda.is_available() else "cpu",
        trust_remote_code=True,
        **where,
    )
else:  # a page of one's own machine: the model's own code does not run
    from trainers.engines import check_decoding, load_pipeline
    from trainers.errors import UserError

    try:
        transcribe = load_pipeline(SETTINGS["model"], engine=SETTINGS["engine"], **where)
        check_decoding(transcribe, DECODING)
    except UserError as error:  # now, and not to each visitor that a recording "could not be transcribed"
        print(f"slam-asr space: error: {error}", file=sys.stderr)
        sys.exit(2)
    if not BY_TORCH and not transcribe.model.config.projector_ctc:
        del TIMES[WORDS]
one_at_a_time = threading.Lock()


class Stopped(Exception):
    """The visitor has left, or the time is up."""


class StopWhenAsked(StoppingCriteria):
    """Ends the work between two tokens."""

    def __init__(self, asked: threading.Event) -> None:
        self.asked, self.deadline = asked, time.monotonic() + LIMITS["seconds_of_work"]

    def check(self) -> None:
        if self.asked.is_set() or time.monotonic() > self.deadline:
            raise Stopped

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Draft(str):
    """A first guess at a window's text, by the CTC head of models that have one: shown until the LLM writes."""


class Settled(str):
    """The whole text so far that no later window changes."""


class QueueStreamer(TextStreamer):
    """Puts pieces of text into a queue as they are generated, window after window, each with its draft before it."""

    def __init__(self, pieces: "queue.Queue[Any]") -> None:
        super().__init__(transcribe.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.pieces = pieces

    def put_draft(self, tokens: list[int]) -> None:
        self.pieces.put(Draft(self.tokenizer.decode(tokens, skip_special_tokens=True)))

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.put(text + " " if stream_end else text)


def refuse(words: str) -> gr.Error:
    """An error in words that are meant for the visitor; nothing of this machine is in them."""
    return gr.Error(words, print_exception=False)


def check(recording: str | None) -> None:
    """Look at a recording's size and length, before it is decoded."""
    if not recording:
        raise refuse("There is no recording yet. Speak into the microphone, or choose a file.")
    try:
        if os.path.getsize(recording) > LIMITS["megabytes"] * 1e6:
            raise refuse(f"The file is too large: at most {LIMITS['megabytes']:g} MB.")
        seconds = soundfile.info(recording).duration
    except (soundfile.SoundFileError, OSError, RuntimeError):
        raise refuse("The file cannot be read as sound. Try wav, flac, mp3 or ogg.") from None
    if not 0 < seconds <= LIMITS["seconds_of_sound"]:
        minutes = LIMITS["seconds_of_sound"] / 60
        raise refuse(f"The recording is {seconds / 60:.1f} minutes long; this page takes up to {minutes:g} minutes.")


def work(recording: str, request: dict[str, Any], pieces: "queue.Queue[Any]", asked: threading.Event) -> None:
    """Transcribe, when it is this recording's turn; the answer, or what went wrong, goes into the queue."""

    def on_window(text: str) -> None:
        stop.check()
        pieces.put(Settled(text))

    try:
        with one_at_a_time:
            stop = StopWhenAsked(asked)
            if BY_TORCH:
                request = {**request, "generate_kwargs": {"stopping_criteria": [stop]}}
            else:  # its engine is asked between two windows
                request = {**request, **DECODING, "on_window": on_window}
            pieces.put(transcribe(recording, **request))
    except Stopped:
        pieces.put(
            refuse(f"This took more than {LIMITS['seconds_of_work']:g} s and was ended. Try a shorter recording.")
        )
    except Exception:  # whatever it is, the page must hear of it; what it is, is for the log
        traceback.print_exc()
        pieces.put(refuse("The recording could not be transcribed. Try another one, or a shorter one."))


def run(recording: str | None, language: str, times: str) -> Iterator[tuple[str, list[list[str]], str]]:
    """The text so far, again and again; at the end the whole text, the rows of times, and what to know of them."""
    check(recording)
    assert recording is not None
    pieces: queue.Queue[Any] = queue.Queue()
    asked = threading.Event()
    request: dict[str, Any] = {"return_confidence": True}
    if language != AS_TRAINED:
        request["language"] = language
    if TIMES.get(times) is not None:
        request["return_timestamps"] = TIMES[times]
    if BY_TORCH and (transcribe.model.generation_config.num_beams or 1) == 1:  # beams are not known until the end
        request["streamer"] = QueueStreamer(pieces)
    threading.Thread(target=work, args=(recording, request, pieces, asked), daemon=True).start()
    text = draft = ""
    try:
        while True:
            try:
                piece = pieces.get(timeout=HEARTBEAT)
            except queue.Empty:
                piece = ""
            if isinstance(piece, gr.Error):
                raise piece
            if isinstance(piece, dict):
                yield piece["text"], [row(chunk) for chunk in piece.get("chunks", [])], notes(piece)
                return
            if isinstance(piece, Draft):
                draft = piece
            elif isinstance(piece, Settled):
                text = piece
            elif piece:
                text, draft = text + piece, ""
            yield text + draft, [], ""
    finally:
        asked.set()  # the answer is there, or the visitor has left


def notes(answer: dict[str, Any]) -> str:
    """What a reader of the text must know."""
    marked = [answer, *answer.get("chunks", [])]
    found = [words for mark, words in NOTES.items() if any(one.get(mark) for one in marked)]
    confidence = answer.get("confidence")
    if answer["text"] and confidence is not None and confidence < SETTINGS["low_confidence"]:
        known = f" It was made for {', '.join(SETTINGS['names'])}." if SETTINGS["names"] else ""
        found.append(
            f"The model is unsure (confidence {confidence:.2f}): noise, or a language that it does not know?{known}"
        )
    return "\n\n".join(f"**Note:** {words}" for words in found)


def row(chunk: dict[str, Any]) -> list[str]:
    """A segment or word with its times, for the table."""
    start, end = chunk["timestamp"]
    return [clock(start), clock(end), chunk["text"]]


def clock(seconds: float | None) -> str:
    """`1:02.50`"""
    return "" if seconds is None else f"{int(seconds) // 60}:{seconds % 60:05.2f}"


with gr.Blocks(title=SETTINGS["title"]) as demo:
    gr.Markdown(f"# {SETTINGS['title']}\n\n{SETTINGS['description']}")
    audio = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Recording", elem_id="recording")
    with gr.Row():
        language_box = gr.Dropdown([AS_TRAINED, *SETTINGS["languages"]], value=AS_TRAINED, label="Language")
        times_box = gr.Radio(list(TIMES), value="none", label="Times")
    with gr.Row():
        button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
        stop_button = gr.Button("Stop", elem_id="stop")
    output = gr.Textbox(label="Text", lines=6, elem_id="text")
    note = gr.Markdown(elem_id="note")
    table = gr.Dataframe(headers=["from", "to", "text"], label="Times", wrap=True, elem_id="times")
    click = button.click(
        run, [audio, language_box, times_box], [output, table, note], api_name="transcribe", concurrency_limit=1
    )
    stop_button.click(None, cancels=[click])

if __name__ == "__main__":
    if os.environ.get("SLAM_ASR_ENDS_WITH_STDIN"):  # `slam-asr space --local` holds the other end, and takes this along
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    demo.queue(max_size=int(LIMITS["waiting"])).launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        server_port=int(sys.argv[1]) if len(sys.argv) > 1 else None,
        max_file_size=f"{LIMITS['megabytes']:g}mb",
    )
