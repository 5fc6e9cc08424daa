"""Samples for the tests of batches and tables, and what those refuse."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ragged.data import Sample, Series
from ragged.data.tables.dialect import Dialect
from ragged.data.tables.reader import read_table


def refuses(error: type[Exception], message: str):
    return pytest.raises(error, match=re.escape(message))


def numbers(path: Path, *columns: str, **dialect: object) -> list[list[float]]:
    table = read_table(path, Dialect(**dialect))
    return [table.numbers(column, may_be_empty=True).tolist() for column in columns]


def row(context: int, horizon: int, value: float = 1.0) -> Sample:
    event = Series("r", np.arange(float(context + horizon)), {})
    return Sample(
        np.full((context, 3), value),
        np.full((horizon, 2), value + 1),
        np.full((horizon, 1), value + 2),
        event,
        context,
    )
