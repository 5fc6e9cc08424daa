"""Reading of time: numbers, dates in many forms, periods and durations; never a guess."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time
from typing import Any

import numpy as np

from ragged.data.tables.cells import label_of
from ragged.data.tables.forms import (
    YEARS,
    first_years,
    forms_of,
    months_of_years,
    without_hour_24,
)
from ragged.data.tables.frequency import HOUR
from ragged.data.tables.table import Table
from ragged.errors import OptionError

NUMBER = "number"  # as a time_format: numbers that look like dates stay numbers
SINCE_1970 = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # as a time_format: of clocks, in a second
YEAR = "year"  # as a time_format: years with decimals, as R writes months and quarters
CLOCK_YEARS = (631152000.0, 4102444800.0)  # seconds since 1970 of the years 1990 and 2100
MONTH_ERROR = 0.07  # months by which decimals of years may be off, as those of 1949.08 are
LAST_SECOND = 253402300800.0  # of the year 9999, the last that Python has
FILL = "Give the time of every row."
DAY_OR_YEAR = "%b-%y"  # Jan-01, Jan-02: two years, or two days

COMPACT = (
    *(("%Y%m%d", r"(1[6-9]|2[0-2])\d{6}"), ("%Y%m", r"(1[6-9]|2[0-2])\d{4}")),
    *(("%Y%m%d%H", r"(19|20)\d{8}"), ("%Y%m%d%H%M", r"(19|20)\d{10}")),
    ("%Y%m%d%H%M%S", r"(19|20)\d{12}"),
)
LARGEST_COMPACT = 1e14
QUARTER = r"(?P<year>\d{4})\s*[-:/. ]?\s*Q0?(?P<quarter>[1-4])"
QUARTER_FIRST = r"Q0?(?P<quarter>[1-4])\s*[-:/. ]?\s*(?P<year>\d{4})"
WEEK = r"(?P<year>\d{4})-?W(?P<week>\d{2})(?:-?(?P<day>[1-7]))?"  # of ISO 8601
CLOCK = r"\d+:\d{2}(:\d{2}(\.\d+)?)?"
DURATION = rf"-?(\d+ days?,?( {CLOCK})?|{CLOCK})"
ZONE = r"[T ]\d{2}.*(?:Z|[-+]\d{2}(?::?\d{2})?)$"  # of an ISO 8601 datetime


@dataclass(frozen=True, eq=False)
class Times:
    """The time of each row of a table.

    Args:
        seconds: `(rows,)` float64: since 1970 of dates, else the numbers of the table; of
            durations hours.
        dates: the dates as a pandas DatetimeIndex, or None.
        format: the form in which they were read, where the next table has to be read in it too.
        are_hours: whether the numbers are durations.
    """

    seconds: np.ndarray
    dates: Any | None = None
    format: str | None = None
    are_hours: bool = False


def read_times(table: Table, column: str, time_format: str | None = None) -> Times:
    """Read a column of time, no cell of it empty.

    Numbers stay numbers, unless all are dates such as 20240131, 202401 or 202401312359. Text is
    read as ISO 8601, weeks too, quarters, durations, or in one of many common forms, the same for
    all rows.

    Args:
        table: the table.
        column: its column of time.
        time_format: the form of the dates, as `datetime.strptime` takes it; a week without a day is
            its first one; "s", "ms", "us" or "ns" since 1970; "year" for years with decimals;
            "years" for two on end, as 1960/61, at the start of the first; "number" for numbers.

    Raises:
        DataError: a missing column; an empty cell; a cell that is no time, or of another form than
            the first; dates whose order of day and month is not clear; dates of which only some
            have a time zone.
        OptionError: a `time_format` that is none.
    """
    import pandas

    series = table.series(column)
    if time_format == NUMBER or (time_format is None and series.dtype.kind in "iufb"):
        return _numbers(table, column, time_format)
    unknown = table.unknown(column)
    if unknown.any():
        table.refuse_cell(int(np.argmax(unknown)), column, "a time", FILL)
    if time_format in SINCE_1970:
        return _since_1970(table, column, str(time_format))
    if time_format == YEAR:
        return _decimal_years(table, column)
    if series.dtype.kind in "iufb":
        text = pandas.Series([label_of(cell) for cell in series.tolist()])
        return _in_format(table, column, text, str(time_format))
    if series.dtype.kind == "M":
        return _dates(series)
    if series.dtype.kind == "m":
        return _durations(series)
    if hasattr(series.dtype, "freq"):
        return _dates(series.dt.to_timestamp())
    if not isinstance(series.iloc[0], str):
        return _objects(table, column, series)
    text, is_next_day = without_hour_24(series.astype(str).str.strip(), time_format)
    times = _text(table, column, text, time_format)
    if times.dates is None or not is_next_day.any():
        return times
    return _dates(times.dates + pandas.to_timedelta(is_next_day.astype(int), "D"), times.format)


def likely_format(values: np.ndarray) -> str | None:
    """Return the time_format with which numbers are likely to be dates.

    Whole numbers may be times since 1970, all of the years 1990 to 2099; others months of years.

    >>> likely_format(np.array([1609459200e3, 1609462800e3])), likely_format(np.array([1949.0]))
    ('ms', None)
    >>> likely_format(np.array([1949.0, 1949.0833, 1949.1667]))
    'year'
    """
    if not (values == np.floor(values)).all():
        are_years = 1600 <= values.min() <= values.max() < 2300
        return YEAR if are_years and np.abs(_in_months(values)).max() < MONTH_ERROR else None
    first, last = CLOCK_YEARS
    low, high = float(values.min()), float(values.max())
    return next((u for u, n in SINCE_1970.items() if first * n <= low and high < last * n), None)


def _since_1970(table: Table, column: str, unit: str) -> Times:
    """Read the time of a clock."""
    import pandas

    seconds = table.numbers(column, fill=FILL) / SINCE_1970[unit]
    late = np.abs(seconds) >= LAST_SECOND
    if late.any():
        remedy = "Correct the cell, or name another unit in time_format: s, ms, us or ns."
        expected = f"{unit} since 1970, before the year 10000"
        table.refuse_cell(int(np.argmax(late)), column, expected, remedy)
    return _dates(pandas.to_datetime(np.round(seconds * 1e6).astype(np.int64), unit="us"), unit)


def _in_months(years: np.ndarray) -> np.ndarray:
    """Return how far years with decimals are from the start of a month, in months."""
    return 12 * years - np.round(12 * years)


def _decimal_years(table: Table, column: str) -> Times:
    """Read years with decimals: as starts of months if all are, else as shares of their year."""
    import pandas

    values = table.numbers(column, fill=FILL)
    wrong = (values < 1) | (values >= 10000)
    if wrong.any():
        expected = "a year with decimals, from 1 to 9999"
        table.refuse_cell(int(np.argmax(wrong)), column, expected, "Correct the cell.")
    if np.abs(_in_months(values)).max() < MONTH_ERROR:
        months = np.round(12 * values).astype(np.int64) - 12 * 1970
        return _dates(
            pandas.to_datetime(months.astype("datetime64[M]").astype("datetime64[us]")), YEAR
        )
    years = np.floor(values).astype(np.int64) - 1970
    starts, ends = (y.astype("datetime64[Y]").astype("datetime64[s]") for y in (years, years + 1))
    seconds = np.round((values - np.floor(values)) * (ends - starts).astype(np.float64))
    return _dates(pandas.to_datetime(starts + seconds.astype("timedelta64[s]")), YEAR)


def _objects(table: Table, column: str, series: Any) -> Times:
    """Read Python's own objects: dates, durations or numbers, which the first row decides."""
    import pandas

    first = series.iloc[0]
    if isinstance(first, int | float):
        return _numbers(table, column, None)
    if isinstance(first, time):
        series = series.map(lambda cell: str(cell) if isinstance(cell, time) else cell)
    if hasattr(first, "year"):
        in_utc = getattr(first, "tzinfo", None) is not None
        values = pandas.to_datetime(series, errors="coerce", utc=in_utc)
    else:
        values = pandas.to_timedelta(series, errors="coerce")
    wrong = values.isna().to_numpy()
    if wrong.any():
        table.refuse_cell(int(np.argmax(wrong)), column, f"a time as {first} is", "Correct it.")
    return _dates(values) if values.dtype.kind == "M" else _durations(values)


