"""Transcribing a data set with the pipeline that users have: the figures are those of the model they will run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset
from tqdm.auto import tqdm

from modeling_slam_asr import SlamAsrPipeline
from trainers.data.rows import read_audio
from trainers.evaluation import SpeedMeter, SpeedReport
from trainers.results import PredictionRow, prediction_row


@dataclass
class Decoded:
    """Prediction rows in the data set's order, and the speed at which they came."""

    rows: list[PredictionRow]
    speed: SpeedReport


def transcribe_dataset(
    pipe: SlamAsrPipeline, dataset: Dataset, *, batch_size: int = 8, quiet: bool = False, **request: Any
) -> Decoded:
    """
    Transcribe every row of a prepared data set (see `trainers.data.prepare`).

    Rows are batched by length and come back in their own order. The clock starts when the model is warm.

    Args:
        request: passed to the pipeline, for instance `language` or `generate_kwargs`.
    """
    order = sorted(range(len(dataset)), key=lambda index: dataset[index]["seconds"], reverse=True)
    languages = dataset["language"] if request.get("language") is None else [request["language"]] * len(dataset)

    def recordings() -> Iterator[dict[str, Any]]:
        for index in order:
            row = dataset[index]
            yield {"array": read_audio(row), "sampling_rate": 16_000}

    typical = read_audio(dataset[order[len(order) // 2]])

    def first_token() -> None:
        one = {**(request.get("generate_kwargs") or {}), "max_new_tokens": 1}
        pipe({"array": typical, "sampling_rate": 16_000}, **{**request, "generate_kwargs": one})

    results: list[dict[str, Any] | None] = [None] * len(dataset)
    meter = SpeedMeter(pipe.device, warmup=0)  # measuring the first token warms up
    meter.measure_first_token(first_token)
    with (
        meter.batch(sum(dataset["seconds"])),
        tqdm(total=len(order), desc="transcribing", unit="utt", disable=quiet) as bar,
    ):
        for index, output in zip(order, pipe(recordings(), batch_size=batch_size, **request), strict=True):
            results[index] = output
            bar.update()
    speed = meter.report(
        parameters=pipe.model.parameter_report()["total"], dtype=str(pipe.model.dtype), batch_size=batch_size
    )
    rows: list[PredictionRow] = []
    for index, (row, output) in enumerate(zip(dataset.remove_columns("audio"), results, strict=True)):
        assert output is not None
        prediction = prediction_row(row, output.pop("text"))
        if languages[index] is not None:
            prediction["language"] = languages[index]
        prediction["duration"] = round(float(row["seconds"]), 3)
        path = dataset[index]["audio"].get("path")
        if path:
            prediction["audio"] = str(path)
        said = {key: value for key, value in output.items() if value is not None}
        rows.append(cast(PredictionRow, {**prediction, **said}))
    return Decoded(rows, speed)
