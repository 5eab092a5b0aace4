"""How fast a model transcribes: by each engine, against the plain composition of its parts, Whisper and faster-whisper.

    make benchmark                                        # the quickstart's model on synthetic speech: minutes
    python -m benchmarks.speed --model MODEL --dataset DIR... --whisper DIR --faster-whisper DIR --language en

All systems are loaded at once, each in a process of its own, and take turns within each round, so that what else the machine does
falls on all; figures are medians over rounds, after the shortest clips once, which are left out. `--output-dir` receives speed.json, table.md and the
export that llama.cpp reads (`--export DIR` names one that is there). RTFx: seconds of sound in a second. Ceilings are the machine's
memory bandwidth and its rate of matrix products, measured first: a share of 100 % would be a model that reads its weights once a pass
and multiplies, and does nothing else. llama.cpp's rate is held against that of float32.
"""

import argparse
import multiprocessing
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.ceilings import Ceilings, measure_ceilings
from benchmarks.speed.clips import Clip, make_clips
from benchmarks.speed.systems import Setup
from benchmarks.speed.worker import Measured, Task, serve
from hub_upload.published import public_name
from trainers.errors import UserError
from trainers.evaluation import score
from trainers.evaluation.format import markdown_table
from trainers.evaluation.speed import BUSY
from trainers.files import write_json, write_text
from trainers.provenance import cpu_cores, hardware

SYSTEMS = ("torch-float32", "torch-bfloat16", "llama_cpp-q8_0", "plain-float32", "whisper", "faster-whisper-int8")


@dataclass(frozen=True)
class Row:
    """
    One system in one cell of the grid, medians over rounds.

    refused: why there are no figures. rtfx: seconds of sound in a second; rounds: of each round. first_token: seconds, of one clip.
    peak_gib: the process's resident memory. wer: a fraction. share: of the ceilings. encoder_calls, llm_passes: for all clips.
    """

    system: str
    seconds: float
    batch: int
    beams: int
    refused: str | None
    rtfx: float | None = None
    rounds: tuple[float, ...] = ()
    first_token: float | None = None
    peak_gib: float | None = None
    wer: float | None = None
    share: float | None = None
    encoder_calls: int | None = None
    llm_passes: int | None = None
    other_cores: float | None = None


class Child:
    """A system's process."""

    def __init__(self, name: str, setup: Setup, ceilings: Ceilings) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, (self.connection, other) = name, context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, setup, ceilings), daemon=True)
        self.process.start()
        other.close()
        self.refused = self._receive()

    def ask(self, task: Task) -> Measured | str:
        """What was measured, or why it is not possible."""
        if self.refused:
            return str(self.refused)
        self.connection.send(task)
        found: Measured | str = self._receive()
        return found

    def end(self) -> None:
        """Let the process go."""
        if not self.refused:
            self.connection.send(None)
        self.process.join()

    def _receive(self) -> Any:
        connection: Connection = self.connection
        try:
            return connection.recv()
        except EOFError as error:
            self.process.join()
            raise UserError(f"{self.name} ended with exit code {self.process.exitcode}; it says above why.") from error


def measure(children: Sequence[Child], clips: dict[float, list[Clip]], given: argparse.Namespace) -> list[Row]:
    """The whole grid, in rounds."""
    cells = [(seconds, batch, beams) for seconds in given.seconds for batch in given.batch for beams in given.beams]
    for seconds, batch, beams in cells:
        if seconds == min(given.seconds):
            for child in children:
                child.ask(Task(clips[seconds][:batch], batch, beams))
    print("the shortest clips are done once (left out)", file=sys.stderr, flush=True)
    found: dict[tuple[str, float, int, int], list[Measured | str]] = {}
    first: dict[tuple[str, float, int], float] = {}
    for turn in range(1, given.rounds + 1):
        for seconds, batch, beams in cells:
            some = clips_of(clips[seconds], batch, given.clips)
            for child in [*children[turn % len(children) :], *children[: turn % len(children)]]:
                answer = child.ask(Task(some, batch, beams))
                found.setdefault((child.name, seconds, batch, beams), []).append(answer)
                if turn == 1 and isinstance(answer, Measured) and batch == min(given.batch):
                    one = child.ask(Task(some, 1, beams, first_token=True))
                    if isinstance(one, Measured) and one.first_token is not None:
                        first[child.name, seconds, beams] = one.first_token
            print(f"{seconds:g} s, batch {batch}, beams {beams}: done", file=sys.stderr, flush=True)
        print(f"round {turn} of {given.rounds} is done", file=sys.stderr, flush=True)
    return [
        _row(
            child.name,
            cell,
            found[child.name, *cell],
            clips_of(clips[cell[0]], cell[1], given.clips),
            first,
            given.language,
        )
        for child in children
        for cell in cells
    ]


def clips_of(some: Sequence[Clip], batch: int, least: int) -> list[Clip]:
    """The first clips of a length: as many as one batch holds, and at least so many."""
    return list(some[: max(batch, least)])