def _numbers(table: Table, column: str, time_format: str | None) -> Times:
    """Return numbers, or the dates that they write without separators."""
    values = table.numbers(column, fill=FILL)
    if time_format == NUMBER or not (values == np.floor(values)).all() or values.min() < 0:
        return Times(values)
    if values.max() >= LARGEST_COMPACT:
        return Times(values)
    import pandas

    return _compact(pandas.Series(values.astype(np.int64)).astype(str)) or Times(values)


def _compact(text: Any) -> Times | None:
    """Return the dates that digits without separators write, if they do on all rows."""
    import pandas

    for form, pattern in COMPACT:
        if text.str.fullmatch(pattern).all():
            dates = pandas.to_datetime(text, format=form, errors="coerce")
            if not dates.isna().any():
                return _dates(dates, form)
    return None


def _text(table: Table, column: str, text: Any, time_format: str | None) -> Times:
    if time_format == YEARS:
        return _years(table, column, text)
    if time_format is not None:
        return _in_format(table, column, text, time_format)
    if _is_number(table, text.iloc[0]):
        return _numbers(table, column, None)
    found = (
        _quarters(text)
        or _weeks(text)
        or _clear_years(table, column, text)
        or _text_durations(text)
    )
    if found is not None:
        return found
    text = text.str.replace(r"(?<=\d\d) ?(UTC|GMT)$", "Z", regex=True)
    if re.match(r"\d{4}\D\d|\d{8}T", text.iloc[0]) and _first_is_iso(text):
        return _iso(table, column, text)
    return _common_form(table, column, text)


