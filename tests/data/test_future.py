"""The times of the steps to forecast follow from those of the rows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

import pandas

from ragged.data import Tables
from ragged.data.tables.future import Future
from ragged.errors import DataError

ZONE = "Europe/Berlin"
REGULAR = {
    "months": ("2023-10-01", "MS", None),
    "ends of months": ("2023-10-31", "ME", None),
    "quarters": ("2022-03-31", "QE", None),
    "quarters of a shifted year": ("2022-02-01", "QS-FEB", None),
    "years": ("2015-01-01", "YS", None),
    "last business days of months": ("2023-10-31", "BME", None),
    "weeks": ("2023-10-04", "W-WED", None),
    "business days": ("2023-10-05", "B", None),
    "days": ("2024-02-20", "D", None),
    "two days": ("2024-02-20", "2D", None),
    "hours": ("2024-02-28", "h", None),
    "15 minutes": ("2024-02-28", "15min", None),
    "days where clocks change": ("2024-03-18", "D", ZONE),
    "hours where clocks change": ("2024-10-26 13:00", "h", ZONE),
    "months where clocks change": ("2023-08-01", "MS", ZONE),
    "hours in UTC": ("2024-03-30 18:00", "h", "UTC"),
}


def read(frame, future=None, **options):
    options = {"target": ["y"], "time": "t", **options}
    source = Tables.from_frame(frame, **options)
    source.events()
    return source, source.read(frame, future or Future(4))


@pytest.mark.parametrize("case", REGULAR)
def test_regular_dates_go_on(case):
    start, frequency, zone = REGULAR[case]
    dates = pandas.date_range(start, periods=16, freq=frequency, tz=zone)
    _, (event,) = read(pandas.DataFrame({"t": dates[:12], "y": np.arange(12.0)}))
    assert event.dates.tolist() == dates.tolist()
    assert event.dates.tz == dates.tz
    hours = (dates - dates[0]) / pandas.Timedelta(hours=1)
    np.testing.assert_allclose(event.time, hours, rtol=0, atol=1e-6)
    assert np.isnan(event.columns["y"]).tolist() == [False] * 12 + [True] * 4


def test_dates_that_clocks_pass_over_are_moved():
    """In Santiago the clocks go from 24:00 to 1:00 on 7 September 2024."""
    dates = pandas.date_range("2024-09-03", periods=5, freq="D", tz="America/Santiago")
    _, (event,) = read(pandas.DataFrame({"t": dates, "y": np.arange(5.0)}))
    found = event.dates[5:].tz_localize(None).strftime("%m-%d %H").tolist()
    assert found == ["09-08 01", "09-09 00", "09-10 00", "09-11 00"]


def test_months_without_a_rule_keep_their_day_and_ends_their_end():
    days = ["2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30", "2023-05-30"]
    frame = pandas.DataFrame({"t": pandas.to_datetime(days), "y": np.arange(5.0)})
    _, (event,) = read(frame)
    expected = ["2023-06-30", "2023-07-30", "2023-08-30", "2023-09-30"]
    assert event.dates[5:].strftime("%Y-%m-%d").tolist() == expected


def test_business_days_with_a_holiday_go_on():
    dates = pandas.date_range("2023-12-11", periods=20, freq="B").delete(10)  # Christmas
    _, (event,) = read(pandas.DataFrame({"t": dates, "y": np.arange(19.0)}))
    found = event.dates[19:].strftime("%m-%d").tolist()
    assert found == ["01-08", "01-09", "01-10", "01-11"]


def test_numbers_steps_and_durations_go_on():
    for times, expected in (
        ([2001, 2003, 2005], [2007, 2009, 2011, 2013]),
        ([0.5, 1.0, 1.5], [2.0, 2.5, 3.0, 3.5]),
    ):
        _, (event,) = read(pandas.DataFrame({"t": times, "y": [1.0, 2.0, 3.0]}))
        assert event.stamps[3:].tolist() == expected
    source, (event,) = read(pandas.DataFrame({"y": [1.0, 2.0]}), time=None)
    assert (source.time_column, event.stamps.tolist()) == ("step", [0, 1, 2, 3, 4, 5])
    hours = pandas.to_timedelta([0, 2, 4], unit="h")
    source, (event,) = read(pandas.DataFrame({"t": hours, "y": [1.0, 2.0, 3.0]}))
    assert (source.time_column, event.stamps[3:].tolist()) == ("t (h)", [6, 8, 10, 12])


def test_rows_without_a_target_count_as_steps_and_further_ones_are_cut():
    dates = pandas.date_range("2024-01-01", periods=10, freq="D")
    frame = pandas.DataFrame({"t": dates, "y": [*np.arange(7.0), *[np.nan] * 3]})
    options = {"missing": "ffill"}
    for future, steps in (
        (Future(), 10), (Future(2), 9), (Future(5), 12), (Future(default=6), 10),
    ):  # fmt: skip
        _, (event,) = read(frame, future, **options)
        assert event.steps == steps
    _, (event,) = read(frame[:7], Future(default=6))
    assert event.steps == 13


def test_static_columns_are_repeated_and_the_calendar_goes_on():
    dates = pandas.date_range("2024-01-01", periods=28, freq="D")
    frame = pandas.DataFrame({"t": dates, "y": np.arange(28.0), "size": 3.0, "rain": 1.0})
    source, (event,) = read(frame, static=["size"], past=["rain"])
    assert event.columns["size"][28:].tolist() == [3.0] * 4
    assert np.isnan(event.columns["rain"][28:]).all()
    name = "day_of_week (sin)"
    assert name in source.roles.known
    np.testing.assert_array_equal(event.columns[name][28:], event.columns[name][21:25])


def test_the_last_part_of_a_series_with_gaps_is_forecast():
    dates = pandas.date_range("2024-01-01", periods=20, freq="D").delete([7, 8, 9])
    frame = pandas.DataFrame({"t": dates, "g": "a", "y": np.arange(17.0)})
    _, (event,) = read(frame, gaps="split", group="g")
    assert (event.part_of, event.labels, event.steps) == ("a", ("a",), 10 + 4)
    assert event.columns["y"][0] == 7


def test_rows_at_any_time_have_no_next_one():
    dates = pandas.to_datetime(["2024-01-01", "2024-01-02", "2024-01-09", "2024-01-10"])
    frame = pandas.DataFrame({"t": dates, "y": np.arange(4.0)})
    with pytest.raises(DataError, match=r"`time` is uneven in '0', .* Give the rows of the future"):
        read(frame, gaps="keep")
    with pytest.raises(DataError, match="`time` is on one row of '0'"):
        read(frame[:1])
