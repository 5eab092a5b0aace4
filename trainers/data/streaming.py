"""Training on a data set of the Hub while it is being downloaded."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec.asyn
import torch.utils.data
from accelerate import PartialState

from trainers.data.hub import class_columns, stream_hub, stream_row, with_class_names
from trainers.data.prepare import DataReport, rejection
from trainers.data.rows import PreparedRow, SpeechRow, TrainingRow, read_audio
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.sound import RATE

_LOOK_AT_LEAST = 200


class SpeechStream(torch.utils.data.IterableDataset[TrainingRow]):
    """An endless stream of rows as `prepare` makes them, reshuffled within a buffer on each pass over the data set.

    Rows are dealt out to processes and workers in turn; each of them reads the whole stream for its share. Damaged recordings and those that the filters reject are left
    out and counted in `report` (of this process or worker), damaged ones also listed in `bad_file_list`; the share of damaged ones is watched once 200 rows have been seen.
    A resumed run reads the stream again from its start up to where it stopped.
    """

    def __init__(
        self, spec: DataSpec, *, seed: int, max_bad_fraction: float, bad_file_list: Path | None = None
    ) -> None:
        self.bad_file_list = bad_file_list
        self.spec, self.seed, self.max_bad_fraction = spec, seed, max_bad_fraction
        self.report = DataReport("train")
        self.stream, self.audio_column, self.text_column, self.bounds = stream_hub(spec)

    def __iter__(self) -> Iterator[TrainingRow]:
        state, worker = PartialState(), torch.utils.data.get_worker_info()
        shares = state.num_processes * (worker.num_workers if worker else 1)
        share = state.process_index * (worker.num_workers if worker else 1) + (worker.id if worker else 0)
        epoch = 0
        while True:
            kept = 0
            for index, raw in enumerate(self._shuffled(epoch)):
                if index % shares == share:
                    speech = stream_row(self.spec, raw, index, self.audio_column, self.text_column, self.bounds)
                    row = self._checked(speech)
                    if row is not None:
                        kept += 1
                        yield {**row, "index": index, "epoch": epoch}
            if not kept:
                raise UserError(f"No utterance is left of the stream {self.spec.dataset!r}. {self.report.describe()}.")
            epoch += 1

    def _shuffled(self, epoch: int) -> Iterator[Mapping[str, Any]]:
        if torch.utils.data.get_worker_info() is not None:
            fsspec.asyn.reset_lock()  # held by a thread that a forked worker does not have
        classes = class_columns(self.stream.features)
        shuffled = self.stream.shuffle(seed=self.seed + epoch, buffer_size=self.spec.shuffle_buffer)
        try:
            # In a worker, `iter(shuffled)` would give this worker's shards alone: the rows would be shared out twice.
            for one in shuffled.iter(batch_size=1):
                yield with_class_names({name: values[0] for name, values in one.items()}, classes)
        except ImportError as error:  # loose sound files, which `datasets` takes torchcodec for
            raise UserError(
                f"The data set {self.spec.dataset!r} cannot be streamed ({error}). Set streaming: false to download it whole."
            ) from error

    def _checked(self, row: SpeechRow) -> PreparedRow | None:
        """The row with `transcript` and `seconds`, or None when it is left out."""
        spec, report = self.spec, self.report
        report.rows += 1
        try:
            seconds = len(read_audio(row)) / RATE
        except ValueError as error:
            report.dropped["damaged"] += 1
            report.bad_files.append({"role": "train", "id": row["id"], "error": str(error)})
            if self.bad_file_list is not None:
                with self.bad_file_list.open("a", encoding="utf-8") as file:  # one short write: workers mix no lines
                    file.write(json.dumps(report.bad_files[-1], ensure_ascii=False) + "\n")
            bad = len(report.bad_files)
            if report.rows >= _LOOK_AT_LEAST and bad > self.max_bad_fraction * report.rows:
                raise UserError(
                    f"{bad} of {report.rows} streamed recordings cannot be read, more than max_bad_fraction="
                    f"{self.max_bad_fraction:g} allows. The last: {error} Raise max_bad_fraction or use other data."
                ) from error
            return None
        transcript = spec.transcript(row["text"])
        reason = rejection(spec, seconds, row["text"], transcript)
        if reason is not None:
            report.dropped[reason] += 1
            return None
        report.kept += 1
        report.hours += seconds / 3600
        return {**row, "transcript": transcript, "seconds": seconds}