def _is_number(table: Table, cell: str) -> bool:
    try:
        table.number(cell)
    except ValueError:
        return False
    return True


def _in_format(table: Table, column: str, text: Any, time_format: str) -> Times:
    """Read dates in a given form; a week without a day is its first one."""
    import pandas

    cells, form = text, time_format
    week = re.search("%[GUVW]", form)
    if week and not re.search("%[aAuw]", form):
        cells = cells + (" 0" if week[0] == "%U" else " 1")  # weeks of %U start on Sundays
        form += " %w" if week[0] in ("%U", "%W") else " %u"
    try:
        dates = pandas.to_datetime(cells, format=form, errors="coerce", utc="%z" in form)
    except ValueError as error:
        got, remedy = f"{time_format!r} ({error})", "Write it as in '%d.%m.%Y %H:%M'."
        expected = "a form of datetime.strptime, s, ms, us, ns, year, years, or number"
        raise OptionError.of("Tables", "time_format", got, expected, remedy) from error
    wrong = dates.isna().to_numpy()
    if wrong.any():
        remedy = "Correct the cell, or time_format."
        expected = f"a time written as {time_format}"
        table.refuse_cell(int(np.argmax(wrong)), column, expected, remedy)
    return _dates(dates, time_format)


def _first_is_iso(text: Any) -> bool:
    import pandas

    return not pandas.isna(pandas.to_datetime(text.iloc[0], format="ISO8601", errors="coerce"))


def _iso(table: Table, column: str, text: Any) -> Times:
    """Read ISO 8601 dates, with a time zone on every row or on none."""
    import pandas

    dates = pandas.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    wrong = dates.isna().to_numpy()
    if wrong.any():
        remedy = "Write it as 2026-01-31T12:00, or name the form of all in time_format."
        table.refuse_cell(int(np.argmax(wrong)), column, "an ISO 8601 datetime", remedy)
    has_zone = text.str.contains(ZONE).to_numpy()
    mixed = has_zone != has_zone[0]
    if mixed.any():
        expected = "a time zone on every row or on none"
        table.refuse_cell(int(np.argmax(mixed)), column, expected, "Give all the same.")
    if not has_zone[0]:
        return _dates(dates.dt.tz_localize(None))
    zones = text.str.extract(r"(Z|[-+][\d:]+)$")[0].unique()
    if len(zones) == 1 and zones[0] != "Z":  # else, as where the clocks change, in UTC
        dates = pandas.to_datetime(text, format="ISO8601")
    return _dates(dates)


def _years(table: Table, column: str, text: Any) -> Times:
    """Read two years on end as the start of the first."""
    import pandas

    first = first_years(text)
    if first is None:
        row = next(row for row in range(len(text)) if first_years(text.iloc[[row]]) is None)
        expected = "two years on end, as 1960/61"
        table.refuse_cell(row, column, expected, "Correct the cell, or time_format.")
    return _dates(pandas.to_datetime(first, format="%Y"), YEARS)


