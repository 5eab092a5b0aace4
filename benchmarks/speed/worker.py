"""One system in a process of its own, so that its memory is its own; it computes only when it is asked to."""

from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.speed.ceilings import Ceilings
from benchmarks.speed.clips import Clip
from benchmarks.speed.systems import Setup, System, make
from trainers.errors import UserError
from trainers.evaluation import SpeedMeter

FIRST_TOKEN_REPEATS = 3


@dataclass(frozen=True)
class Task:
    """Clips to transcribe, so many at a time. first_token: measure the time to the first token of the first clip instead."""

    clips: list[Clip]
    batch: int
    beams: int
    first_token: bool = False


@dataclass(frozen=True)
class Measured:
    """
    rtfx: seconds of sound in a second. peak_bytes: resident memory while it ran. share: of the ceilings; None where the system does not
    tell what it computes. first_token: seconds. other_cores: what other processes used meanwhile.
    """

    rtfx: float | None
    peak_bytes: int | None
    texts: list[str]
    share: float | None
    first_token: float | None
    other_cores: float | None
    encoder_calls: int | None
    llm_passes: int | None


def serve(connection: Connection, name: str, setup: Setup, ceilings: Ceilings) -> None:
    """
    Make the system and answer each `Task` with what was `Measured`, or with the reason why it is not possible; None ends.

    The first thing sent is an empty string, or the reason why there is no such system here.
    """
    try:
        system = make(name, setup)
    except UserError as error:
        connection.send(str(error))
        return
    except ImportError as error:
        connection.send(f"not measured: {error.name or error} is not installed")
        return
    connection.send("")
    while (task := connection.recv()) is not None:
        try:
            connection.send(_measure(system, task, ceilings))
        except UserError as error:
            connection.send(str(error))


def _measure(system: System, task: Task, ceilings: Ceilings) -> Measured:
    if task.batch > 1 and not system.batches:
        raise UserError("one recording at a time")
    sounds = [clip.samples for clip in task.clips]
    meter = SpeedMeter(warmup=0)
    if task.first_token:
        meter.measure_first_token(lambda: system.recognise(sounds[:1], task.beams, 1), FIRST_TOKEN_REPEATS)
        return Measured(None, None, [], None, meter.time_to_first_token, None, None, None)
    if system.work is not None:
        system.work.reset()
    texts: list[str] = []
    with meter.batch(sum(clip.seconds for clip in task.clips)):
        for start in range(0, len(sounds), task.batch):
            texts += system.recognise(sounds[start : start + task.batch], task.beams, None)
    report, work = meter.report(), system.work
    return Measured(
        rtfx=report["rtfx"],
        peak_bytes=report["peak_memory_bytes"],
        texts=texts,
        share=work.least_seconds(ceilings) / report["wall_seconds"] if work is not None else None,
        first_token=None,
        other_cores=report["other_cores"],
        encoder_calls=work.encoder_calls if work is not None else None,
        llm_passes=len(work.passes) if work is not None else None,
    )
