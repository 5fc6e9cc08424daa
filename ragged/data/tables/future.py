"""The rows of a series after its last known target: those given, and those that follow in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragged.data.horizons import first_unknown_target
from ragged.data.sources import Roles
from ragged.data.tables.frequency import DAY, Frequency
from ragged.data.tables.rows import Rows
from ragged.errors import DataError

FUTURE = "Give the rows of the future, with the target left empty."
UNEVEN = 1e-6  # the share by which steps of one length may differ


@dataclass(frozen=True)
class Future:
    """How many steps are forecast after the last known target of each series.

    Args:
        horizon: the number of steps; None = the rows given, and `default` where there are none.
        default: the number of steps of a series without rows to forecast; None = no steps.
    """

    horizon: int | None = None
    default: int | None = None

    def steps(self, given: int) -> int:
        """Return the number of steps for a series with some rows given."""
        if self.horizon is not None:
            return self.horizon
        return given or self.default or 0

    def rows(
        self, rows: Rows, roles: Roles, frequency: Frequency, *, fills: bool, even: bool
    ) -> Rows:
        """Return a series with exactly the steps to forecast after its last known target.

        Args:
            rows: a series.
            roles: of its columns.
            frequency: its usual step.
            fills: whether unknown cells before the last known target are allowed.
            even: whether gaps were looked for, so that steps are of one length.

        Raises:
            DataError: a target unknown from the start, or known again after it is not; further
                steps that need known values, or whose times do not follow from the rows.
        """
        split = first_unknown_target(rows, roles, fills=fills)
        if split is not None:
            _check_unknown_to_the_end(rows, roles, split)
        known = len(rows) if split is None else split
        wanted = known + self.steps(len(rows) - known)
        if wanted <= len(rows):
            return rows.take(slice(0, wanted))
        missing = wanted - len(rows)
        if roles.known:
            steps = f"{missing} of the {wanted - known} steps to forecast"
            got = f"unknown for {steps} in '{rows.name}'"
            expected = "a value at every step to forecast"
            raise DataError.of("Tables", roles.known[0], got, expected, FUTURE)
        if not even:
            _check_even(rows)
        return _extended(rows, roles, frequency, missing)


def _extended(rows: Rows, roles: Roles, frequency: Frequency, steps: int) -> Rows:
    """Add rows at the times that follow; static columns are repeated, others are unknown."""
    seconds, dates = times_after(rows, frequency, steps)
    columns = {}
    for name, values in rows.columns.items():
        last = values[-1] if name in roles.static else np.nan
        columns[name] = np.concatenate([values, np.full(steps, last)])
    all_dates = None if dates is None else rows.dates.append(dates)  # type: ignore[union-attr]
    all_seconds = np.concatenate([rows.seconds, seconds])
    return replace(rows, seconds=all_seconds, dates=all_dates, columns=columns)


def times_after(rows: Rows, frequency: Frequency, steps: int) -> tuple[np.ndarray, Any | None]:
    """Return the seconds and the dates of the steps after the last row.

    Raises:
        DataError: a single row, which has no step.
    """
    if not np.isfinite(frequency.size):
        got, expected = f"on one row of '{rows.name}'", "two rows, from which the step is taken"
        raise DataError.of("Tables", "time", got, expected, f"Name the frequency. Or: {FUTURE}")
    if rows.dates is None:
        return rows.seconds[-1] + frequency.size * np.arange(1, steps + 1), None
    dates = dates_after(rows.dates, frequency, steps)
    utc = dates if dates.tz is None else dates.tz_convert("UTC")
    return utc.as_unit("us").asi8 / 1e6, dates


def dates_after(dates: Any, frequency: Frequency, steps: int) -> Any:
    """Return the dates of the steps after the last one.

    Days and longer steps keep their time of day where clocks change, months their place in the
    month; shorter steps are of one duration.

    >>> import pandas
    >>> month_ends = pandas.DatetimeIndex(["2023-12-31", "2024-01-31"])
    >>> dates_after(month_ends, Frequency("MS", 1.0, "month"), 2).strftime("%Y-%m-%d").tolist()
    ['2024-02-29', '2024-03-31']
    """
    import pandas

    zone, last = dates.tz, dates[-1]
    if frequency.unit == "" and frequency.size % DAY:  # of one duration
        return last + pandas.to_timedelta(frequency.size * np.arange(1, steps + 1), unit="s")
    walls = dates.tz_localize(None)
    wall = walls[-1]
    offset = pandas.DatetimeIndex(walls, freq="infer").freq
    if frequency.unit == "business day":
        offset = pandas.offsets.CustomBusinessDay(int(frequency.size), weekmask=frequency.days)
    if offset is not None:
        after = pandas.DatetimeIndex([wall + k * offset for k in range(1, steps + 1)])
    elif frequency.unit == "month":
        after = _months_after(walls, int(frequency.size), steps)
    else:
        after = wall + pandas.to_timedelta(frequency.size * np.arange(1, steps + 1), unit="s")
    if zone is None:
        return after
    return after.tz_localize(zone, ambiguous=np.ones(steps, bool), nonexistent="shift_forward")


def _months_after(dates: Any, months: int, steps: int) -> Any:
    """Return dates some months apart: at the ends of months if all were, else on the last's day."""
    import pandas

    after = [dates[-1] + pandas.DateOffset(months=months * k) for k in range(1, steps + 1)]
    index = pandas.DatetimeIndex(after)
    return index + pandas.offsets.MonthEnd(0) if dates.is_month_end.all() else index


def _check_unknown_to_the_end(rows: Rows, roles: Roles, split: int) -> None:
    """Refuse a target that is known again: what comes before is a hole, and no horizon."""
    for name in roles.target:
        unknown = np.isnan(rows.columns[name][split:])
        if unknown[0] and not unknown.all():
            got = f"unknown in '{rows.name}' at step {split}, and known further on"
            remedy = "Fill the cell, or set missing to ffill."
            raise DataError.of("Tables", name, got, "unknown to the end", remedy)


def _check_even(rows: Rows) -> None:
    """Refuse to go on where rows come at any time."""
    steps = np.diff(rows.seconds)
    if len(steps) and np.ptp(steps) > UNEVEN * np.abs(steps).max() and rows.dates is None:
        raise _refuse_uneven(rows)
    if len(steps) and rows.dates is not None and steps.max() > 1.5 * steps.min():
        raise _refuse_uneven(rows)


def _refuse_uneven(rows: Rows) -> DataError:
    got = f"uneven in '{rows.name}', so that the next times are not known"
    return DataError.of("Tables", "time", got, "the times to forecast", FUTURE)
