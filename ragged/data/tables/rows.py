"""The rows of one series: in the order of time, each time once, and cut at gaps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ragged.data.sources import Columns
from ragged.data.tables.frequency import GAP, HOUR, Frequency, find_frequency
from ragged.errors import DataError

DUPLICATES = ("error", "first", "last", "mean")
GAPS = ("error", "split", "keep")
SHORTEST_DATE = 10_000  # smaller numbers are years, or no dates


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a series.

    Args:
        name: of the series.
        seconds: `(rows,)` float64: since 1970 of dates, else the numbers of the table.
        dates: the dates as a pandas DatetimeIndex, or None.
        columns: for each column `(rows,)` float64.
        part_of: the series of which gaps in time made parts, or None.
        labels: the cells of the columns that tell series apart.
    """

    name: str
    seconds: np.ndarray
    dates: Any | None
    columns: Columns
    part_of: str | None = None
    labels: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, rows: Any) -> Rows:
        """Return some of the rows, in another order or not."""
        dates = None if self.dates is None else self.dates[rows]
        columns = {column: values[rows] for column, values in self.columns.items()}
        return replace(self, seconds=self.seconds[rows], dates=dates, columns=columns)

    def shown(self, row: int) -> str:
        """Return the time of a row for a message."""
        return f"{self.seconds[row]:.15g}" if self.dates is None else str(self.dates[row])


