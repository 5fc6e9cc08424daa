"""From tables to series: cells to numbers, rows to series, and what the data decide on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ragged.data.sources import Columns, Roles, Series
from ragged.data.tables import calendar as calendars
from ragged.data.tables.categories import Categories, CategoryOptions, count_others
from ragged.data.tables.frequency import HOUR, Frequency
from ragged.data.tables.future import Future
from ragged.data.tables.holidays import holiday_column, holiday_name
from ragged.data.tables.notes import Notes
from ragged.data.tables.resolved import Reading, Resolved, resolve
from ragged.data.tables.rows import (
    Rows,
    check_not_denser,
    frequency_of,
    gaps_of,
    group_rows,
    in_order,
    refuse_gap,
    split_at_gaps,
    time_since_row_before,
    with_statics,
    without_duplicates,
)
from ragged.data.tables.table import Table
from ragged.data.tables.time_columns import form_of, joined_name, with_joined
from ragged.data.tables.times import Times, likely_format, read_times
from ragged.data.tables.wide import narrow
from ragged.errors import DataError

FILL = "Fill the cell, or set missing to ffill."


@dataclass(frozen=True)
class SeriesReader:
    """Makes series of tables.

    Args:
        roles: the columns as the user names them.
        groups: the columns that name the series of a row.
        time_columns: the column of time, or the columns that make it, or none.
        fills: whether unknown cells of any column are taken.
        gaps: "error", "split" or "keep".
        sort: whether rows are sorted.
        duplicates: "error", "first", "last" or "mean".
        holidays: the country whose holidays become a column, or None.
        words: which columns are of words.
        wide: the columns of a wide table, each of which is one series of the target, or `REST`.
    """

    roles: Roles
    groups: tuple[str, ...]
    time_columns: tuple[str, ...]
    fills: bool
    gaps: str
    sort: bool
    duplicates: str
    holidays: str | None = None
    words: CategoryOptions = field(default_factory=CategoryOptions)
    wide: Sequence[str] | str = ()

    @property
    def time(self) -> str | None:
        """The name of the column of time."""
        return joined_name(self.time_columns)

    def is_resolved(self, options: Resolved) -> bool:
        """Whether options leave no column to the data."""
        may_be_words = self.roles.known or self.roles.past or self.roles.static
        needs_calendar = options.calendar is None and self.time is not None
        return not needs_calendar and not (options.categories is None and may_be_words)

    def roles_with(self, resolved: Resolved) -> Roles:
        """Return the roles with the columns that are added."""
        named = self._named_roles(resolved)
        return replace(named, known=named.known + tuple(self._added(resolved)))

    def _named_roles(self, resolved: Resolved) -> Roles:
        """Return the roles given, with what columns of words become."""
        roles, categories = self.roles, resolved.categories or Categories()
        known, past, static = map(categories.names, (roles.known, roles.past, roles.static))
        return Roles(known, past, roles.target, static)

    def read(
        self,
        tables: Sequence[Table],
        options: Resolved,
        *,
        in_folder: bool,
        others: Sequence[str] = (),
        to_learn: bool = False,
        future: Future | None = None,
    ) -> Reading:
        """Make the series of tables.

        Args:
            tables: the tables, all of the same columns.
            options: what is resolved before.
            in_folder: whether the tables are of a folder: its series are named file/group.
            others: the files of the folder that are no tables.
            to_learn: leave out series whose target is never known.
            future: of the last part of each series the steps to forecast, without the parts before.

        Raises:
            DataError: a table that cannot be used; see `Tables`.
        """
        notes = Notes(list(others), [name for table in tables for name in table.sheets])
        notes.numbered += [table.name for table in tables if table.is_numbered]
        if in_folder:
            tables = [replace(table, named=(table.name,)) for table in tables]
        tables = [with_joined(table, self.time_columns) for table in self._narrow(tables)]
        tables = [self._without_empty_rows(table, notes, to_learn=to_learn) for table in tables]
        if to_learn:
            self._check_not_empty(tables)
        categories = options.categories
        if categories is None:
            categories = self.words.find(tables, self.roles)
        times = [self._times(table, options.time_format) for table in tables]
        self._check_kinds(times)
        series: list[Rows] = []
        for table, time in zip(tables, times, strict=True):
            series += self._rows_of(table, time, categories, notes)
        if to_learn:
            series = self._without_unknown(series, notes)
        frequencies = [frequency_of(rows, options.frequency) for rows in series]
        self._check_dates(options, times[0])
        resolved = resolve(options, categories, times, series, frequencies)
        notes.added += self._added(resolved)
        notes.form = times[0].format if options.time_format is None else None
        if self.time is not None and times[0].dates is None and options.time_format is None:
            notes.likely = self.time, likely_format(times[0].seconds)
        parts = self._parts(series, frequencies, notes)
        if future is not None:
            parts = self._to_forecast(parts, series, frequencies, future, resolved)
        if times[0].dates is not None:
            parts.sort(key=lambda part: float(part.seconds[0]))
        found = [_series(self._with_added(part, resolved)) for part in parts]
        has_dates, are_hours = times[0].dates is not None, times[0].are_hours
        told = notes.texts, has_dates, are_hours, in_folder, tuple(notes.unknown_labels)
        return Reading(found, resolved, *told)

    def _added(self, resolved: Resolved) -> list[str]:
        """Return the names of the columns that are added."""
        since = [self._since] if self.gaps == "keep" and self.time is not None else []
        holidays = [] if self.holidays is None else [holiday_name(self.holidays)]
        return [*since, *calendars.names(resolved.calendar or ()), *holidays]

    @property
    def _since(self) -> str:
        return f"{self.time} since the row before"

    def _without_empty_rows(self, table: Table, notes: Notes, *, to_learn: bool) -> Table:
        """Leave out rows without a time and a value: they are no steps.

        Without a column of time an empty row is a step, but to learn not below the last value.
        """
        columns = [*self.groups, *self.roles.columns]
        if self.time is None and not to_learn:
            return table
        empty = table.empty_rows([*([] if self.time is None else [self.time]), *columns])
        if self.time is None:
            empty = np.logical_and.accumulate(empty[::-1])[::-1]
        if empty.all() or not empty.any():
            return table
        notes.empty_rows += int(empty.sum())
        return table.take(np.flatnonzero(~empty))

    def _check_not_empty(self, tables: Sequence[Table]) -> None:
        """Refuse an input that is never known; one cell alone is refused with its line."""
        if sum(map(len, tables)) == 1:
            return
        for column in (*self.roles.known, *self.roles.past, *self.roles.static):
            if all(table.is_empty(column) for table in tables):
                got, expected = "empty, on every row", "values to learn from"
                raise DataError.of("Tables", column, got, expected, "Leave the column out.")

    def _times(self, table: Table, time_format: str | None) -> Times:
        if self.time is None:
            return Times(np.arange(float(len(table))))
        return read_times(table, self.time, time_format or form_of(table, self.time_columns))

    def _check_kinds(self, times: Sequence[Times]) -> None:
        """Refuse numbers in one table and dates in another."""
        if len({time.dates is None for time in times}) > 1:
            got, expected = "numbers in some files and datetimes in others", "the same in all"
            raise DataError.of("Tables", str(self.time), got, expected, "Write one kind.")

    def _check_dates(self, options: Resolved, time: Times) -> None:
        """Refuse what is meant for dates where there are none."""
        given = {
            "calendar": list(options.calendar or ()),
            "frequency": options.frequency,
            "holidays": self.holidays,
        }
        for argument, value in given.items():
            if value and time.dates is None:
                got = f"{value} for a time without dates"
                remedy = f"Name the form of its dates in time_format, or leave {argument} out."
                raise DataError.of("Tables", argument, got, f"dates in `{self.time}`", remedy)

    def _narrow(self, tables: Sequence[Table]) -> list[Table]:
        """Return a table for each series of wide ones."""
        if not self.wide:
            return list(tables)
        target, roles = self.roles.target[0], self.roles
        others = [*self.time_columns, *self.groups, *roles.known, *roles.past, *roles.static]
        return [part for table in tables for part in narrow(table, self.wide, target, others)]

    def _rows_of(
        self, table: Table, time: Times, categories: Categories, notes: Notes
    ) -> list[Rows]:
        """Return the rows of each series of a table, in the order of time."""
        columns = self._columns(table, categories, notes)
        statics = categories.names(self.roles.static)
        groups = [table.series(column) for column in self.groups]
        prefix = "".join(f"{name}/" for name in table.named) if groups else ""
        series = []
        for name, indices in group_rows(self._names(table)).items():
            dates = None if time.dates is None else time.dates[indices]
            values = {column: cells[indices] for column, cells in columns.items()}
            seconds = (
                time.seconds[indices] if self.time is not None else np.arange(float(len(indices)))
            )
            cells = (*table.named, *(_stripped(column.iloc[indices[0]]) for column in groups))
            rows = Rows(prefix + name, seconds, dates, values, labels=cells)
            rows = self._ordered(rows, categories, notes)
            series.append(with_statics(rows, statics, categories.shown))
        return series

    def _names(self, table: Table) -> list[str]:
        if not self.groups:
            return ["/".join(table.named) or table.name] * len(table)
        labels = [table.labels(column) for column in self.groups]
        return ["/".join(parts) for parts in zip(*labels, strict=True)]

    def _ordered(self, rows: Rows, categories: Categories, notes: Notes) -> Rows:
        if self.time is None:
            return rows
        ordered = in_order(rows, self.time, sort=self.sort)
        has_groups, words = bool(self.groups), categories.embedded
        single = without_duplicates(ordered, self.time, self.duplicates, has_groups, words)
        notes.unsorted += [rows.name] if ordered is not rows else []
        notes.merged += len(ordered) - len(single)
        return single

    def _columns(self, table: Table, categories: Categories, notes: Notes) -> Columns:
        """Return the columns as numbers."""
        may_be_empty = self.roles.columns if self.fills else self.roles.past + self.roles.target
        columns: Columns = {}
        for column in self.roles.columns:
            labels = categories.labels_of(column)
            if labels is None:
                is_free = column in may_be_empty
                columns[column] = table.numbers(column, may_be_empty=is_free, fill=FILL)
                continue
            cells = table.categories(column)
            if None in cells and column not in may_be_empty:
                table.refuse_cell(cells.index(None), column, "a label", FILL)
            columns |= categories.columns(column, cells)
            notes.other_labels[column] += count_others(cells, labels)
        return columns

    def _without_unknown(self, series: list[Rows], notes: Notes) -> list[Rows]:
        """Leave out series of which a target is never known.

        Raises:
            DataError: nothing else is left.
        """
        targets = self.roles.target
        never = {r.name: [c for c in targets if np.isnan(r.columns[c]).all()] for r in series}
        notes.unknown += [name for name, columns in never.items() if columns]
        known = [rows for rows in series if not never[rows.name]]
        if not known:
            name = next(iter(never.values()))[0]
            got, expected = "empty, on every row", "values to learn from"
            raise DataError.of("Tables", name, got, expected, "Name another target.")
        return known

    def _parts(
        self, series: Sequence[Rows], frequencies: Sequence[Frequency], notes: Notes
    ) -> list[Rows]:
        """Return the series, cut at gaps if they are to be.

        Raises:
            DataError: a gap, and there should be none; rows that come more often than they should.
        """
        if self.gaps == "keep" or self.time is None:
            return list(series)
        parts: list[Rows] = []
        for rows, frequency in zip(series, frequencies, strict=True):
            check_not_denser(rows, self.time, frequency)
            gaps = gaps_of(rows, frequency)
            if len(gaps) and self.gaps == "error":
                raise refuse_gap(rows, self.time, int(gaps[0]), frequency)
            parts += split_at_gaps(rows, gaps)
        notes.parts = len(series), len(parts)
        return parts

    def _to_forecast(
        self,
        parts: Sequence[Rows],
        series: Sequence[Rows],
        frequencies: Sequence[Frequency],
        future: Future,
        resolved: Resolved,
    ) -> list[Rows]:
        """Return the last part of each series, with the steps to forecast."""
        last = {part.part_of or part.name: part for part in parts}
        roles = self._named_roles(resolved)
        even = self.gaps != "keep" or self.time is None
        return [
            future.rows(last[rows.name], roles, frequency, fills=self.fills, even=even)
            for rows, frequency in zip(series, frequencies, strict=True)
        ]

    def _with_added(self, rows: Rows, resolved: Resolved) -> Rows:
        """Add the columns of the calendar, of holidays, and the time since the row before."""
        columns = dict(rows.columns)
        if self.gaps == "keep" and self.time is not None:
            columns[self._since] = time_since_row_before(rows)
        if resolved.calendar:
            columns |= calendars.calendar_columns(rows.dates, resolved.calendar)
        if self.holidays is not None:
            columns[holiday_name(self.holidays)] = holiday_column(rows.dates, self.holidays)
        return replace(rows, columns=columns)


def _series(rows: Rows) -> Series:
    """Return rows as a series; with dates its time is hours since its start."""
    time, start = rows.seconds, None
    if rows.dates is not None:
        time, start = (time - time[0]) / HOUR, rows.dates[0].to_pydatetime(warn=False)
    return Series(rows.name, time, rows.columns, start, rows.part_of, rows.labels, rows.dates)


def _stripped(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else cell
