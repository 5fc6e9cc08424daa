"""Frames of pandas, polars and others: to pandas with the time as a column, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragged.data.tables.reader import INSTALL
from ragged.errors import DataError, MissingExtraError

DATES = ("M", "m")  # kinds of an index that is a time
Time = str | Sequence[str] | None


def to_pandas(function: str, frame: Any, target: str, time: Time) -> tuple[Any, Time]:
    """Return a frame of pandas, and the name of its column of time.

    A pandas Series becomes the target; an index of dates, periods or durations becomes a column
    named `time`, or after the index, where no column has that name.

    Args:
        function: for the error.
        frame: a DataFrame or Series of pandas, or a frame that hands out Arrow's streams.
        target: the name of a Series.
        time: the column of time, if it is named, or the columns that make it.

    Raises:
        DataError: something else.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    try:
        import pandas
        import pyarrow
    except ImportError as error:
        got, expected = f"of type {type(frame).__name__}", "pandas and pyarrow to read it"
        raise MissingExtraError.of(function, "frame", got, expected, INSTALL) from error
    if isinstance(frame, pandas.Series):
        frame = frame.to_frame(target)
    elif not isinstance(frame, pandas.DataFrame):
        if not hasattr(frame, "__arrow_c_stream__"):
            got = f"of type {type(frame).__name__}"
            expected = "a DataFrame of pandas, polars or pyarrow, or a Series of pandas"
            remedy = "Read a file with pandas.read_csv, say, or train with `ragged train`."
            if hasattr(frame, "collect"):
                remedy = "Call its collect()."
            raise DataError.of(function, "frame", got, expected, remedy)
        frame = pyarrow.table(frame).to_pandas()
    index = frame.index
    if isinstance(index, pandas.MultiIndex):
        _check_levels(function, index, time)
        return frame, time
    is_time = _is_time(index)
    names = (time,) if isinstance(time, str) else tuple(time or ())
    is_there = len(names) > 1 or (bool(names) and names[0] in frame.columns)
    if is_time and not is_there:
        time = names[0] if names else index.name or "time"
        frame = frame.rename_axis(index=time).reset_index()
    return frame, time


def _is_time(index: Any) -> bool:
    """Whether an index, or a level of one, is of dates, durations or periods."""
    import pandas

    return index.dtype.kind in DATES or isinstance(index, pandas.PeriodIndex)


def _check_levels(function: str, index: Any, time: Time) -> None:
    """Refuse an index with a level of dates where no column of time is named."""
    if any(map(_is_time, index.levels)) and not time:
        got, expected = f"indexed by {list(index.names)}", "the level of dates named in time"
        remedy = "Name it, and in group those that tell series apart."
        raise DataError.of(function, "frame", got, expected, remedy)


def with_future(frame: Any, future: Any, targets: Sequence[str]) -> Any:
    """Add rows of the future, whose targets are unknown."""
    import pandas

    known = future.drop(columns=[name for name in targets if name in future.columns])
    names = [name for name in frame.index.names if name is not None]
    frame, known = (f.reset_index() if names else f for f in (frame, known))
    return pandas.concat([frame, known], ignore_index=True)


def like(table: Any, names: Sequence[str], frame: Any, original: Any) -> Any:
    """Return a table of forecasts as a frame of the kind, and with the dtypes, of the user's.

    Args:
        table: of pandas.
        names: the columns that tell series and times, which the frame may have too.
        frame: the user's as `to_pandas` gave it.
        original: the user's.
    """
    import pandas

    dtypes = {name: frame[name].dtype for name in names if name in frame.columns}
    dtypes = {name: dtype for name, dtype in dtypes.items() if _holds(dtype, table[name])}
    if isinstance(original, pandas.DataFrame | pandas.Series):
        for name, dtype in dtypes.items():
            table[name] = _as_dtype(table[name], dtype)
        return table
    import narwhals
    import pyarrow

    given = narwhals.from_native(original)
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    found = narwhals.from_arrow(arrow, backend=given.implementation)
    casts = [
        narwhals.col(name).cast(given.schema[name])
        for name in dtypes
        if given.schema[name] != narwhals.String
    ]
    return found.with_columns(casts).to_native()


def _holds(dtype: Any, column: Any) -> bool:
    """Whether a dtype of the user's holds the labels or times of a column.

    It does not where dates were written as numbers, nor where a time to come is beyond it.
    """
    import pandas

    if isinstance(dtype, pandas.CategoricalDtype):
        return set(column) <= set(dtype.categories)
    if dtype.kind not in "iuf":
        return True
    if column.dtype.kind not in "iuf":
        return False
    numbers = column.to_numpy()
    return dtype.kind == "f" or bool((_wrapped(numbers, dtype) == numbers).all())


def _wrapped(numbers: np.ndarray, dtype: Any) -> np.ndarray:
    """Return numbers in a dtype of integers, whatever becomes of those beyond it."""
    with np.errstate(invalid="ignore"):
        return numbers.astype(getattr(dtype, "numpy_dtype", dtype))


def _as_dtype(column: Any, dtype: Any) -> Any:
    """Return labels and periods as the user wrote them; dates that were text stay dates."""
    import pandas

    if isinstance(dtype, pandas.PeriodDtype):
        return column.dt.to_period(dtype.freq)
    is_category = isinstance(dtype, pandas.CategoricalDtype)
    is_text = dtype.kind == "O" and not is_category
    return column if is_text or isinstance(dtype, pandas.StringDtype) else column.astype(dtype)
