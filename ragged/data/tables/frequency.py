"""The usual step of a series, and how many of them lie between its rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.errors import OptionError

GAP = 1.5  # a longer step, in units of the usual one, is a gap
HOLIDAYS = 5  # business days from one row to the next that are no gap yet: four holidays
HOUR, DAY = 3600.0, 86400.0  # seconds
SECONDS = {"W": 7 * DAY, "D": DAY, "h": HOUR, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
MONTHS = {"YS": 12, "YE": 12, "QS": 3, "QE": 3, "MS": 1, "ME": 1}
NAMES = (*MONTHS, "B", *SECONDS)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BUSINESS_DAYS = " ".join(DAYS[:5])
WEEKS = 3  # that show which other days of the week have no rows
SEASONS = (364 * DAY, 7 * DAY, DAY, HOUR, 60.0)  # the first of which has no more steps than:
LONGEST_SEASON = 96  # steps, a day of quarters of an hour
MAX_DAY_SHIFT = 4  # days by which the dates of months may differ, as last Fridays do


@dataclass(frozen=True)
class Frequency:
    """A usual step.

    Args:
        name: as pandas writes it: "MS", "B" or "15min"; a number where there are no dates.
        size: months, business days, seconds, or units of the numbers.
        unit: "month", "business day" or "".
        days: the days of the week that are business days.
    """

    name: str
    size: float
    unit: str = ""
    days: str = BUSINESS_DAYS

    @property
    def gap(self) -> float:
        """The most usual steps from one row to the next that are no gap."""
        return float(HOLIDAYS) if self.unit == "business day" else GAP

    @property
    def seconds(self) -> float:
        """About how long a step is."""
        return self.size * {"month": 30.4 * DAY, "business day": DAY}.get(self.unit, 1.0)

    @property
    def season(self) -> int:
        """The steps of a season; 1 without one: of dates a year, a week, a day or an hour.

        >>> [parse_frequency(name).season for name in ("YS", "QS", "MS", "W", "D", "B", "h", "min")]
        [1, 4, 12, 52, 7, 5, 24, 60]
        """
        if self.unit == "business day":
            return len(self.days.split()) if self.size == 1 else 1
        cycles = [12.0] if self.unit == "month" else SEASONS
        whole = [int(cycle / self.size) for cycle in cycles if cycle % self.size == 0]
        return next((steps for steps in whole if 2 <= steps <= LONGEST_SEASON), 1)

    def steps(self, seconds: np.ndarray, dates: Any | None) -> np.ndarray:
        """Return the usual steps from each row to the next, `(rows - 1,)` float64."""
        if self.unit == "month":
            return np.diff(_months(dates)) / self.size
        if self.unit == "business day":
            return _days_between(_days(dates), self.days).astype(np.float64)
        return np.diff(seconds) / self.size

    def __str__(self) -> str:
        return self.name


def parse_frequency(name: str) -> Frequency:
    """Return a frequency that a user names.

    Raises:
        OptionError: a name that is none of `NAMES` with or without a number in front, nor a list of
            days of the week.

    >>> parse_frequency("15min").seconds, parse_frequency("Sun Mon Tue Wed Thu").season
    (900.0, 5)
    """
    if set(name.split()) <= set(DAYS) and name.split():
        return Frequency(name, 1.0, "business day", name)
    match = re.fullmatch(r"(\d*)([A-Za-z]+)", name)
    if match is None or match[2] not in NAMES or match[1] == "0":
        expected = f"auto or one of {NAMES}, as 15min, or days of the week, as {BUSINESS_DAYS}"
        raise OptionError.of("Tables", "frequency", repr(name), expected, "Name one.")
    count, unit = int(match[1] or 1), match[2]
    if unit in MONTHS:
        return Frequency(name, MONTHS[unit] * count, "month")
    if unit == "B":
        return Frequency(name, count, "business day")
    return Frequency(name, SECONDS[unit] * count)


def find_frequency(seconds: np.ndarray, dates: Any | None = None) -> Frequency:
    """Find the usual step of a series: months, business days, or the median.

    Args:
        seconds: `(rows,)` increasing; the numbers of a series without dates.
        dates: its dates, a pandas DatetimeIndex.

    >>> find_frequency(np.array([0.0, 15.0, 30.0, 90.0])).size
    15.0
    """
    steps = np.diff(seconds)
    if not steps.size:
        return Frequency("", np.inf)
    median = float(np.sort(steps)[(len(steps) - 1) // 2])
    if dates is None:
        return Frequency(f"{median:.15g}", median)
    return _find_months(median, dates) or _find_business_days(median, dates) or _even(median)


def _months(dates: Any) -> np.ndarray:
    return np.asarray(12 * dates.year + dates.month, dtype=np.float64)


def _find_months(median: float, dates: Any) -> Frequency | None:
    """Return whole months if all rows are of about the same day of a month."""
    if median < 27 * DAY:
        return None
    shifts = (dates.day, dates.day - dates.days_in_month)  # from the start, and from the end
    if min(int(shift.max() - shift.min()) for shift in shifts) > MAX_DAY_SHIFT:
        return None
    steps = np.sort(np.diff(_months(dates)))
    size = int(steps[(len(steps) - 1) // 2])
    if size < 1:
        return None
    unit = next(u for u in ("YS", "QS", "MS") if size % MONTHS[u] == 0)
    count = size // MONTHS[unit]
    return Frequency(f"{count if count > 1 else ''}{unit}", size, "month")


def _days(dates: Any) -> np.ndarray:
    """Return the days of dates as their clocks show them."""
    return dates.tz_localize(None).to_numpy(dtype="datetime64[D]")  # type: ignore[no-any-return]


def _days_between(days: np.ndarray, of_week: str) -> np.ndarray:
    """Return the steps from each day to the next, of some days of the week."""
    return np.busday_count(days[:-1], days[1:], weekmask=of_week)


def _find_business_days(median: float, dates: Any) -> Frequency | None:
    """Return the days of the week on which all rows lie, if most others are passed over alone."""
    if median != DAY:
        return None
    seen = " ".join(DAYS[number] for number in np.unique(dates.day_of_week))
    if len(seen.split()) == len(DAYS):
        return None
    days = _days(dates)
    longer = np.flatnonzero(np.diff(days).astype(np.int64) > 1)

    def are_of(days_of_week: str) -> bool:
        steps = _days_between(days, days_of_week)[longer]
        return set(seen.split()) <= set(days_of_week.split()) and 2 * sum(steps == 1) > len(longer)

    if are_of(BUSINESS_DAYS):
        return Frequency("B", 1.0, "business day")
    if len(longer) >= WEEKS and are_of(seen):
        return Frequency(seen, 1.0, "business day", seen)
    return None


def _even(median: float) -> Frequency:
    """Return a step of one length, in the longest unit of which it is a whole number.

    >>> [str(_even(seconds)) for seconds in (86400.0, 900.0, 90.5, 0.0159999999999627)]
    ['D', '15min', '90500ms', '16ms']
    """
    steps = max(1, round(median * 1e6))  # whole microseconds
    sizes = {name: round(size * 1e6) for name, size in SECONDS.items()}
    name, size = next((name, size) for name, size in sizes.items() if steps % size == 0)
    count = steps // size
    return Frequency(f"{count if count > 1 else ''}{name}", steps / 1e6)
