"""Transcribe sound files: what `slam-asr transcribe` does."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modeling_slam_asr.transcripts_slam_asr import Answer
from trainers.errors import UserError
from trainers.files import write_text
from trainers.inference import subtitles
from trainers.inference.recordings import Recording, output_names

FORMATS = ("txt", "json", *subtitles.FORMATS)


def timestamps_for(formats: Sequence[str], word_timestamps: bool) -> bool | str:
    """The pipeline's `return_timestamps` that these formats need."""
    if word_timestamps:
        return "word"
    if not subtitles.FORMATS.keys().isdisjoint(formats):
        return "estimate"
    return "json" in formats


def render(name: str, answer: Answer, form: str, unsure: bool = False) -> str:
    """One file's answer in one of `FORMATS`, `json` as one object on one line; it ends with a line break.

    Args:
        unsure: mark subtitles as doubtful.
    Raises:
        UserError: there is no such format.
    """
    if form == "txt":
        return str(answer["text"]) + "\n"
    if form == "json":
        return json.dumps({"file": name, **answer}, ensure_ascii=False, allow_nan=False) + "\n"
    if form not in subtitles.FORMATS:
        raise UserError(f"There is no output format {form!r}; choose one of {', '.join(FORMATS)}.")
    return subtitles.FORMATS[form].write(subtitles.cues(answer["chunks"], unsure=unsure))


class StreamWriter:
    """
    Answers on one stream: the text of a long recording as its windows finish, everything else when it is done.

    Args:
        write: takes pieces of text; line breaks are in them.

    Attributes:
        grows: whether a recording's text is written as its windows finish, by `on_window`.
    """

    def __init__(self, recordings: Sequence[Recording], form: str, write: Callable[[str], Any]) -> None:
        self.recordings, self.form, self.write = recordings, form, write
        self.grows = form == "txt"
        self._index, self._written = 0, ""

    def on_window(self, settled: str) -> None:
        """The pipeline's `on_window`: what of the recording at work is settled by now."""
        if self.grows and settled.startswith(self._written) and settled != self._written:
            self.write(("" if self._written else self._head()) + settled[len(self._written) :])
            self._written = settled

    def on_answer(self, answer: Answer, unsure: bool = False) -> None:
        """The next recording's answer, or its error."""
        begun, self._written = self._written, ""
        name, head = self.recordings[self._index].name, self._head()
        self._index += 1  # before anything is written: what cannot be must not leave its name to the next
        if "error" in answer:
            self.write("\n" if begun else "")
        elif begun and answer["text"].startswith(begun):
            self.write(answer["text"][len(begun) :] + "\n")
        else:
            text = render(name, answer, self.form, unsure)
            self.write(("\n" if begun else "") + (head if self.grows else "") + text)

    def _head(self) -> str:
        return f"{self.recordings[self._index].name}: " if len(self.recordings) > 1 else ""


class FolderWriter:
    """
    Answers in a folder, each file whole or not at all.

    Args:
        say: told the path of each file.
    """

    def __init__(
        self, recordings: Sequence[Recording], formats: Sequence[str], folder: Path, say: Callable[[str], Any]
    ) -> None:
        names = [one.sound if isinstance(one.sound, str) else one.name for one in recordings]
        self.recordings, self.formats, self.say = recordings, formats, say
        self._targets = iter(zip(recordings, output_names(names, folder), strict=True))

    def on_answer(self, answer: Answer, unsure: bool = False) -> None:
        """The next recording's answer, or its error.

        Raises:
            OSError: the file cannot be written.
        """
        recording, target = next(self._targets)
        if "error" in answer:
            return
        for form in self.formats:
            text = render(recording.name, answer, form, unsure)
            self.say(str(write_text(target.with_name(f"{target.name}.{form}"), text)) + "\n")
