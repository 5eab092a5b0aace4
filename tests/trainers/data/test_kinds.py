"""The table of kinds of data sets."""

import inspect
import pkgutil
from typing import get_args

import pytest

from trainers.data.kinds import DATA_KINDS
from trainers.data.sources import detect_format
from trainers.data.spec import DataFormat, DataSpec


@pytest.mark.parametrize("name", DATA_KINDS)
def test_every_kind_has_a_reader_of_a_spec(name: str) -> None:
    first = next(iter(inspect.signature(pkgutil.resolve_name(DATA_KINDS[name].reader)).parameters.values()))
    assert first.annotation is DataSpec
    assert detect_format(DataSpec("x", format=name)) == name


def test_the_choices_of_a_recipe() -> None:
    assert set(get_args(DataFormat)) == {"auto", "jsonl", *DATA_KINDS}
    assert detect_format(DataSpec("x", format="jsonl")) == "manifest"
