"""Transcribing a data set with the pipeline that users have: the figures are those of the model they will run."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset
from tqdm.auto import tqdm

from modeling_slam_asr.transcripts_slam_asr import Answer
from trainers.data.rows import read_audio
from trainers.engines import AsrPipeline, parameters_of
from trainers.errors import UserError
from trainers.evaluation import SpeedMeter, SpeedReport
from trainers.inference.journal import Journal
from trainers.results import PredictionRow, prediction_row
from trainers.sound import RATE

logger = logging.getLogger(__name__)

_NAMED = 5


@dataclass
class Decoded:
    """Prediction rows in the data set's order, the speed at which they came, and what could not be read, by id."""

    rows: list[PredictionRow]
    speed: SpeedReport
    damaged: dict[str, str]


def transcribe_dataset(
    pipe: AsrPipeline,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    tell_language: bool = True,
    quiet: bool = False,
    journal: Journal | None = None,
    **request: Any,
) -> Decoded:
    """
    Transcribe every row of a prepared data set (see `trainers.data.prepare`).

    Rows are batched by length and come back in their own order. The clock starts when the model is warm. A recording that
    cannot be read any more (it was moved since it was scanned) is left out, with a warning. Durations are those of the sound
    that was read, so the speed rests on no earlier measurement.

    Args:
        tell_language: whether the model is told each row's own language, as in training, where `request` names none.
        journal: has the rows of an interrupted process, which are not transcribed again, and gets the others.
        request: passed to the pipeline, for instance `language`, which then is that of all rows, or `generate_kwargs`.
    Raises:
        UserError: no recording can be read.
    """
    journal = journal or Journal()
    described = dataset.remove_columns("audio")
    longest = described["seconds"]
    order = sorted(range(len(dataset)), key=lambda index: longest[index], reverse=True)
    languages = dataset["language"] if request.get("language") is None else [request["language"]] * len(dataset)

    sent: list[int] = []
    seconds: dict[int, float] = {}
    files: dict[int, str | None] = {}
    damaged: dict[str, str] = {}

    def recording(index: int) -> dict[str, Any] | None:
        row = dataset[index]
        files[index] = row["audio"].get("path")
        told = {"language": languages[index]} if tell_language else {}
        try:
            return {"array": read_audio(row), "sampling_rate": RATE, **told}
        except ValueError as error:
            damaged[row["id"]] = str(error)
            return None

    def recordings() -> Iterator[dict[str, Any]]:
        for index in order:
            one = None if index in rows else recording(index)
            if one is not None:
                sent.append(index)
                seconds[index] = len(one["array"]) / RATE
                yield one

    middle = len(order) // 2
    typical = next((one for index in [*order[middle:], *order[:middle]] if (one := recording(index)) is not None), None)
    if typical is None:
        raise UserError(f"None of the {len(order)} recordings can be read. The first: {next(iter(damaged.values()))}")

    def first_token() -> None:
        one = {**(request.get("generate_kwargs") or {}), "max_new_tokens": 1}
        pipe(typical, **{**request, "generate_kwargs": one})

    def prediction_of(index: int, output: Answer) -> PredictionRow:
        row = prediction_row(described[index], output["text"])
        if languages[index] is not None:
            row["language"] = languages[index]
        row["duration"] = round(seconds[index], 3)
        if path := files[index]:
            row["audio"] = str(path)
        said = {key: value for key, value in output.items() if key not in ("text", "language") and value is not None}
        return cast(PredictionRow, {**row, **said})

    rows = dict(journal.rows)
    meter = SpeedMeter(pipe.device, warmup=0)  # measuring the first token warms up
    meter.measure_first_token(first_token)
    with (
        meter.batch(lambda: sum(seconds.values())),
        tqdm(total=len(order), initial=len(rows), desc="transcribing", unit="utt", disable=quiet) as bar,
    ):
        journal.start()
        for position, output in enumerate(pipe(recordings(), batch_size=batch_size, **request)):
            index = sent[position]
            rows[index] = prediction_of(index, output)
            journal.add(index, rows[index])
            bar.update()
    meter.wall_seconds += journal.wall_seconds
    meter.audio_seconds += sum(row["duration"] for row in journal.rows.values())
    for name, error in list(damaged.items())[:_NAMED]:
        logger.warning("%s is left out: %s", name, error)
    if len(damaged) > _NAMED:
        logger.warning("%d more recordings are left out: they cannot be read.", len(damaged) - _NAMED)
    speed = meter.report(parameters=parameters_of(pipe)["total"], dtype=str(pipe.model.dtype), batch_size=batch_size)
    return Decoded([rows[index] for index in sorted(rows)], speed, damaged)
