"""Time as tables write it: read exactly, or refused, and never one day taken for another."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pytest

from ragged.data.tables.reader import table_from_frame
from ragged.data.tables.times import read_times
from ragged.errors import DataError, OptionError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


def read(cells, time_format: str | None = None):
    return read_times(table_from_frame(pandas.DataFrame({"t": cells})), "t", time_format)


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["1949-01", "1949-02"], "1949-02-01"),
        (["2024-01-31", "2024-02-01"], "2024-02-01"),
        (["2010/01/01 00:00", "2010/01/01 01:30"], "2010-01-01T01:30"),
        (["20240131", "20240201"], "2024-02-01"),
        ([20240131, 20240201], "2024-02-01"),
        (["202401", "202402"], "2024-02-01"),
        ([2024013123, 2024020100], "2024-02-01"),
        (["202401312330", "202402010000"], "2024-02-01"),
        (["20240131235959", "20240201000000"], "2024-02-01"),
        (["1970 Q1", "1970 Q2"], "1970-04-01"),
        (["1974Q1", "1974q4"], "1974-10-01"),
        (["1959 Q01", "1959 Q02"], "1959-04-01"),
        (["1959 M01", "1959 M02"], "1959-02-01"),
        (["20240131 05:00", "20240131 06:00"], "2024-01-31T06:00"),
        (["Q1-2001", "Q3-2001"], "2001-07-01"),
        (["2020-W53", "2021-W01"], "2021-01-04"),
        (["1998/99", "1999/00"], "1999-01-01"),
        (["1960-1961", "1961-1962"], "1961-01-01"),
        (["2020-02-28 23:00", "2020-02-28 24:00"], "2020-02-29"),
        (["31.12.2020 12:30", "31.12.2020 24:00"], "2021-01-01"),
        (["12/31/2020 12", "12/31/2020 24"], "2021-01-01"),
        (["2020W53", "2021W012"], "2021-01-05"),
        (["2015M01", "2015M02"], "2015-02-01"),
        (["1991 Jul", "1991 Aug"], "1991-08-01"),
        (["Jan 1 2000", "Feb 1 2000"], "2000-02-01"),
        (["January 2000", "February 2000"], "2000-02-01"),
        (["Jan-1-1995", "Feb-1-1995"], "1995-02-01"),
        (["04/30/2021", "05/01/2021"], "2021-05-01"),
        (["30.04.2021 12:00", "01.05.2021 12:00"], "2021-05-01T12:00"),
        (["04/30/2021 1:00 AM", "04/30/2021 1:00 PM"], "2021-04-30T13:00"),
        (["5-Jan-99", "6-Jan-99"], "1999-01-06"),
        (["Mon, 06 Jan 2020 10:00", "Tue, 07 Jan 2020 10:00"], "2020-01-07T10:00"),
        (["Monday, January 6, 2020", "Tuesday, January 7, 2020"], "2020-01-07"),
        (["Jan-20", "Feb-20"], "2020-02-01"),
        ([date(2020, 1, 1), date(2020, 1, 2)], "2020-01-02"),
        (pandas.period_range("2020-03", periods=2, freq="M"), "2020-04-01"),
        (pandas.period_range("2020Q1", periods=2, freq="Q"), "2020-04-01"),
    ],
)
def test_dates_in_common_forms(cells, second):
    times = read(cells)
    assert times.dates[1] == datetime.fromisoformat(second)
    expected = datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp()
    assert times.seconds[1] == expected


@pytest.mark.parametrize(
    ("cells", "time_format", "second"),
    [
        (["202053", "202101"], "%G%V", "2021-01-04"),
        (["2001-02", "2002-03"], "years", "2002-01-01"),
        (["2001-02", "2002-03"], "%Y-%m", "2002-03-01"),
        (["2020123123", "2020123124"], "%Y%m%d%H", "2021-01-01"),
        (["2020/52", "2021/01"], "%Y/%U", "2021-01-03"),  # weeks that start on Sunday
        (["2020/52", "2021/01"], "%Y/%W", "2021-01-04"),
        ([1609459200, 1609462800.5], "s", "2021-01-01T01:00:00.5"),
        (["1609459200000", "1609462800001"], "ms", "2021-01-01T01:00:00.001"),
        (["1949.917", "1950.000"], "year", "1950-01-01"),
        ([2000.25, 2000.5], "year", "2000-07-01"),
        ([2000.1, 2000.5], "year", "2000-07-02"),  # 2000 has 366 days
        ([1609459200 * 10**9, 1609462800 * 10**9 + 1], "ns", "2021-01-01T01:00"),
    ],
)
def test_weeks_without_a_day_and_clocks_are_read_where_they_are_named(cells, time_format, second):
    times = read(cells, time_format)
    assert (times.dates[1], times.format) == (datetime.fromisoformat(second), time_format)
    with refuses("at row 0, column 't'"):
        read(["soon", cells[1]], time_format)


def test_years_with_decimals_are_years():
    with refuses("is 12000 at row 1, column 't' in the frame; expected a year with decimals"):
        read([2000, 12000], "year")


def test_a_clock_read_in_another_unit_is_refused():
    with refuses("expected s since 1970, before the year 10000. Correct the cell, or name another"):
        read([1609459200000, 1609462800000], "s")


@pytest.mark.parametrize("name", ["UTC", "GMT"])
def test_a_zone_may_be_written_by_its_name(name):
    times = read([f"2020-01-01 00:00 {name}", f"2020-01-01 01:00 {name}"])
    assert str(times.dates[1]) == "2020-01-01 01:00:00+00:00"


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2.5"], [1, 2.5]),
        ([1949.0, 1949.5], [1949, 1949.5]),
        (["1949", "1950"], [1949, 1950]),  # years: numbers, a step of 1
        ([19491301, 19500101], [19491301, 19500101]),  # there is no month 13
        (["0 days 00:00:00", "1 days 12:00:00"], [0, 36]),
        (["00:15", "00:30"], [0.25, 0.5]),
        ([timedelta(0), timedelta(hours=2)], [0, 2]),
        ([time(0, 30), time(2)], [0.5, 2]),  # as Excel has them
        ([1609459200, 1609462800], [1609459200, 1609462800]),
    ],
)
def test_numbers_and_durations(cells, values):
    times = read(cells)
    assert (times.dates, times.seconds.tolist()) == (None, values)


def test_numbers_that_look_like_dates_stay_numbers_if_they_are_to():
    assert read(["20240131", "20240132"]).seconds.tolist() == [20240131, 20240132]
    assert read(["20240131", "20240201"], "number").seconds.tolist() == [20240131, 20240201]


@pytest.mark.parametrize(
    ("cells", "forms"),
    [
        (["01/02/2021", "02/02/2021"], "%m/%d/%Y' or '%d/%m/%Y"),
        (["01-02-21 10:00", "02-02-21 10:00"], "%m-%d-%y %H:%M' or '%d-%m-%y %H:%M"),
    ],
)
def test_a_day_that_may_be_the_month_is_refused_until_it_is_said(cells, forms):
    with refuses(f"is {cells[0]!r} at row 0, column 't'"):
        read(cells)
    with refuses(f"Set time_format to '{forms}'."):
        read(cells)
    month_first, day_first = forms.split("' or '")
    assert read(cells, month_first).dates[0].month == 1
    assert read(cells, day_first).dates[0].month == 2


def test_two_years_that_may_be_a_month_are_refused_until_it_is_said():
    with refuses("not both two years and %Y-%m. Set time_format to years or '%Y-%m'."):
        read(["2001-02", "2002-03", "2003-04"])
    assert [date.month for date in read(["2001-02", "2001-02"]).dates] == [2, 2]
    with refuses("is '1961/63' at row 1, column 't' in the frame; expected two years on end"):
        read(["1960/61", "1961/63"], "years")


def test_days_that_may_be_years_are_refused_until_it_is_said():
    with refuses("Set time_format to '%b-%y' or '%b-%d'."):
        read(["Jan-01", "Jan-02", "Jan-03"])
    assert [date.year for date in read(["Jan-01", "Jan-02"], "%b-%y").dates] == [2001, 2002]


def test_an_hour_24_with_minutes_is_refused():
    with refuses("'2020-02-28 24:30' at row 0"):
        read(["2020-02-28 24:30"])
    assert read(["23:00", "24:00"]).seconds.tolist() == [23, 24]  # durations


def test_days_that_are_the_month_on_all_rows_are_clear():
    assert read(["01/01/2021", "02/02/2021"]).dates[1] == datetime(2021, 2, 2)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["2020-01-01", "2020-13-01"],
            "is '2020-13-01' at row 1, column 't' in the frame; expected",
        ),
        (["04/30/2021", "05/32/2021"], "is '05/32/2021' at row 1, column 't' in the frame; expect"),
        (["04/30/2021", "05/32/2021"], "expected a time written as %m/%d/%Y. Correct the cell,"),
        (["1970 Q1", "1970 Q5"], "is '1970 Q1' at row 0, column 't'"),
        (["3 weeks ago", "now"], "or name its form in time_format, as in '%d.%m.%Y %H:%M'."),
        (["2020-01-01", "yesterday"], "is 'yesterday' at row 1"),
        (["2020-01-01", ""], "is an empty cell at row 1"),
        ([None, "2020-01-01"], "is an empty cell at row 0"),
        (["1", "two"], "is 'two' at row 1, column 't' in the frame; expected a number"),
        ([date(2020, 1, 1), "x"], "is 'x' at row 1"),
    ],
)
def test_cells_that_are_no_time_are_refused(cells, message):
    with refuses(message):
        read(cells)


def test_digits_are_read_in_a_form_that_is_named_or_refused():
    assert read([210131.0, 210201.0], "%y%m%d").dates[1] == datetime(2021, 2, 1)
    with refuses("is 210132 at row 1, column 't' in the frame; expected a time written as %y%m%d"):
        read([210131, 210132], "%y%m%d")


def test_a_form_is_named():
    times = read(["31|12|99", "01|01|00"], "%d|%m|%y")
    assert (times.dates[1], times.format) == (datetime(2000, 1, 1), "%d|%m|%y")
    with refuses("is '31.12.99' at row 0, column 't' in the frame; expected a time written as %d|"):
        read(["31.12.99"], "%d|%m|%y")
    with refuses("`time_format` is '%Y-%E'", OptionError):
        read(["2020-01"], "%Y-%E")
    times = read(["2020-01-01 +0100", "2020-07-01 +0200"], "%Y-%m-%d %z")
    assert times.seconds[0] == datetime(2019, 12, 31, 23, tzinfo=UTC).timestamp()


def test_zones_are_kept_where_there_is_one():
    times = read(["2021-05-01T00:00+05:30", "2021-05-01T01:00+05:30"])
    assert times.dates[1].hour == 1
    assert times.seconds[1] == datetime(2021, 4, 30, 19, 30, tzinfo=UTC).timestamp()
    zoned = pandas.date_range("2021-03-28", periods=4, freq="h", tz="Europe/Berlin")
    times = read(zoned)
    assert np.diff(times.seconds).tolist() == [3600.0] * 3
    assert times.dates[2].hour == 3  # the clock went forward
