"""Transcribing a data set with the pipeline that users have: the figures are those of the model they will run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from modeling_slam_asr import SlamAsrPipeline
from trainers.data.rows import read_audio

KEPT_COLUMNS = ("language", "speaker_id", "source")


@dataclass
class Decoded:
    """Prediction rows in the data set's order, and how long the pipeline took for their audio (seconds)."""

    rows: list[dict[str, Any]]
    audio_seconds: float
    wall_seconds: float


def transcribe_dataset(
    pipe: SlamAsrPipeline, dataset: Dataset, *, batch_size: int = 8, quiet: bool = False, **request: Any
) -> Decoded:
    """
    Transcribe every row of a prepared data set (see `trainers.data.prepare`).

    Rows are batched by length and come back in their own order. One batch is run before the clock starts.

    Args:
        request: passed to the pipeline, for instance `language` or `generate_kwargs`.
    """
    order = sorted(range(len(dataset)), key=lambda index: dataset[index]["seconds"], reverse=True)
    languages = dataset["language"] if request.get("language") is None else [request["language"]] * len(dataset)

    def recordings() -> Iterator[dict[str, Any]]:
        for index in order:
            row = dataset[index]
            yield {"array": read_audio(row), "sampling_rate": 16_000}

    warm = dataset[order[len(order) // 2]]
    pipe({"array": read_audio(warm), "sampling_rate": 16_000}, **request)
    results: list[dict[str, Any] | None] = [None] * len(dataset)
    start = time.perf_counter()
    bar = tqdm(total=len(order), desc="transcribing", unit="utt", disable=quiet)
    for index, output in zip(order, pipe(recordings(), batch_size=batch_size, **request), strict=True):
        results[index] = output
        bar.update()
    wall = time.perf_counter() - start
    bar.close()
    rows = []
    for index, (row, output) in enumerate(zip(dataset.remove_columns("audio"), results, strict=True)):
        assert output is not None
        prediction = {"id": row["id"], "reference": row["text"], "prediction": output.pop("text")}
        prediction |= {name: row[name] for name in KEPT_COLUMNS if row.get(name) is not None}
        if languages[index] is not None:
            prediction["language"] = languages[index]
        prediction["duration"] = round(float(row["seconds"]), 3)
        path = dataset[index]["audio"].get("path")
        if path:
            prediction["audio"] = str(path)
        rows.append(prediction | {key: value for key, value in output.items() if value is not None})
    return Decoded(rows, sum(row["duration"] for row in rows), wall)
