"""Tables: series from files or frames of a user's own, with strict checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ragged.data.sources import Roles, Series, Source, check_known
from ragged.data.tables import calendar as calendars
from ragged.data.tables.categories import Categories, Labels
from ragged.data.tables.dialect import Dialect
from ragged.data.tables.frequency import parse_frequency
from ragged.data.tables.future import Future
from ragged.data.tables.options import (
    check_categories,
    check_choice,
    check_driver,
    check_roles,
    check_units,
)
from ragged.data.tables.reader import read_tables, table_from_frame
from ragged.data.tables.resolved import Reading, Resolved
from ragged.data.tables.rows import DUPLICATES, GAPS
from ragged.data.tables.series import FILL, SeriesReader
from ragged.data.tables.table import Table
from ragged.data.tables.time_columns import joined_name
from ragged.data.tables.wide import check_wide
from ragged.errors import DataError, OptionError


class Tables(Source):
    """Series from tables of your own, one row a step, one column a quantity.

    | in the table | what happens |
    |---|---|
    | a column is missing, or there twice | refused; the error gives the nearest name |
    | no file, no rows, a row cut short, two separators that fit | refused |
    | a blank line in text | passed over; in a single column refused, write "" for an empty cell |
    | two files of a folder that differ in their suffix only | refused |
    | a cell that is no number, infinite, or has a decimal comma | refused: file, line, column |
    | NA, NaN, null, - and their like in a column of numbers | an unknown cell |
    | an unknown cell | refused or forward-filled, by `missing` |
    | an unknown cell in `read` | the same, but targets, and past columns over the horizon, may be |
    | rows that are not in the order of time | sorted and reported; refused by `sort: false` |
    | a time that is there twice in a series | refused, or one row for each, by `duplicates` |
    | a day that may be the month, as in 01/02/2026 on all rows | refused: name `time_format` |
    | a step 1.5 times longer than usual; holidays between business days are none | by `gaps` |
    | most steps shorter than two thirds of `frequency` | refused, unless `gaps` is keep |
    | a row without a time and without a value, at the end of a sheet, say | left out and reported |
    | a series whose target is never known | left out and reported; refused if all are so |
    | a static column that changes within a series | refused |
    | a column of words that is known, past or static | labels with learned embeddings |
    | a constant column | kept, normalised to 0, in the data module's notes |
    | a column that is named in no role | ignored |
    | a series too short to be cut | left to the data module's `short_events` |

    With `missing: ffill` inputs, and targets in the context, are forward-filled in their series;
    the values before the first known one are the mean of the training steps. An unknown target in
    the horizon counts neither in the loss nor in scores.

    Args:
        path: a file or a folder of files: `.csv`, `.tsv` or `.txt`, alone or in `.gz` or `.zip`,
            `.parquet`, or `.xlsx`.
        target: the columns to forecast.
        known: columns that are known over the horizon too. With dates those of `calendar` come to
            them; if there is none at all, the data module adds the step within the row.
        past: columns that are known in the context only.
        static: columns with one value a series.
        group: the column, or the columns, that name the series of a row. Without it each file is
            one series, named after the file. Series of a folder are named file/group.
        time: the column of time: numbers, durations, which become hours, or dates, which become
            hours since the start of the series; or the columns that a date is made of, as year and
            month, or day and hour. Without it steps are counted.
        units: the unit of each column, and of `time`, for labels.
        missing: "error" refuses unknown cells; "ffill" repeats the last known value.
        gaps: "error" refuses gaps in time; "split" makes parts of the series, which stay one series
            where training, validation and test are told apart; "keep" leaves them, and the time
            since the row before becomes a known column.
        separator: between the cells of text, " " for any number of blanks; by default what fits.
        decimal: the mark in front of decimals, "." or ",".
        thousands: the mark between the digits of thousands, as in 1,234,567; by default none.
        skip_rows: the lines above the header, such as titles and remarks.
        names: of all columns, where there is no header, or it was left out by `skip_rows`.
        skip_footer: the lines below the last row, such as totals and sources.
        sheet: of an Excel file; by default the first.
        series: of a wide table, the columns each of which is a series, or "rest", all without a
            role. Their cells become the target, which has a name of your own.
        encoding: of text.
        na_values: words and numbers for an unknown cell, such as -999, beside the usual words.
        time_format: the form of dates, such as "%d.%m.%Y"; "s", "ms", "us" or "ns" for numbers
            since 1970, "year" for years with decimals, "years" for two as 1960/61, "number" for
            other numbers; by default what fits all rows. Of several columns of time it is that of
            their cells with blanks between them, as "%Y %j".
        frequency: the usual step, as pandas writes it: YS, QS, MS, B (business days), W, D, h, min,
            s, ms, us, with a number in front or not; or the business days, as in Sun Mon Tue Wed
            Thu. By default found in each series.
        sort: whether rows are sorted by time.
        duplicates: "error" refuses a time that is there twice in a series; "first", "last" and
            "mean" make one row of such rows.
        calendar: "auto" adds what the frequency makes sensible of time_of_day, day_of_week,
            day_of_year and month, as sine and cosine; or "none", or a list of them.
        holidays: a country, as US or DE-BW, whose holidays become a known column of 0 and 1.
        labels: the columns of words that become a column of 0 and 1 for each label, with the labels
            that are told apart; "auto" takes all columns of words, of at most 50 labels each.
        driver: the known column that drives the targets, if one does, as discharge does turbidity:
            baselines fit the targets to it, and reports draw the loop that the two go through.
        categories: the columns whose labels models embed, a list, or with the labels that are told
            apart; others are one unknown label. They may hold numbers, as those of shops. By
            default, unless labels are given, all columns of words; "none" is none.

    Raises:
        OptionError: no target, a driver that is not known, a column in two roles, a unit of a
            column without a role, or a value that an argument does not take.

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
        group: str | Sequence[str] | None = None,
        time: str | Sequence[str] | None = None,
        units: dict[str, str] | None = None,
        missing: Literal["error", "ffill"] = "error",
        gaps: Literal["error", "split", "keep"] = "error",
        separator: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
        na_values: Sequence[str | float] = (),
        time_format: str | None = None,
        frequency: str = "auto",
        sort: bool = True,
        duplicates: Literal["error", "first", "last", "mean"] = "error",
        calendar: str | Sequence[str] = "auto",
        labels: dict[str, list[str]] | Literal["auto", "none"] | None = None,
        driver: str | None = None,
        holidays: str | None = None,
        categories: dict[str, list[str]] | list[str] | Literal["none"] | None = None,
        thousands: str | None = None,
        skip_rows: int = 0,
        names: list[str] | None = None,
        skip_footer: int = 0,
        sheet: str | None = None,
        series: Sequence[str] | Literal["rest"] = (),
    ) -> None:
        roles = {"target": target, "known": known, "past": past, "static": static}
        check_roles(roles)
        check_choice("missing", missing, ("error", "ffill"))
        check_choice("gaps", gaps, GAPS)
        check_choice("duplicates", duplicates, DUPLICATES)
        unknown = na_values if isinstance(na_values, str) else [str(word) for word in na_values]
        self._dialect = Dialect(
            separator, decimal, encoding, unknown, thousands, skip_rows, names, skip_footer, sheet
        )
        self.time_columns = (time,) if isinstance(time, str) else tuple(time or ())
        self.time = time = joined_name(self.time_columns)
        self.path, self.missing = path, missing
        check_driver(driver, known)
        self._driver = driver
        self._named = Roles(**{role: tuple(columns) for role, columns in roles.items()})
        self._units = check_units(
            units or {}, [*self._named.columns, *([] if time is None else [time])]
        )
        check_wide(series, target, [*self._named.columns, *self.time_columns])
        groups = (group,) if isinstance(group, str) else tuple(group or ())
        fills = missing == "ffill"
        words = check_categories(categories, labels, self._named)
        self._reader = SeriesReader(
            self._named, groups, self.time_columns, fills, gaps, sort, duplicates, holidays, words,
            series,
        )  # fmt: skip
        self._options = Resolved(
            time_format,
            None if frequency == "auto" else parse_frequency(frequency),
            calendars.named_cycles(calendar),
            words.given,
        )
        self._frame: Table | None = None
        self._training: Reading | None = None
        self._last: Reading | None = None

    @classmethod
    def from_frame(cls, frame: Any, target: Sequence[str], **options: Any) -> Tables:
        """Create a source of the series in a DataFrame.

        Args:
            frame: of pandas, polars or pyarrow; a pandas index with a name is a column of it.
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
        source._frame = table_from_frame(frame, source._dialect)
        return source

    @property
    def roles(self) -> Roles:
        """The roles given, with the columns of the calendar, of 0 and 1 for labels, and of gaps.

        Raises:
            DataError: as `events`, where the data decide on the columns.
        """
        return self._reader.roles_with(self._resolved())

    @property
    def resolved(self) -> dict[str, Any]:
        """The arguments that the data decided on, unless calendar and categories were given.

        Raises:
            DataError: as `events`.
        """
        if self._options.calendar is not None and self._options.categories is not None:
            return {}
        resolved = self._read_training().resolved
        words = resolved.categories or Categories()
        return {
            "time_format": resolved.time_format,
            "frequency": "auto" if resolved.frequency is None else resolved.frequency.name,
            "calendar": list(resolved.calendar or ()) or "none",
            "labels": _plain(words.one_hot) or "none",
            "categories": _plain(words.embedded) or "none",
        }

    @property
    def categories(self) -> dict[str, list[str]]:
        """The columns whose labels models embed, with the labels that are told apart.

        Raises:
            DataError: as `events`, where the data decide on them.
        """
        return _plain((self._resolved().categories or Categories()).embedded)

    @property
    def season(self) -> int:
        """The steps of a year, a week, a day or an hour, as the frequency has it; 1 without dates.

        Raises:
            DataError: as `events`, where the data decide on the frequency.
        """
        frequency = self._resolved().frequency
        return 1 if frequency is None else frequency.season

    @property
    def driver(self) -> str | None:
        """The column that was named as such."""
        return self._driver

    @property
    def time_label(self) -> str:
        """The column of time with its unit; whether it has dates is known after reading."""
        if self.time is None:
            return "step"
        if self._last is not None and self._last.has_dates:
            return "time since the start of the event (h)"
        if self._has_hours:
            return f"{self.time} (h)"
        return f"{self.time} ({self._units[self.time]})" if self.time in self._units else self.time

    @property
    def time_column(self) -> str:
        """The column of time, "step" without one; durations say that they are hours."""
        return self.time_label if self.time is None or self._has_hours else self.time

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of `group`, after the file in a folder and the series of a wide table."""
        in_folder = self._last is not None and self._last.in_folder
        added = {"file": in_folder, "series": bool(self._reader.wide)}
        return (*(name for name, is_there in added.items() if is_there), *self._reader.groups)

    def raw_unit(self, name: str) -> str:
        """Return the unit given for a target."""
        return self._units.get(name, "")

    @property
    def _has_hours(self) -> bool:
        return self._last is not None and self._last.are_hours

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column; "-" where none was given."""
        return {column: self._units.get(column, "-") for column in self.roles.columns}

    @property
    def notes(self) -> list[str]:
        """What was sorted, left out, split or added, once the table was read."""
        return [] if self._last is None else list(self._last.notes)

    @property
    def unknown_labels(self) -> tuple[str, ...]:
        """Those of the notes that are about labels which are not told apart."""
        return () if self._last is None else self._last.unknown_labels

    def events(self) -> list[Series]:
        """The series of the table, those with dates sorted by their start.

        Raises:
            DataError: what is refused in the table above.
            MissingExtraError: pandas, pyarrow or openpyxl is not installed.
        """
        reading = self._last = self._read_training()
        if self._driver in self.categories:
            got, expected = f"'{self._driver}', a column of labels", "one of numbers"
            raise OptionError.of("Tables", "driver", got, expected, "Name another, or none.")
        if self.missing == "error":
            remedy = f"{FILL} A table to forecast may leave targets empty."
            targets, whole = self._named.target, "a target at every step"
            check_known(reading.series, targets, whole, remedy, "Tables")
            past = (reading.resolved.categories or Categories()).names(self._named.past)
            check_known(reading.series, past, "a value at every step", FILL, "Tables")
        return list(reading.series)

    def read(self, path: Path | Any, future: Future | None = None) -> list[Series]:
        """Read tables of the same columns; an empty cell of a target or past column becomes NaN.

        Args:
            path: a file or a folder, as in the class, or a frame, as in `from_frame`.
            future: the steps to forecast of each series, whose times follow from its rows. By
                default those of the rows alone.

        Raises:
            DataError: what is refused in the table above; `known` columns that the steps to
                forecast lack, or times that do not follow.
            MissingExtraError: pandas, pyarrow or openpyxl is not installed.
        """
        resolved = self._options if self._training is None else self._training.resolved
        self._last = self._read(path, resolved, future=future)
        return self._last.series

    def _resolved(self) -> Resolved:
        """Return what the data decide on, without reading them where nothing is left open."""
        if self._training is None and self._reader.is_resolved(self._options):
            return self._options
        if self._training is None and self._last is not None:
            return self._last.resolved
        return self._read_training().resolved

    def _read_training(self) -> Reading:
        """Read the table once."""
        if self._training is None:
            table = self.path if self._frame is None else self._frame
            self._training = self._read(table, self._options, to_learn=True)
        return self._training

    def _read(
        self, table: Any, options: Resolved, *, to_learn: bool = False, future: Future | None = None
    ) -> Reading:
        """Read a path, a frame, or a table that was one."""
        others: list[str] = []
        in_folder = False
        if isinstance(table, Table):
            tables = [table]
        elif isinstance(table, (str, Path)):
            if not str(table):
                raise _refuse_no_path()
            tables, others = read_tables(Path(table), self._dialect)
            in_folder = Path(table).is_dir()
        else:
            tables = [table_from_frame(table, self._dialect)]
        return self._reader.read(
            tables,
            options,
            in_folder=in_folder,
            others=others,
            to_learn=to_learn,
            future=future,
        )


def _plain(labels: Labels) -> dict[str, list[str]]:
    return {column: list(names) for column, names in labels.items()}


def _refuse_no_path() -> DataError:
    got, expected = "empty: the series were given as a frame", "the path of a table"
    remedy = "Name a table, or give the frame: Forecaster.load(RUN) takes one."
    return DataError.of("Tables", "path", got, expected, remedy)
