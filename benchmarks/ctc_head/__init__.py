"""What a CTC head gives, and the utterances that it is measured on."""

from collections.abc import Sequence

from datasets import Dataset

from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec


def read_rows(data: Sequence[str], utterances: int) -> Dataset:
    """At most so many utterances of data sets, each a FOLDER:SPLIT, in an order of chance that is always the same."""
    parts = [one.rpartition(":") for one in data]
    rows = prepare([DataSpec(dataset=name, split=split) for name, _, split in parts], "test", quiet=True)[0]
    return rows.shuffle(seed=0).select(range(min(utterances, len(rows))))
