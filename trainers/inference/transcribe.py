"""Transcribe sound files: what `slam-asr transcribe` does."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from modeling_slam_asr import SlamAsrPipeline
from trainers.files import write_text
from trainers.inference.subtitles import cues, to_srt, to_vtt

FORMATS = ("txt", "json", "srt", "vtt")


def transcribe_files(
    pipe: SlamAsrPipeline, files: Sequence[str], *, batch_size: int = 8, **request: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Each file with its answer, in order, as they are done; windows of several files share batches.

    A file that cannot be read has the answer `{"text": "", "error": ...}` and does not end the run.

    Args:
        request: passed to the pipeline.
    """
    yield from zip(files, pipe(iter(files), batch_size=batch_size, on_error="return", **request), strict=True)


def timestamps_for(formats: Sequence[str], word_timestamps: bool) -> bool | str:
    """The pipeline's `return_timestamps` that these formats need."""
    if word_timestamps:
        return "word"
    if "srt" in formats or "vtt" in formats:
        return "estimate"
    return "json" in formats


def render(file: str, answer: dict[str, Any], form: str) -> str:
    """One file's answer as `txt`, `json` (one object on one line), `srt` or `vtt`; it ends with a line break."""
    if form == "txt":
        return answer["text"] + "\n"
    if form == "json":
        return json.dumps({"file": file, **answer}, ensure_ascii=False, allow_nan=False) + "\n"
    return (to_srt if form == "srt" else to_vtt)(cues(answer["chunks"]))


def output_names(files: Sequence[str], folder: Path) -> list[Path]:
    """Where each file's results go, without suffix; equal names in different folders get a number."""
    used: set[str] = set()
    names = []
    for file in files:
        stem = Path(file.split("?", 1)[0]).stem or "recording"
        name, number = stem, 2
        while name.casefold() in used:
            name, number = f"{stem}-{number}", number + 1
        used.add(name.casefold())
        names.append(folder / name)
    return names


def write_answers(
    answers: Iterator[tuple[str, dict[str, Any]]],
    files: Sequence[str],
    formats: Sequence[str],
    output_dir: Path | None,
    say: Callable[[str], None],
) -> list[str]:
    """
    Write each answer as it comes: into `output_dir`, each file whole or not at all, or through `say`.

    Returns:
        what is wrong with each file that could not be transcribed.
    """
    problems = []
    names = output_names(files, output_dir) if output_dir is not None else []
    for index, (file, answer) in enumerate(answers):
        if "error" in answer:
            problems.append(answer["error"])
            continue
        for form in formats:
            text = render(file, answer, form)
            if output_dir is not None:
                target = names[index].with_name(f"{names[index].name}.{form}")
                say(str(write_text(target, text)))
            else:
                say((f"{file}: {text}" if form == "txt" and len(files) > 1 else text).rstrip("\n"))
    return problems