def _clear_years(table: Table, column: str, text: Any) -> Times | None:
    """Read two years on end, if they are that on all rows and are no months."""
    if first_years(text.iloc[:1]) is None or text.nunique() == 1 or first_years(text) is None:
        return None
    form = months_of_years(text)
    if form is not None:
        remedy = f"Set time_format to {YEARS} or '{form}'."
        table.refuse_cell(0, column, f"a time that is not both two years and {form}", remedy)
    return _years(table, column, text)


def _quarters(text: Any) -> Times | None:
    import pandas

    for pattern in (QUARTER, QUARTER_FIRST):
        if not re.fullmatch(pattern, text.iloc[0], re.IGNORECASE):
            continue
        parts = text.str.extract(f"^{pattern}$", flags=re.IGNORECASE)
        if not parts.isna().to_numpy().any():
            month = 3 * parts["quarter"].astype(int) - 2
            months = parts["year"].str.cat(month.astype(str), sep="-")
            return _dates(pandas.to_datetime(months, format="%Y-%m"))
    return None


def _weeks(text: Any) -> Times | None:
    """Return the days of weeks of ISO 8601, such as 2020-W53 or 2020W531."""
    import pandas

    if not re.fullmatch(WEEK, text.iloc[0]):
        return None
    parts = text.str.extract(f"^{WEEK}$").fillna({"day": "1"})
    days = parts["year"].str.cat([parts["week"], parts["day"]], sep=" ")
    dates = pandas.to_datetime(days, format="%G %V %u", errors="coerce")
    return None if dates.hasnans else _dates(dates)


def _text_durations(text: Any) -> Times | None:
    import pandas

    if not re.fullmatch(DURATION, text.iloc[0]) or not text.str.fullmatch(DURATION).all():
        return None
    whole = text.str.replace(r"^(-?(?:.* )?\d+:\d{2})$", r"\1:00", regex=True)  # with seconds
    return _durations(pandas.to_timedelta(whole.str.replace(",", "")))


def _common_form(table: Table, column: str, text: Any) -> Times:
    """Read dates in the one common form that fits all rows."""
    import pandas

    forms = forms_of(text.iloc[0])
    if not forms:
        remedy = "Correct the cell, or name its form in time_format, as in '%d.%m.%Y %H:%M'."
        table.refuse_cell(0, column, "a time in a common form", remedy)
    read = {form: pandas.to_datetime(text, format=form, errors="coerce") for form in forms}
    failed = {form: int(np.argmax(dates.isna())) for form, dates in read.items() if dates.hasnans}
    fitting = [form for form in forms if form not in failed]
    if not fitting:
        furthest = max(failed, key=lambda form: failed[form])
        remedy = "Correct the cell, or name the form of all in time_format."
        table.refuse_cell(failed[furthest], column, f"a time written as {furthest}", remedy)
    first = read[fitting[0]].iloc[:2].dt
    if fitting == [DAY_OR_YEAR] and first.month.nunique() < first.year.nunique():
        remedy = f"Set time_format to '{DAY_OR_YEAR}' or '%b-%d'."
        table.refuse_cell(0, column, "a month and a year that are no month and day", remedy)
    other = next((f for f in fitting[1:] if not read[f].equals(read[fitting[0]])), None)
    if other is not None:
        expected = f"a time that is not both {fitting[0]} and {other}"
        row = int(np.argmax(read[other] != read[fitting[0]]))
        remedy = f"Set time_format to '{fitting[0]}' or '{other}'."
        table.refuse_cell(row, column, expected, remedy)
    return _dates(read[fitting[0]], fitting[0])


def _dates(values: Any, form: str | None = None) -> Times:
    import pandas

    dates = pandas.DatetimeIndex(values)
    in_utc = dates.tz_localize("UTC") if dates.tz is None else dates.tz_convert("UTC")
    return Times(in_utc.as_unit("us").asi8 / 1e6, dates, form)


def _durations(values: Any) -> Times:
    return Times(values.dt.total_seconds().to_numpy(dtype=np.float64) / HOUR, are_hours=True)
