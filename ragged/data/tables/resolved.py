"""What a user leaves open and the data decide on: kept, so that the next table is read alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragged.data.sources import Series
from ragged.data.tables import calendar as calendars
from ragged.data.tables.categories import Categories
from ragged.data.tables.frequency import Frequency
from ragged.data.tables.rows import Rows
from ragged.data.tables.times import Times


@dataclass(frozen=True)
class Resolved:
    """What the data decide on where a user leaves it open; None is open.

    Args:
        time_format: the form of dates; None also where the next table needs none.
        frequency: the usual step; None also where series differ in theirs.
        calendar: the cycles whose columns are added.
        categories: the columns of words, with the labels of each.
    """

    time_format: str | None = None
    frequency: Frequency | None = None
    calendar: tuple[str, ...] | None = None
    categories: Categories | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """Series that were read.

    Args:
        series: those with dates sorted by their start.
        resolved: what the data decided on, with the calendar and the columns of words.
        notes: for the user.
        has_dates: whether their time is of dates.
        are_hours: whether it is of durations.
        in_folder: whether the tables are of a folder.
        unknown_labels: those of the notes that are about labels.
    """

    series: list[Series]
    resolved: Resolved
    notes: list[str]
    has_dates: bool
    are_hours: bool
    in_folder: bool = False
    unknown_labels: tuple[str, ...] = ()


def resolve(
    options: Resolved,
    categories: Categories,
    times: Sequence[Times],
    series: Sequence[Rows],
    frequencies: Sequence[Frequency],
) -> Resolved:
    """Return what options say, and where they leave it open what the data show."""
    time_format = options.time_format
    if time_format is None and len({time.format for time in times}) == 1:
        time_format = times[0].format
    cycles = options.calendar
    if times[0].dates is None:
        cycles = ()
    elif cycles is None:
        ends = [second for rows in series for second in (rows.seconds[0], rows.seconds[-1])]
        usual = min(frequencies, key=lambda frequency: frequency.seconds)
        cycles = tuple(calendars.useful_cycles(usual, max(ends) - min(ends)))
    frequency = options.frequency
    found = {frequency for frequency in frequencies if frequency.name}  # a single row has none
    if frequency is None and times[0].dates is not None and len(found) == 1:
        (frequency,) = found
    return Resolved(time_format, frequency, cycles, categories)
