"""A row's steps in the event it was cut from, and its values in the units of the source."""

from __future__ import annotations

import numpy as np

from ragged.data import EncoderDecoderDataModule, Row
from ragged.data.normalization import hold


def row_steps(row: Row) -> slice:
    """The steps of the event that the row holds, context and horizon."""
    return slice(row.start, row.stop)


def horizon_steps(row: Row) -> slice:
    """The steps of the event that are the row's horizon."""
    return slice(row.split, row.stop)


def last_observed(row: Row, column: str) -> float:
    """The last known value of a column before the horizon; NaN if none is."""
    return float(hold(row.event.columns[column][: row.split])[-1])


def inverse(
    data: EncoderDecoderDataModule, column: str, values: np.ndarray, row: Row
) -> np.ndarray:
    """Give normalised values of a row's column their unit back."""
    return data.normalization.inverse(column, values, row)
