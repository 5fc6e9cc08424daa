"""Tables: events from CSV or Parquet files or pandas frames, with strict checks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ragged.data.reading import Table, group_rows, read_tables, table_from_frame, timestamp
from ragged.data.sources import (
    Roles,
    Series,
    Source,
    check_increasing,
    check_known,
    check_targets,
)
from ragged.errors import DataError, OptionError

HOUR = 3600.0  # seconds
GAP = 1.5  # a longer step, in units of an event's usual one, is a gap
FILL = "Fill the cell, or set missing to ffill."


class Tables(Source):
    """Events from tables of your own, one row a step, one column a quantity.

    | in the table | what happens |
    |---|---|
    | a column is missing, or there twice | refused; the error gives the nearest name |
    | no file, no rows, another separator, a row cut short | refused |
    | a blank line in a CSV | passed over; in a single column refused, write "" for an empty cell |
    | two files of a folder that differ in their suffix only | refused |
    | a cell that is no number, infinite, or has a decimal comma | refused: file, line, column |
    | an empty cell | refused or forward-filled, by `missing` |
    | an empty cell in `read` | the same, but targets, and past columns over the horizon, may be |
    | time that does not increase within an event | refused |
    | a step 1.5 times longer than the event's usual (median) one | refused or split, by `gaps` |
    | a static column that changes within an event | refused |
    | a constant column | kept, normalised to 0, in the data module's notes |
    | a column that is named in no role | ignored |
    | an event too short to be cut | left to the data module's `short_events` |

    With `missing: ffill` inputs, and targets in the context, are forward-filled in their event; the
    values before the first known one are the mean of the training steps. An unknown target in the
    horizon counts neither in the loss nor in scores.

    Args:
        path: a `.csv`, `.csv.gz` or `.parquet` file, or a folder of such. CSV has commas, decimal
            points and a header.
        target: the columns to forecast.
        known: columns that are known over the horizon too.
        past: columns that are known in the context only.
        static: columns with one number an event.
        group: the column that names the event of a row. Without it each file is one event, named
            after the file. Events of a folder are named file/group.
        time: the column of time: numbers, or ISO 8601 datetimes, which become hours since the
            start of the event. Without it steps are counted.
        units: the unit of each column, and of `time`, for labels.
        missing: "error" refuses empty cells; "ffill" repeats the last known value.
        gaps: "error" refuses gaps in time; "split" makes the sections events of their own.

    Raises:
        OptionError: no target, a column in two roles, a unit of a column without a role, an
            unknown `missing` or `gaps`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> text = "well,day,rain,level\\nb,1,0.0,2.5\\nb,2,4.0,2.4\\na,1,1.0,7.0\\n"
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "wells.csv")
        ...     _ = path.write_text(text)
        ...     wells = Tables(str(path), ["level"], known=["rain"], group="well", time="day")
        ...     events = wells.events()
        >>> [(event.name, event.columns["level"].tolist()) for event in events]
        [('b', [2.5, 2.4]), ('a', [7.0])]
    """

    def __init__(
        self,
        path: str,
        target: Sequence[str],
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        static: Sequence[str] = (),
        group: str | None = None,
        time: str | None = None,
        units: dict[str, str] | None = None,
        missing: Literal["error", "ffill"] = "error",
        gaps: Literal["error", "split"] = "error",
    ) -> None:
        roles = {"target": target, "known": known, "past": past, "static": static}
        _check_roles(roles)
        _check_choice("missing", missing, ("error", "ffill"))
        _check_choice("gaps", gaps, ("error", "split"))
        self.path, self.group, self.time = path, group, time
        self.missing, self.gaps = missing, gaps
        self._roles = Roles(**{role: tuple(columns) for role, columns in roles.items()})
        self._units = _check_units(units or {}, [*self._roles.columns, *([time] if time else [])])
        self._table: Table | None = None
        self._notes: list[str] = []
        self._has_dates = False

    @classmethod
    def from_frame(cls, frame: Any, target: Sequence[str], **options: Any) -> Tables:
        """Create a source of the events in a pandas DataFrame.

        Args:
            frame: the table; an index with a name is a column of it.
            target: as in the class.
            **options: the other arguments of the class.

        Raises:
            DataError: no frame, or one without rows.

        Example:
            >>> import pandas
            >>> frame = pandas.DataFrame({"rain": [0.0, 4.0], "level": [2.5, 2.4]})
            >>> (event,) = Tables.from_frame(frame, ["level"], known=["rain"]).events()
            >>> event.columns["rain"]
            array([0., 4.])
        """
        source = cls("", target, **options)
        source._table = table_from_frame(frame)
        return source

    @property
    def roles(self) -> Roles:
        """The roles given."""
        return self._roles

    @property
    def time_label(self) -> str:
        """The column of time with its unit; whether it has dates is known after reading."""
        if self.time is None:
            return "step"
        if self._has_dates:
            return "time since the start of the event (h)"
        return f"{self.time} ({self._units[self.time]})" if self.time in self._units else self.time

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column; "-" where none was given."""
        return {column: self._units.get(column, "-") for column in self._roles.columns}

    @property
    def notes(self) -> list[str]:
        """How many gaps split events, once they were read."""
        return list(self._notes)

    def events(self) -> list[Series]:
        """The events of the table, those with dates sorted by their start.

        Raises:
            DataError: what is refused in the table above.
            MissingExtraError: a Parquet file without pandas and pyarrow.
        """
        if self._table is not None:
            events = self._split_and_sort(self._events(self._table))
        else:
            events = self.read(Path(self.path))
        if self.missing == "error":
            check_targets(events, self.roles)
            check_known(events, self.roles.past, "a value at every step", FILL)
        return events

    def read(self, path: Path) -> list[Series]:
        """Read tables of the same columns; an empty cell of a target or past column becomes NaN.

        Args:
            path: a file or a folder, as in the class.

        Raises:
            DataError: what is refused in the table above.
            MissingExtraError: a Parquet file without pandas and pyarrow.
        """
        events = []
        has_groups_in_files = Path(path).is_dir() and self.group is not None
        for table in read_tables(Path(path)):
            events += self._events(table, f"{table.name}/" if has_groups_in_files else "")
        return self._split_and_sort(events)

    def _events(self, table: Table, prefix: str = "") -> list[Series]:
        """Return the whole events of one table, their names after a prefix."""
        may_be_empty = self.roles.past + self.roles.target
        if self.missing == "ffill":
            may_be_empty = self.roles.columns
        columns = {
            column: table.numbers(column, may_be_empty=column in may_be_empty, fill=FILL)
            for column in self.roles.columns
        }
        steps, dates = table.times(self.time) if self.time else (None, None)
        labels = table.labels(self.group) if self.group else [table.name] * len(table.lines)
        events = []
        for label, rows in group_rows(labels).items():
            name = prefix + label
            time = np.arange(float(len(rows))) if steps is None else steps[rows]
            event_dates = None if dates is None else [dates[row] for row in rows]
            check_increasing(name, time, str(self.time), event_dates)
            hours = time if event_dates is None else (time - time[0]) / HOUR
            start = None if event_dates is None else event_dates[0]
            event = Series(name, hours, {c: values[rows] for c, values in columns.items()}, start)
            events.append(self._with_statics(event))
        return events

    def _with_statics(self, event: Series) -> Series:
        """Repeat the static values of an event at every step; some of its rows may be empty."""
        columns = dict(event.columns)
        for column in self.roles.static:
            known = columns[column][~np.isnan(columns[column])]
            if known.size and known.min() < known.max():
                got = f"{known.min():.15g} and {known.max():.15g} in event '{event.name}'"
                expected, remedy = "one value an event", "Make it a known or past column."
                raise DataError.of("Tables", column, got, expected, remedy)
            columns[column] = np.full(event.steps, known[0] if known.size else np.nan)
        return replace(event, columns=columns)

    def _split_and_sort(self, events: list[Series]) -> list[Series]:
        """Split events at their gaps, and sort those with dates by their start."""
        sections = [section for event in events for section in self._split_at_gaps(event)]
        note = f"gaps in time made {len(sections)} events of {len(events)}"
        self._notes = [note] if len(sections) > len(events) else []
        dated = [event for event in sections if event.start is not None]
        self._has_dates = bool(dated)
        if 0 < len(dated) < len(sections):
            got, expected = "numbers in some files and datetimes in others", "the same in all"
            raise DataError.of("Tables", str(self.time), got, expected, "Write one kind.")
        if dated:
            sections.sort(key=lambda section: timestamp(section.start or datetime.min))
        return sections

    def _split_at_gaps(self, event: Series) -> list[Series]:
        """Return an event, or its sections between gaps."""
        steps = np.diff(event.time)
        median_step = np.sort(steps)[(len(steps) - 1) // 2] if steps.size else np.inf
        gaps = np.flatnonzero(steps > GAP * median_step)
        if not gaps.size:
            return [event]
        if self.gaps == "error":
            step = int(gaps[0]) + 1
            gap = f"{steps[step - 1]:.15g}"
            got = f"{gap} after the step before (event '{event.name}', step {step})"
            expected = f"steps of about {median_step:.15g}" + (" hours" if event.start else "")
            remedy = "Fill the gap, or set gaps to split."
            raise DataError.of("Tables", str(self.time), got, expected, remedy)
        edges = [0, *(gaps + 1).tolist(), event.steps]
        return [
            _section(event, number, start, stop)
            for number, (start, stop) in enumerate(pairwise(edges), start=1)
        ]


def _section(event: Series, number: int, begin: int, stop: int) -> Series:
    """Return a numbered section of an event; with dates its time starts at 0."""
    time = event.time[begin:stop]
    start = event.start
    if start is not None:
        start, time = _add_hours(start, float(time[0])), time - time[0]
    columns = {column: values[begin:stop] for column, values in event.columns.items()}
    return Series(f"{event.name} ({number})", time, columns, start)


def _add_hours(start: datetime, hours: float) -> datetime:
    """Add hours to a datetime in UTC: Python's own sum ignores daylight saving changes."""
    delta = timedelta(hours=hours)
    if start.tzinfo is None:
        return start + delta
    return (start.astimezone(UTC) + delta).astimezone(start.tzinfo)


def _check_roles(roles: Mapping[str, Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for role, columns in roles.items():
        if isinstance(columns, str):
            got, expected = repr(columns), "a list of columns"
            raise OptionError.of("Tables", role, got, expected, f"Write ['{columns}'].")
        for column in columns:
            if column in seen:
                got, expected = f"with '{column}', which is in {seen[column]} too", "one role each"
                raise OptionError.of("Tables", role, got, expected, "Name each column once.")
            seen[column] = role
    if not roles["target"]:
        raise OptionError.of("Tables", "target", "empty", "a column to forecast", "Name one.")


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError.of("Tables", argument, repr(value), f"one of {choices}", "Name one.")


def _check_units(units: dict[str, str], columns: Sequence[str]) -> dict[str, str]:
    for column in units:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            remedy = f"Write '{near[0]}'." if near else "Leave it out."
            got, expected = f"of '{column}'", f"one of {list(columns)}"
            raise OptionError.of("Tables", "units", got, expected, remedy)
    return dict(units)
