"""`slam-asr transcribe`: text, JSON or subtitles of sound files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.commands.arguments import add_decoding_arguments, add_window_arguments, decoding_of
from trainers.data.suffixes import SOUND_SUFFIXES

if TYPE_CHECKING:
    from modeling_slam_asr.transcripts_slam_asr import Answer
    from trainers.inference.recordings import Recording

HELP = f"""\
Transcribe sound files of any length: {", ".join(suffix[1:] for suffix in SOUND_SUFFIXES)}, at any sampling rate, mono or stereo.

Recordings longer than those that the model was trained on are cut at pauses, and their text appears as the windows finish.
Files are read block by block, so hours need no more memory than minutes; addresses and the standard input are held whole.
A file that cannot be read does not end the run: it is named at the end, and the exit code is then 1."""

EPILOG = """\
examples:
  slam-asr transcribe quickstart/model talk.wav
  slam-asr transcribe my/model --language nl recordings/*.flac --batch-size 16 --num-beams 2 > texts.txt
  slam-asr transcribe my/model lecture.mp3 --srt --vtt --output-dir subtitles
  slam-asr transcribe my/model interview.ogg --json --word-timestamps --confidence
  slam-asr transcribe my/model recordings/ --output-dir texts       # all sound files of a folder
  ffmpeg -i film.mkv -ac 1 -ar 16000 -f wav - | slam-asr transcribe my/model -      # the standard input

Without --output-dir everything goes to the standard output: the text, with its file's name before it when there are several;
with --json one object a line: file, text, chunks (text and timestamp) and, as asked for, confidence.
Marks stand in an object only where they are true:
  no_speech  digital silence or steady noise; silence is not transcribed
  truncated  the transcript did not end by itself but at the limit for the audio's length
  loop       it ran into a repetition, of which the first copy is kept
  incomplete the end of the file is missing, as after a copy that broke off

Doubtful transcripts (no speech, a loop, a low confidence) are named on the standard error too, and noise is marked in
subtitles; --quiet leaves only errors there.

Times of words are approximate. Without --word-timestamps subtitles place words by the sound's level; with it, by the
model's CTC head, or without one by the language model's attention to the audio (one more pass of the model)."""


def configure(parser: argparse.ArgumentParser) -> None:
    from trainers.engines import add_engine_arguments
    from trainers.inference import subtitles

    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a model folder or Hub name")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="sound files, folders of some, http(s) addresses, or - for the standard input",
    )
    parser.add_argument("--language", help="language spoken, such as nl, for models whose prompt names it")
    parser.add_argument(
        "--context", metavar="TEXT", help="names or terms to expect, for models trained with context, as no recipe does"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a file, with the times of its windows")
    for name, form in subtitles.FORMATS.items():
        output.add_argument(f"--{name}", action="store_true", help=f"{form.title} subtitles")
    output.add_argument("--word-timestamps", action="store_true", help="times of words from the model")
    output.add_argument(
        "--confidence", action="store_true", help="geometric mean of the tokens' probabilities; with --json"
    )
    names = ", ".join(f"NAME.{name}" for name in ("txt", "json", *subtitles.FORMATS))
    output.add_argument("--output-dir", type=Path, help=f"write {names} there")
    decoding = parser.add_argument_group("decoding")
    add_decoding_arguments(decoding)
    decoding.add_argument("--batch-size", type=int, default=8, help="windows at a time (default: 8)")
    add_window_arguments(decoding)
    add_engine_arguments(decoding)
    decoding.add_argument("--quiet", action="store_true", help="nothing on the standard error but errors")


def run(args: argparse.Namespace) -> int:
    """Transcribe, write, and tell at the end what went wrong."""
    from trainers.errors import UserError
    from trainers.inference import subtitles
    from trainers.serving.without_torch import prepare_process

    prepare_process(args.engine)

    formats = [name for name in ("json", *subtitles.FORMATS) if getattr(args, name)] or ["txt"]
    if len(formats) > 1 and args.output_dir is None:
        raise UserError(f"Several formats ({', '.join(formats)}) need --output-dir: one stream cannot hold them all.")
    if (args.confidence or args.word_timestamps) and formats == ["txt"]:
        flags = " or ".join(f"--{name}" for name in subtitles.FORMATS)
        raise UserError(f"--confidence and --word-timestamps have no place in plain text. Add --json, or {flags}.")
    decoding = decoding_of(args)
    if args.output_dir is not None and args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"--output-dir {args.output_dir} is a file; name a folder.")

    from modeling_slam_asr.windows_slam_asr import check_vad
    from trainers.inference.recordings import find_recordings

    check_vad(args.vad)
    recordings = find_recordings(args.files)
    if len(recordings) > 1 and args.output_dir is None and formats[0] in subtitles.FORMATS:
        raise UserError(
            f"--{formats[0]} of {len(recordings)} files needs --output-dir: subtitles of several files in one stream are "
            "those of none. Add `--output-dir FOLDER`."
        )
    problems = _transcribe(args, recordings, formats, decoding)
    if problems:
        print(
            f"slam-asr transcribe: {len(problems)} of {len(recordings)} files could not be transcribed:",
            file=sys.stderr,
        )
        for problem in problems:
            print(f"  - {problem}", file=sys.stderr)
    return 1 if problems else 0


def _transcribe(
    args: argparse.Namespace, recordings: "Sequence[Recording]", formats: Sequence[str], decoding: dict[str, Any]
) -> list[str]:
    """Write what the arguments ask for; returns what is wrong with each recording that failed."""
    from transformers.utils import logging

    from trainers.engines import check_decoding, load_pipeline
    from trainers.evaluation.normalizers import language_code
    from trainers.inference.notices import answer_notices, is_unsure, knows_synthetic_speech_only, request_notices
    from trainers.inference.transcribe import FolderWriter, StreamWriter, timestamps_for

    if args.quiet:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    pipe = load_pipeline(args.model, engine=args.engine, device=args.device, dtype=args.dtype, revision=args.revision)
    check_decoding(pipe, decoding)
    notices = [] if args.quiet else request_notices(pipe, args.language, args.context)
    for notice in notices:
        print(f"slam-asr transcribe: {notice}", file=sys.stderr)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    request = {
        "language": language_code(args.language),
        "context": args.context,
        "window_seconds": args.window_seconds,
        "vad": args.vad,
        "generate_kwargs": decoding,
    }
    writer: FolderWriter | StreamWriter
    if args.output_dir is not None:
        writer = FolderWriter(recordings, formats, args.output_dir, write)
    else:
        writer = StreamWriter(recordings, formats[0], write)
        if writer.grows:
            request["on_window"] = writer.on_window
    shares_terminal = args.output_dir is None and sys.stdout.isatty()
    # A stream, so that answers come as they are done; a list would be answered as a whole.
    answers = pipe(
        iter([recording.sound for recording in recordings]), batch_size=args.batch_size, on_error="return",
        drop_no_speech=args.drop_no_speech,
        return_timestamps=timestamps_for(formats, args.word_timestamps), return_confidence=args.confidence or not args.quiet,
        progress=False if args.quiet or shares_terminal else None,
        **{name: value for name, value in request.items() if value is not None},
    )  # fmt: skip
    synthetic = knows_synthetic_speech_only(pipe)
    problems = []
    for number, (recording, answer) in enumerate(zip(recordings, answers, strict=True), start=1):
        if "error" in answer:
            problems.append(answer["error"])
        doubts = [] if args.quiet or "error" in answer else answer_notices(answer, synthetic)
        try:
            writer.on_answer(answer if args.confidence else _without_confidence(answer), is_unsure(answer, synthetic))
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a name that the file system refuses: the others may do
            problems.append(f"The text of {recording.name!r} cannot be written: {error}")
        for doubt in doubts:
            print(f"slam-asr transcribe: {recording.name}: {doubt}", file=sys.stderr)
        if not args.quiet and sys.stderr.isatty() and len(recordings) > 1:
            print(f"{number} of {len(recordings)} files", end="\r", file=sys.stderr)
    return problems


def _without_confidence(answer: "Answer") -> "Answer":
    """The answer without what was not asked for: confidence is measured for the doubts on the standard error."""
    answer = answer.copy()
    answer.pop("confidence", None)
    if "chunks" in answer:
        answer["chunks"] = [chunk.copy() for chunk in answer["chunks"]]
        for chunk in answer["chunks"]:
            chunk.pop("confidence", None)
    return answer
