"""Time in several columns: read as one date, or refused."""

from __future__ import annotations

import re
from datetime import datetime, time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragged.data import Tables
from ragged.errors import DataError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def tables(columns: dict, *, time, **options) -> Tables:
    frame = pandas.DataFrame({**columns, "x": np.arange(float(len(next(iter(columns.values())))))})
    return Tables.from_frame(frame, ["x"], time=time, **options)


def dates(columns: dict, **options) -> list[str]:
    source = tables(columns, time=list(columns), calendar="none", **options)
    return [str(date) for event in source.events() for date in event.dates]


@pytest.mark.parametrize(
    ("columns", "second"),
    [
        ({"Year": [1950, 1950], "MON": [1, 2]}, "1950-02-01"),
        ({"year": ["1950", "1950"], "month": ["Jan", "Feb"]}, "1950-02-01"),
        ({"month": ["January", "February"], "year": [1950, 1950]}, "1950-02-01"),
        ({"year": [2004.0, 2004.0], "month": [1.0, 2.0]}, "2004-02-01"),
        ({"day": [1, 2], "month": [3, 3], "year": [2004, 2004]}, "2004-03-02"),
        ({"yr": [2004] * 2, "mo": [2] * 2, "dd": [28] * 2, "hr": [23, 24]}, "2004-02-29"),
        ({"year": [2004, 2004], "quarter": [1, 2]}, "2004-04-01"),
        ({"Qtr": ["Q1", "Q2"], "year": [2004, 2004]}, "2004-04-01"),
        ({"year": [2020, 2021], "week": [53, 1]}, "2021-01-04"),
        ({"year": [2004, 2004], "doy": [1, 32]}, "2004-02-01"),
        ({"date": ["2004-01-01"] * 2, "hour": [4, 5]}, "2004-01-01 05:00:00"),
        ({"date": ["31.01.2004"] * 2, "hour": [23, 24]}, "2004-02-01"),
        ({"date": ["2004-01-01"] * 2, "time": ["4:15", "4:30"]}, "2004-01-01 04:30:00"),
        ({"date": ["01/31/2004"] * 2, "time": [845, 2400]}, "2004-02-01"),
        ({"day": ["2004-01-01"] * 2, "hour": [4, 5]}, "2004-01-01 05:00:00"),
        ({"Date": [datetime(2004, 1, 1)] * 2, "Time": [time(4), time(5)]}, "2004-01-01 05:00:00"),
        ({"Date": [20040101] * 2, "h": [4, 5]}, "2004-01-01 05:00:00"),
    ],
)
def test_parts_of_a_date_are_read_by_their_names(columns, second):
    assert dates(columns)[1] in (second, f"{second} 00:00:00")


def test_other_names_and_years_of_two_digits_are_read_where_their_form_is_named():
    columns = {"Jahr": [1950, 1950], "Monat": [1, 2]}
    with pytest.raises(DataError, match=r"'1950 01' in 'Jahr' and 'Monat' .* as '%Y %m'"):
        dates(columns)
    assert dates(columns, time_format="%Y %m")[1] == "1950-02-01 00:00:00"
    assert dates({"year": [98, 98], "month": [1, 2]})[1] == "1998-02-01 00:00:00"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Month": [5, 5], "Day": [1, 2]}, "is '05 01' in 'Month' and 'Day'"),
        ({"year": [1961, 1961], "day": [1, 2]}, "set time_format, as '%Y %j'."),
        ({"year": [1961, 1961], "month": [12, 13]}, "'1961 13' at row 1, column 'year month'"),
        ({"year": [1961, 1961], "month": [12, None]}, "is an empty cell at row 1, column 'year"),
    ],
)
def test_parts_that_make_no_date_are_refused(columns, message):
    with pytest.raises(DataError, match=re.escape(message)):
        dates(columns)


def test_the_form_is_kept_for_the_next_table():
    source = tables({"year": [1961, 1961], "month": ["Jan", "Feb"]}, time=["year", "month"])
    assert (source.resolved["time_format"], source.time_label) == ("%Y %b", "year month")
    assert source.resolved["frequency"] == "MS"
    frame = pandas.DataFrame({"year": [1961], "month": ["May"], "x": [1.0]})
    assert str(source.read(frame)[0].dates[0]) == "1961-05-01 00:00:00"


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1, unique=True),
    st.integers(2, 6),
    st.randoms(use_true_random=False),
)
def test_random_dates_come_back_from_their_parts_in_any_order(stamps, count, random):
    names = ["year", "month", "day", "hour", "minute", "second"][:count]
    cut = sorted(
        {datetime(*(*stamp.timetuple()[:count], 1, 1)[: max(count, 3)]) for stamp in stamps}
    )
    columns = {name: [getattr(stamp, name) for stamp in cut] for name in names}
    random.shuffle(names)
    source = tables(columns, time=names, calendar="none", gaps="keep")
    (event,) = source.events()
    assert list(event.dates) == cut
