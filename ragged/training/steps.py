"""A row's steps in the event it was cut from, and its values in the units of the source."""

from __future__ import annotations

import numpy as np

from ragged.data import EncoderDecoderDataModule, Row


def row_steps(row: Row) -> slice:
    """The steps of the event that the row holds, context and horizon."""
    return slice(row.start, row.stop)


def context_steps(row: Row) -> slice:
    """The steps of the event that are the row's context."""
    return slice(row.start, row.split)


def horizon_steps(row: Row) -> slice:
    """The steps of the event that are the row's horizon."""
    return slice(row.split, row.stop)


def last_observed(row: Row, column: str) -> float:
    """The last value of a column in the context that is known; NaN if none is."""
    values = row.event.columns[column][context_steps(row)]
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else float("nan")


def inverse(
    data: EncoderDecoderDataModule, column: str, values: np.ndarray, row: Row
) -> np.ndarray:
    """Give normalised values of a row's column their unit back."""
    return data.normalization.inverse(column, values, row)