def group_rows(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Group the indices of rows by label, labels in order of first appearance.

    >>> {name: rows.tolist() for name, rows in group_rows(["b", "a", "b"]).items()}
    {'b': [0, 2], 'a': [1]}
    """
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return {label: np.array(rows) for label, rows in groups.items()}


def in_order(rows: Rows, column: str, *, sort: bool) -> Rows:
    """Return the rows in the order of time; those of one time keep theirs.

    Raises:
        DataError: rows in another order, and `sort` is false.
    """
    wrong = np.diff(rows.seconds) < 0
    if not wrong.any():
        return rows
    if not sort:
        step = int(np.argmax(wrong)) + 1
        remedy = "Sort the rows, or set sort to true."
        raise _refuse_time(rows, column, step, "a greater value on each row", remedy)
    return rows.take(np.argsort(rows.seconds, kind="stable"))


def without_duplicates(
    rows: Rows, column: str, duplicates: str, grouped: bool, words: Collection[str] = ()
) -> Rows:
    """Return one row for each time.

    Args:
        rows: in the order of time.
        column: of time, for the error.
        duplicates: "error", or which row stays: "first", "last", or the "mean" of the known values.
        grouped: whether the table has a column that tells series apart, for the error.
        words: columns of labels, which have no mean: the first one stays.

    Raises:
        DataError: a time that is there twice, and `duplicates` is "error".
    """
    is_new = np.concatenate([np.ones(min(1, len(rows)), dtype=bool), np.diff(rows.seconds) > 0])
    if is_new.all():
        return rows
    if duplicates == "error":
        columns = "their other columns" if grouped else "their column"
        remedy = (
            f"If the rows are of several series, name {columns} in group. "
            "Else: Set duplicates to first, last or mean."
        )
        step = int(np.argmin(is_new))
        raise _refuse_time(rows, column, step, "a greater value on each row", remedy)
    starts = np.flatnonzero(is_new)
    stops = np.append(starts[1:], len(rows))
    if duplicates == "last":
        return rows.take(stops - 1)
    first = rows.take(starts)
    if duplicates == "first":
        return first
    means = {name: _means(v, starts) for name, v in rows.columns.items() if name not in words}
    return replace(first, columns={**first.columns, **means})


def frequency_of(rows: Rows, named: Frequency | None) -> Frequency:
    """Return the usual step of a series, as named or found."""
    has_dates = rows.dates is not None
    if named is not None and has_dates:
        return named
    return find_frequency(rows.seconds, rows.dates)


def gaps_of(rows: Rows, frequency: Frequency) -> np.ndarray:
    """Return the rows that follow a gap."""
    return np.flatnonzero(frequency.steps(rows.seconds, rows.dates) > frequency.gap) + 1


def split_at_gaps(rows: Rows, gaps: np.ndarray) -> list[Rows]:
    """Return the sections between gaps, numbered; a series without gaps keeps its name."""
    if not len(gaps):
        return [rows]
    edges = [0, *map(int, gaps), len(rows)]
    return [
        replace(rows.take(slice(start, stop)), name=f"{rows.name} ({number})", part_of=rows.name)
        for number, (start, stop) in enumerate(pairwise(edges), start=1)
    ]


def refuse_gap(rows: Rows, column: str, row: int, frequency: Frequency) -> DataError:
    """Return the error for a gap before a row."""
    remedy = (
        "Fill the gap, or set gaps to split; where rows come at any time, set gaps to keep: the "
        "time since the row before becomes a column."
    )
    if rows.dates is None and (rows.seconds[row] >= SHORTEST_DATE or rows.seconds[row] % 1):
        remedy += " If the numbers are dates, name their form in time_format, as '%y%m%d'."
    return _refuse_step(rows, column, row, frequency, remedy)


def check_not_denser(rows: Rows, column: str, frequency: Frequency) -> None:
    """Refuse a series most of whose steps are a part of the usual one, as hours are of days.

    Raises:
        DataError: it is one.
    """
    steps = frequency.steps(rows.seconds, rows.dates)
    if len(steps) and np.median(steps) < 1 / GAP:
        remedy = "Give a row for each of them, or set frequency to that of the rows."
        raise _refuse_step(rows, column, int(np.argmin(steps)) + 1, frequency, remedy)


def time_since_row_before(rows: Rows) -> np.ndarray:
    """Return the hours, or units of numbers, since the row before; of the first row, as usual."""
    steps = np.diff(rows.seconds) / (1.0 if rows.dates is None else HOUR)
    return np.concatenate(
        [np.full(min(1, len(rows)), np.median(steps) if len(steps) else 0), steps]
    )


def with_statics(rows: Rows, statics: Sequence[str], shown: Callable[[str, float], str]) -> Rows:
    """Repeat static values on every row; some of the rows may have none.

    Args:
        rows: of a series.
        statics: the names of the columns.
        shown: gives a value of a column for the error.

    Raises:
        DataError: a static column with two values.
    """
    columns = dict(rows.columns)
    for column in statics:
        known = columns[column][~np.isnan(columns[column])]
        if known.size and known.min() < known.max():
            both = shown(column, known.min()), shown(column, known.max())
            got = f"{' and '.join(both)} in event '{rows.name}'"
            expected, remedy = "one value an event", "Make it a known or past column."
            raise DataError.of("Tables", column, got, expected, remedy)
        columns[column] = np.full(len(rows), known[0] if known.size else np.nan)
    return replace(rows, columns=columns)


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the mean of the known values from each start to the next; NaN without any."""
    known = ~np.isnan(values)
    counts = np.add.reduceat(known.astype(np.float64), starts)
    sums = np.add.reduceat(np.where(known, values, 0.0), starts)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _duration(step: float, rows: Rows) -> str:
    if rows.dates is None:
        return f"{step:.15g}"
    return f"{step / HOUR:.15g} hour{'' if step == HOUR else 's'}"


def _refuse_step(rows: Rows, column: str, row: int, frequency: Frequency, remedy: str) -> DataError:
    step = rows.seconds[row] - rows.seconds[row - 1]
    got = f"{_duration(step, rows)} after the step before (event '{rows.name}', step {row})"
    usual = _duration(frequency.seconds, rows)
    if frequency.unit == "month":
        usual = f"{frequency.size:g} month{'' if frequency.size == 1 else 's'}"
    return DataError.of("Tables", column, got, f"steps of about {usual}", remedy)


def _refuse_time(rows: Rows, column: str, step: int, expected: str, remedy: str) -> DataError:
    before, after = (rows.shown(row) for row in (step - 1, step))
    got = f"{after} after {before} (event '{rows.name}', step {step})"
    return DataError.of("Tables", column, got, expected, remedy)