def _row(
    name: str,
    cell: tuple[float, int, int],
    answers: Sequence[Measured | str],
    clips: Sequence[Clip],
    first: dict[tuple[str, float, int], float],
    language: str,
) -> Row:
    seconds, batch, beams = cell
    measured = [answer for answer in answers if isinstance(answer, Measured)]
    if not measured:
        return Row(name, seconds, batch, beams, refused=str(answers[0]))
    last = measured[-1]
    figures = score([clip.text for clip in clips], last.texts, language=language, bootstrap=0)
    return Row(
        name, seconds, batch, beams, None,
        rtfx=_median([one.rtfx for one in measured]),
        rounds=tuple(round(one.rtfx, 2) for one in measured if one.rtfx is not None),
        first_token=first.get((name, seconds, beams)),
        peak_gib=max((one.peak_bytes or 0) for one in measured) / 2**30,
        wer=figures["wer"],
        share=_median([one.share for one in measured]),
        encoder_calls=last.encoder_calls,
        llm_passes=last.llm_passes,
        other_cores=_median([one.other_cores for one in measured]),
    )  # fmt: skip


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def table(rows: Sequence[Row]) -> str:
    """One line a system and number of beams; below it what was refused."""
    lengths, batches = (sorted({getattr(row, name) for row in rows}) for name in ("seconds", "batch"))
    names = " / ".join(str(batch) for batch in batches)
    heads = [
        "system", "beams", *(f"RTFx, {seconds:g} s, batch {names}" for seconds in lengths),
        f"first token, s ({' / '.join(f'{seconds:g}' for seconds in lengths)} s)", f"peak memory, GiB, batch {names}",
        f"WER, % ({' / '.join(f'{seconds:g}' for seconds in lengths)} s)", f"% of the ceilings, batch {names}",
    ]  # fmt: skip
    lines, refused = [], {}
    for system, beams in dict.fromkeys((row.system, row.beams) for row in rows):
        own = [row for row in rows if (row.system, row.beams) == (system, beams)]
        for row in own:
            if row.refused:
                refused[f"{system}: {row.refused}"] = True
        if all(row.refused for row in own):
            continue
        cell = {(row.seconds, row.batch): row for row in own}
        by_length = [[cell[seconds, batch] for batch in batches] for seconds in lengths]
        by_batch = [[cell[seconds, batch] for seconds in lengths] for batch in batches]
        lines.append([
            system, str(beams), *(_joined([row.rtfx for row in some], ".1f") for some in by_length),
            _joined([some[0].first_token for some in by_length], ".2f"),
            _joined([max((row.peak_gib or 0 for row in some), default=0) or None for some in by_batch], ".2f"),
            _joined([_last([100 * row.wer for row in some if row.wer is not None]) for some in by_length], ".1f"),
            _joined([_median([100 * row.share for row in some if row.share is not None]) for some in by_batch], ".0f"),
        ])  # fmt: skip
    return "\n".join([markdown_table(heads, lines, numeric_from=1), *(f"- {reason}" for reason in refused), ""])


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None


def _joined(values: Sequence[float | None], form: str) -> str:
    return " / ".join("-" if value is None else format(value, form) for value in values)


def exported(given: argparse.Namespace) -> Path | None:
    """The export that llama.cpp reads: the one that was named, else one of the model, made once."""
    wanted = {name.partition("-")[2] for name in given.systems if name.startswith("llama_cpp-")}
    if given.export is not None or not wanted:
        return given.export  # type: ignore[no-any-return]
    folder: Path = given.output_dir / "exported"
    if not folder.is_dir():
        parts = [word for name in sorted(wanted) for word in ("--gguf", name)]
        command = [sys.executable, "-m", "slam_asr", "export", str(given.model), str(folder), "--int8", *parts]
        if subprocess.run([*command, "--no-llm-weights"]).returncode:
            return None
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("quickstart/model"), help="default: quickstart/model")
    parser.add_argument("--export", type=Path, help="an export of it (default: made in --output-dir)")
    parser.add_argument("--whisper", type=Path, help="folder of a whole Whisper model")
    parser.add_argument("--faster-whisper", type=Path, help="folder of one in CTranslate2's format")
    parser.add_argument("--dataset", nargs="+", default=["embedded"], help="whose utterances clips are made of")
    parser.add_argument("--split", default="test")
    parser.add_argument("--language", default="en")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help=f"default: {' '.join(SYSTEMS)}")
    parser.add_argument("--seconds", nargs="+", type=float, default=[3, 10, 30], help="lengths of clips")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 4])
    parser.add_argument(
        "--clips", type=int, default=16, help="at least, in each cell; a batch is always full (default: 16)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="after one that is left out (default: 3)")
    parser.add_argument("--threads", type=int, default=cpu_cores(), help="default: all cores")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/speed"))
    given = parser.parse_args(arguments)
    if not given.model.is_dir():
        parser.error(f"the folder {given.model} does not exist. `make quickstart` makes the default one.")
    try:
        clips = {
            seconds: make_clips(given.dataset, given.split, given.language, seconds, max(given.clips, *given.batch))
            for seconds in given.seconds
        }
        torch.set_num_threads(given.threads)
        ceilings = measure_ceilings()
        setup = Setup(given.model, exported(given), given.whisper, given.faster_whisper, given.language, given.threads)
        children = [Child(name, setup, ceilings) for name in given.systems]
        rows = measure(children, clips, given)
        for child in children:
            child.end()
    except UserError as error:
        print(f"benchmarks.speed: error: {error}", file=sys.stderr)
        return 2
    machine = {**hardware(), "threads": given.threads, **asdict(ceilings)}
    settings = {name: value for name, value in vars(given).items() if name != "output_dir"}
    settings = {name: public_name(str(value)) if isinstance(value, Path) else value for name, value in settings.items()}
    settings["dataset"] = [public_name(name) for name in given.dataset]
    busiest = max((row.other_cores or 0 for row in rows), default=0)
    write_json(
        given.output_dir / "speed.json",
        {"machine": machine, "settings": settings,
         "clip_seconds": {f"{seconds:g}": round(sum(clip.seconds for clip in some), 1) for seconds, some in clips.items()},
         "rows": [asdict(row) for row in rows]},
    )  # fmt: skip
    text = table(rows)
    if busiest > BUSY:
        text += f"\nOther processes used up to {busiest:.1f} cores meanwhile: these are not the speeds of an idle machine.\n"
    write_text(given.output_dir / "table.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
