"""Calendar columns: where in its cycles a date lies, as sine and cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragged.data.sources import Columns
from ragged.data.tables.frequency import DAY, Frequency
from ragged.errors import OptionError

# The length of each cycle, and the longest step for which it tells something, in seconds.
CYCLES = {
    "time_of_day": (DAY, DAY / 2),
    "day_of_week": (7 * DAY, DAY),
    "day_of_year": (365.25 * DAY, 7 * DAY),
    "month": (365.25 * DAY, 183 * DAY),
}


def calendar_columns(dates: Any, cycles: Sequence[str]) -> Columns:
    """Return the sine and the cosine of each date in each cycle, `(rows,)` float64.

    Args:
        dates: a pandas DatetimeIndex, in its own time zone.
        cycles: of `CYCLES`.
    """
    columns: Columns = {}
    for cycle in cycles:
        angle = 2 * np.pi * _phase(dates, cycle)
        columns |= {f"{cycle} (sin)": np.sin(angle), f"{cycle} (cos)": np.cos(angle)}
    return columns


def names(cycles: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of cycles.

    >>> names(["month"])
    ('month (sin)', 'month (cos)')
    """
    return tuple(f"{cycle} ({part})" for cycle in cycles for part in ("sin", "cos"))


def useful_cycles(frequency: Frequency, span: float) -> list[str]:
    """Return the cycles that data of a frequency show.

    A cycle is useful if a step is short beside it and the data span it once at least: beyond what
    training saw of a cycle, its sine and cosine would be new to a model.

    Args:
        frequency: of the data.
        span: of all data, in seconds.

    >>> useful_cycles(Frequency("h", 3600.0), span=30 * 86400.0)
    ['time_of_day', 'day_of_week']
    """
    step = frequency.seconds
    useful = [c for c, (length, longest) in CYCLES.items() if step <= longest and span >= length]
    return [cycle for cycle in useful if cycle != "month" or "day_of_year" not in useful]


def named_cycles(calendar: str | Sequence[str]) -> tuple[str, ...] | None:
    """Return the cycles that a user names, None for auto.

    Raises:
        OptionError: a calendar that is neither auto, none, nor a list of cycles.
    """
    if calendar in ("auto", "none"):
        return None if calendar == "auto" else ()
    if isinstance(calendar, str) or not set(calendar) <= set(CYCLES):
        expected = f"auto, none, or a list of {list(CYCLES)}"
        raise OptionError.of("Tables", "calendar", repr(calendar), expected, "Name some.")
    return tuple(calendar)


def _phase(dates: Any, cycle: str) -> np.ndarray:
    """Return where in a cycle each date lies, from 0 to 1."""
    time_of_day = (dates.hour + dates.minute / 60 + dates.second / 3600) / 24
    if cycle == "time_of_day":
        return np.asarray(time_of_day, dtype=np.float64)
    if cycle == "day_of_week":
        return np.asarray(dates.day_of_week / 7, dtype=np.float64)
    if cycle == "day_of_year":
        return np.asarray((dates.day_of_year - 1) / 365.25, dtype=np.float64)
    return np.asarray((dates.month - 1) / 12, dtype=np.float64)
