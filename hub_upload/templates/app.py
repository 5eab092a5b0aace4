"""A page that transcribes speech: microphone or file, text as it is written, times if wanted, recordings of any length.

Settings stand in space.json beside this file: the model, its commit, and the languages to offer.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from transformers import TextStreamer, pipeline

SETTINGS: dict[str, Any] = json.loads(Path(__file__).with_name("space.json").read_text(encoding="utf-8"))
AS_TRAINED = "as the model was trained"
TIMES = {"none": None, "segments": True, "words (approximate)": "word"}

where = {"revision": SETTINGS["revision"]} if SETTINGS["revision"] else {}
transcribe: Any = pipeline(
    "automatic-speech-recognition",
    SETTINGS["model"],
    device="cuda" if torch.cuda.is_available() else "cpu",
    trust_remote_code=True,
    **where,
)


class QueueStreamer(TextStreamer):
    """Puts pieces of text into a queue as they are generated, window after window."""

    def __init__(self, pieces: "queue.Queue[Any]") -> None:
        super().__init__(transcribe.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.pieces = pieces

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.put(text + " " if stream_end else text)


def run(recording: str | None, language: str, times: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The text so far, again and again; at the end the whole text and the rows of times."""
    if not recording:
        raise gr.Error("There is no recording yet. Speak into the microphone, or choose a file.")
    pieces: queue.Queue[Any] = queue.Queue()
    request: dict[str, Any] = {} if language == AS_TRAINED else {"language": language}
    if TIMES[times] is not None:
        request["return_timestamps"] = TIMES[times]
    if (transcribe.model.generation_config.num_beams or 1) == 1:  # beams are not known until the end
        request["streamer"] = QueueStreamer(pieces)

    def work() -> None:
        try:
            pieces.put(transcribe(recording, **request))
        except Exception as error:  # whatever it is, the page must hear of it
            pieces.put(error)

    threading.Thread(target=work, daemon=True).start()
    text = ""
    while True:
        piece = pieces.get()
        if isinstance(piece, Exception):
            raise gr.Error(str(piece))
        if isinstance(piece, dict):
            yield piece["text"], [row(chunk) for chunk in piece.get("chunks", [])]
            return
        text += piece
        yield text, []


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
    button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
    output = gr.Textbox(label="Text", lines=6, elem_id="text")
    table = gr.Dataframe(headers=["from", "to", "text"], label="Times", wrap=True, elem_id="times")
    button.click(run, [audio, language_box, times_box], [output, table], api_name="transcribe")

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    demo.queue().launch(server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), server_port=port)
