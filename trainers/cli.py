"""The command `slam-asr`: a table of sub-commands, each in a module of its own that is imported when it is used."""

import argparse
import importlib
import io
import os
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

from trainers.errors import UserError
from trainers.registry import registered_commands

# Each module has HELP, configure(parser) and run(args) -> exit code.
OWN_COMMANDS = {
    "quickstart": ("trainers.commands.quickstart", "the whole story in minutes on the embedded miniature"),
    "split": (
        "trainers.commands.split",
        "cut a table or folder of recordings into train, validation and test by speaker",
    ),
    "train": ("trainers.commands.train", "train a projector, with LoRA if wanted, from a recipe"),
    "evaluate": ("trainers.commands.evaluate", "transcribe a data set with a model and score it"),
    "score": ("trainers.commands.score", "score a file of references and predictions"),
    "compare": ("trainers.commands.compare", "say whether two systems really differ"),
    "study": ("trainers.commands.study", "a resumable grid of runs, with its report"),
    "depth": ("trainers.commands.depth", "profile an encoder's blocks to choose what to prune"),
    "transcribe": ("trainers.commands.transcribe", "transcribe sound files"),
    "serve": ("trainers.commands.serve", "transcribe over HTTP, as OpenAI's API does"),
}
CONVERSIONS = {
    "export": ("trainers.commands.export", "write a model as ONNX, GGUF and a plain LLM folder for other engines"),
    "import-reference": ("trainers.commands.import_reference", "convert a checkpoint of the paper's code"),
}
OTHERS = {name: row for name, row in registered_commands().items() if name not in {*OWN_COMMANDS, *CONVERSIONS}}
COMMANDS = {**OWN_COMMANDS, **OTHERS, **CONVERSIONS}


def load(command: str) -> ModuleType:
    """The module of a sub-command."""
    return importlib.import_module(COMMANDS[command][0])


def parser_for(command: str) -> argparse.ArgumentParser:
    """The argument parser of one sub-command."""
    module = load(command)
    parser = argparse.ArgumentParser(
        prog=f"slam-asr {command}", description=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.configure(parser)
    return parser


def run_command(command: str, arguments: Sequence[str]) -> int:
    """Run one sub-command, for instance from another; returns its exit code."""
    # Overrides may stand on both sides of an option: `train RECIPE --seed 1 max_steps=10`.
    args = parser_for(command).parse_intermixed_args(list(arguments))
    try:
        return int(load(command).run(args) or 0)
    except KeyboardInterrupt:
        print(f"\nslam-asr {command}: stopped by the keyboard.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`slam-asr ... | head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError, RecursionError) as error:
        if args.debug:
            raise
        details = error.details if isinstance(error, UserError) else ()
        message = " ".join(str(error.args[0] if details else error).split()) or type(error).__name__
        if isinstance(error, RecursionError):  # of a JSON reader, whichever file it was
            message = (
                f"A file that was read is nested too deep ({message}). Remove it, or make it anew; --debug says where."
            )
        # Paths, options and package names are copied from messages: they stay in one piece.
        text = textwrap.fill(
            f"slam-asr {command}: error: {message}", 100, break_long_words=False, break_on_hyphens=False
        )
        print(text, *(f"  {' '.join(line.split())}" for line in details), sep="\n", file=sys.stderr)
        return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 done with failures, 2 a mistake in what was asked."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        complete()
    parser = _main_parser()
    if arguments[:1] == ["help"]:  # `help COMMAND` is `COMMAND --help`
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"slam-asr {version('slam-asr')}")
        return 0
    parser.parse_args(arguments[:1])  # an unknown command is argparse's own error
    return run_command(arguments[0], arguments[1:])


def program() -> int:
    """The whole process: without a terminal, or with `--quiet`, the libraries' progress bars are off, in child processes too."""
    if "--quiet" in sys.argv or not sys.stderr.isatty():
        # The first also turns off those of transformers, which asks the Hub's client.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    return main()


def complete() -> None:
    """Answer a shell that asks for completions, once `register-python-argcomplete slam-asr` is evaluated; then exit."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="slam-asr")
    commands = parser.add_subparsers()
    words = os.environ.get("COMP_LINE", "").split()
    for name in COMMANDS:
        command = commands.add_parser(name)
        if name in words[1:2]:  # the others' options are not asked for
            load(name).configure(command)
    argcomplete.autocomplete(parser)


def _main_parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in COMMANDS)
    table = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="slam-asr",
        usage="slam-asr COMMAND [options]",
        description="Speech recognition with a pruned Whisper encoder, a projector and an LLM.",
        epilog=f"commands:\n{table}\n\n`slam-asr help COMMAND` explains a command. Start with `slam-asr quickstart`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(program())
