"""From tables to series: order, repetition, frequency, gaps, calendar and words; all told."""

from __future__ import annotations

import re
import sys
from datetime import datetime

import numpy as np
import pytest

from ragged.data import EncoderDecoderDataModule, Tables, Windows
from ragged.data.tables.frequency import Frequency, find_frequency, parse_frequency
from ragged.data.tables.future import Future
from ragged.errors import DataError, MissingExtraError, OptionError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

nan = np.nan


def refuses(message: str):
    return pytest.raises(DataError, match=re.escape(message))


def tables(columns: dict, **options: object) -> Tables:
    given: dict = {"target": ["y"], "time": "t"}
    return Tables.from_frame(pandas.DataFrame(columns), **given | options)


def values(source: Tables, column: str = "y") -> dict[str, list[float]]:
    return {event.name: event.columns[column].tolist() for event in source.events()}


def test_rows_are_sorted_and_it_is_told():
    source = tables({"g": list("abab"), "t": [2, 2, 1, 3], "y": [1.0, 2, 3, 4]}, group="g")
    assert values(source) == {"a": [3, 1], "b": [2, 4]}
    assert source.notes == ["rows were sorted by time in: a"]
    with refuses("`t` is 1 after 2 (event '0', step 1); expected a greater value on each row. So"):
        tables({"t": [2, 1], "y": [1.0, 2]}, sort=False).events()
    assert values(tables({"t": [1, 2], "y": [1.0, 2]}, sort=False)) == {"0": [1, 2]}


def test_repeated_times_are_refused_or_merged():
    columns = {"t": [0, 1, 1, 1, 2], "y": [0.0, 1, nan, 5, 6]}
    with refuses("`t` is 1 after 1 (event '0', step 2); expected a greater value on each row. If"):
        tables(columns).events()
    with refuses("name their column in group. Else: Set duplicates to first, last or mean."):
        tables(columns).events()
    for duplicates, expected in (("first", 1), ("last", 5), ("mean", 3)):
        source = tables(columns, duplicates=duplicates, missing="ffill")
        assert values(source) == {"0": [0, expected, 6]}
        assert source.notes == ["rows merged with others of the same time: 2"]


def test_of_rows_of_one_time_the_first_is_the_first_in_the_table():
    times = [1] * 40 + [0] * 40  # sorting has to keep the order of equals
    source = tables({"t": times, "y": np.arange(80.0)}, duplicates="first")
    assert values(source) == {"0": [40, 0]}


def test_a_number_stands_for_unknown_however_it_is_written():
    source = tables({"t": [0, 1], "y": [1.0, -999.0]}, na_values=[-999], missing="ffill")
    np.testing.assert_array_equal(values(source)["0"], [1, nan])


def test_the_mean_of_nothing_known_is_unknown():
    source = tables({"t": [0, 1, 1], "y": [1, nan, nan]}, duplicates="mean", missing="ffill")
    np.testing.assert_array_equal(values(source)["0"], [1, nan])


def test_several_columns_name_a_series():
    frame = {"g": ["01", "01", "1"], "k": [7, 8, 7], "t": [0, 0, 0], "y": [1.0, 2, 3]}
    assert list(values(tables(frame, group=["g", "k"]))) == ["01/7", "01/8", "1/7"]


def test_numbers_of_series_keep_their_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("g,y\n007,1\n7,2\n")
    source = Tables(str(tmp_path / "a.csv"), ["y"], group="g")
    assert values(source) == {"007": [1], "7": [2]}


def dates(start: str, periods: int, freq: str):
    return pandas.date_range(start, periods=periods, freq=freq)


@pytest.mark.parametrize(
    ("freq", "name", "size"),
    [
        ("YS", "YS", 12),
        ("QE", "QS", 3),
        ("MS", "MS", 1),
        ("ME", "MS", 1),
        ("2MS", "2MS", 2),
        ("BME", "MS", 1),
        ("W", "W", 7 * 86400),
        ("B", "B", 1),
        ("D", "D", 86400),
        ("h", "h", 3600),
        ("15min", "15min", 900),
        ("s", "s", 1),
    ],
)
def test_frequencies_are_found(freq, name, size):
    days = dates("2019-01-01", 30, freq)
    found = find_frequency(days.as_unit("s").asi8.astype(float), days)
    assert (found.name, found.size) == (name, size)
    assert parse_frequency(name) == found
    steps = found.steps(days.as_unit("s").asi8.astype(float), days)
    np.testing.assert_array_equal(steps, np.ones(29))


def test_four_weeks_are_no_month():
    days = dates("2019-01-01", 14, "28D")
    assert find_frequency(days.as_unit("s").asi8.astype(float), days).name == "4W"


def test_a_month_is_a_step_and_a_missing_one_a_gap():
    months = dates("2019-01-31", 24, "ME")
    source = tables({"t": months, "y": np.arange(24.0)})
    assert [event.steps for event in source.events()] == [24]
    with refuses("is 1416 hours after the step before (event '0', step 1); expected steps of abo"):
        tables({"t": months.delete(1), "y": np.arange(23.0)}).events()


def test_weekends_and_holidays_are_no_gaps_on_business_days():
    days = dates("2024-01-01", 40, "B").delete([10, 30, 31])
    source = tables({"t": days, "y": np.arange(37.0)})
    assert [event.steps for event in source.events()] == [37]
    assert source.resolved["frequency"] == "B"
    with refuses("after the step before"):
        tables({"t": days.delete(range(12, 18)), "y": np.arange(31.0)}).events()


@pytest.mark.parametrize("closed", [["Sunday"], ["Friday", "Saturday"], ["Tuesday"]])
def test_days_of_the_week_without_any_row_are_no_gaps(closed):
    days = dates("2024-01-01", 42, "D").tz_localize(
        "Europe/Berlin"
    )  # whose days begin before those of UTC
    days = days[~days.day_name().isin(closed)]
    source = tables({"t": days.delete([8]), "y": np.arange(len(days) - 1.0)})
    with refuses("after the step before"):
        tables({"t": days.delete(range(6, 13)), "y": np.arange(len(days) - 7.0)}).events()
    with refuses("after the step before"):  # two weeks may be chance
        tables({"t": days[:10], "y": np.arange(10.0)}).events()
    (event,) = source.events()
    name = source.resolved["frequency"]
    assert (event.steps, source.season, parse_frequency(name).name) == (
        len(days) - 1,
        7 - len(closed),
        name,
    )
    (event,) = source.read(pandas.DataFrame({"t": days[:28], "y": np.arange(28.0)}), Future(2))
    assert event.dates[28:].tolist() == days[28:30].tolist()


def test_seven_days_a_week_have_gaps_at_weekends():
    days = dates("2024-01-01", 21, "D").delete([12, 13])  # one weekend of three
    with refuses("is 72 hours after the step before (event '0', step 12)"):
        tables({"t": days, "y": np.arange(19.0)}).events()
    with refuses("after the step before"):
        tables({"t": days[8:], "y": np.arange(11.0)}, frequency="D").events()


@pytest.mark.parametrize(
    ("named", "dense", "said"),
    [
        (
            "D",
            "h",
            "is 1 hour after the step before (event '0', step 1); expected steps of about 24",
        ),
        ("MS", "W", "(event '0', step 1); expected steps of about 1 month. Give a row for each of"),
        ("B", "6h", "is 6 hours after the step before (event '0', step 1); expected steps of"),
    ],
)
def test_rows_that_come_more_often_than_their_frequency_are_refused(named, dense, said):
    """A model of days would take hours for days."""
    columns = {"t": dates("2024-01-01", 40, dense), "y": np.arange(40.0)}
    for gaps in ("error", "split"):
        with refuses(said):
            tables(columns, frequency=named, gaps=gaps).events()
    tables(columns, frequency=named, gaps="keep").events()
    learnt = tables({**columns, "t": dates("2024-01-01", 40, named)})
    learnt.events()
    with refuses(said):
        learnt.read(pandas.DataFrame(columns))


def test_irregular_rows_are_kept_with_their_steps():
    columns = {"t": [0.0, 1, 5, 6], "y": [1.0, 2, 3, 4]}
    with refuses("where rows come at any time, set gaps to keep"):
        tables(columns).events()
    source = tables(columns, gaps="keep")
    (event,) = source.events()
    assert source.roles.known == ("t since the row before",)
    assert event.columns["t since the row before"].tolist() == [1, 1, 4, 1]
    assert source.notes == ["columns were added: t since the row before"]


def test_parts_know_their_series():
    source = tables({"t": [0.0, 1, 5, 6], "y": [1.0, 2, 3, 4]}, gaps="split")
    assert [(event.name, event.part_of) for event in source.events()] == [
        ("0 (1)", "0"),
        ("0 (2)", "0"),
    ]


def test_the_calendar_follows_the_frequency():
    for freq, periods, cycles in (
        ("YS", 30, "none"),
        ("QS", 30, ["month"]),
        ("MS", 30, ["month"]),
        ("D", 20, ["day_of_week"]),
        ("D", 400, ["day_of_week", "day_of_year"]),
        ("h", 30, ["time_of_day"]),
        ("h", 200, ["time_of_day", "day_of_week"]),
        ("15min", 50, "none"),  # half a day
    ):
        source = tables({"t": dates("2023-01-01", periods, freq), "y": np.zeros(periods)})
        assert source.resolved["calendar"] == cycles, (freq, periods)


def test_calendar_columns_are_sine_and_cosine():
    source = tables({"t": dates("2023-01-01", 24, "MS"), "y": np.zeros(24)})
    (event,) = source.events()
    assert source.roles.known == ("month (sin)", "month (cos)")
    angle = 2 * np.pi * np.arange(24) / 12
    np.testing.assert_allclose(event.columns["month (sin)"], np.sin(angle), atol=1e-14)
    np.testing.assert_allclose(event.columns["month (cos)"], np.cos(angle), atol=1e-14)
    assert source.notes == ["columns were added: month (sin), month (cos)"]


def test_hours_and_days_are_those_of_the_zone():
    stamps = pandas.DatetimeIndex(["2024-01-01T23:00Z", "2024-01-02T05:00Z"])
    columns = {"t": stamps.tz_convert("Asia/Tokyo"), "y": [1.0, 2]}  # Tuesday, 8:00 and 14:00
    (event,) = tables(columns, calendar=["time_of_day", "day_of_week"]).events()
    hour = 2 * np.pi * np.array([8, 14]) / 24
    np.testing.assert_allclose(event.columns["time_of_day (cos)"], np.cos(hour))
    day = 2 * np.pi * 1 / 7
    np.testing.assert_allclose(event.columns["day_of_week (sin)"], [np.sin(day)] * 2)


def test_the_calendar_is_named_or_turned_off():
    columns = {"t": dates("2023-01-01", 24, "MS"), "y": np.zeros(24)}
    assert tables(columns, calendar="none").roles.known == ()
    known = tables(columns, calendar=["day_of_week"]).roles.known
    assert known == ("day_of_week (sin)", "day_of_week (cos)")
    for given, said in (
        ({"calendar": ["month"]}, "`calendar` is ['month'] for a time without dates; expected dat"),
        ({"frequency": "MS"}, "`frequency` is MS for a time without dates; expected dates in `t`"),
    ):
        with refuses(said):
            tables({"t": [1, 2], "y": [1.0, 2]}, **given).events()


def test_series_without_a_target_are_left_out_and_told():
    columns = {"g": list("aabbcc"), "t": [0, 1] * 3, "y": [1.0, 2, nan, nan, 5, nan]}
    source = tables(columns, group="g", missing="ffill")
    assert list(values(source)) == ["a", "c"]
    assert source.notes == ["left out, the target is never known: b"]
    with refuses("`y` is empty, on every row; expected values to learn from. Name another target."):
        tables({"t": [0, 1], "y": [nan, nan]}, missing="ffill").events()


def test_empty_rows_are_no_steps(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x,y\n0,1,1\n,,\n1,2,2\n,,\n2,bad,1\n")
    source = Tables(str(path), ["y"], time="t")
    assert [event.columns["y"].tolist() for event in source.events()] == [[1, 2, 1]]
    assert source.notes == ["empty rows, left out: 2"]
    with refuses("is 'bad' at line 6, column 'x'"):
        Tables(str(path), ["y"], known=["x"], time="t").events()


def test_without_a_time_remarks_below_the_last_value_are_no_steps(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,y\na,1\n,\nb,2\nSource:,\nthe office,\n")
    source = Tables(str(path), ["y"], missing="ffill")
    np.testing.assert_array_equal(source.events()[0].columns["y"], [1, nan, 2])
    assert source.notes == ["empty rows, left out: 2"]
    assert len(source.read(path)[0].time) == 5  # to forecast


@pytest.mark.parametrize(("step", "name"), [("16ms", "16ms"), ("250us", "250us"), ("90s", "90s")])
def test_a_short_step_is_read_again_from_what_was_kept(step, name):
    stamps = pandas.date_range("2024-01-01 00:04:40.016", periods=4, freq=step)
    source = tables({"t": stamps, "y": np.arange(4.0)})
    assert source.resolved["frequency"] == name
    again = tables({"t": stamps, "y": np.arange(4.0)}, frequency=name)
    assert [len(event.time) for event in again.events()] == [4]


def test_what_the_data_decided_reads_another_table_alike(tmp_path):
    days = pandas.date_range("2021-01-01", "2021-02-28").strftime("%d/%m/%Y")
    source = tables({"t": days, "kind": ["a", "b"] * 29 + ["a"], "y": range(59)}, known=["kind"])
    assert source.events()[0].steps == 59
    assert source.notes[0] == "dates were read as %d/%m/%Y"
    assert source.resolved == {
        "time_format": "%d/%m/%Y",
        "frequency": "D",
        "calendar": ["day_of_week"],
        "labels": "none",
        "categories": {"kind": ["a", "b"]},
    }
    path = tmp_path / "new.csv"
    path.write_text("t,kind,y\n01/02/2021,a,1\n02/02/2021,a,\n")
    again = Tables("gone.csv", ["y"], known=["kind"], time="t", **source.resolved)
    (event,) = again.read(path)
    assert event.start == datetime(2021, 2, 1)
    assert again.roles == source.roles
    assert again.resolved == {}


def test_frequencies_are_equal_by_their_size():
    assert parse_frequency("90min") == Frequency("90min", 5400.0)


def module(
    columns: dict, source: dict | None = None, **options: object
) -> EncoderDecoderDataModule:
    return EncoderDecoderDataModule(tables(columns, **source or {}), **options)


def sections(data: EncoderDecoderDataModule) -> list[list[tuple[str, int, int]]]:
    return [
        [(data.events[s.index].name, s.begin, s.end) for s in sections] for sections in data.splits
    ]


def test_parts_of_one_series_are_split_in_time():
    times = np.concatenate([np.arange(30.0), np.arange(40, 64), np.arange(70, 73)])
    data = module({"t": times, "y": np.sin(times)}, {"gaps": "split"}, windows=Windows(4, 2))
    train, validation, test = sections(data)  # the third part is no row: 38, 5 and 11 steps
    assert train == [("0 (1)", 0, 30), ("0 (2)", 0, 8)]
    assert validation == [("0 (2)", 8, 13)]
    assert test == [("0 (2)", 13, 24)]
    assert data.sizes == {"training": (28, 38), "validation": (3, 5), "test": (6, 11)}
    assert data.notes[-1] == "1 of 3 events were dropped: too short"


def test_parts_of_a_series_stay_together_where_series_are_told_apart():
    times = np.array([0.0, 1, 2, 8, 9, 10])
    columns = {
        "g": np.repeat(list("abcd"), 6),
        "t": np.tile(times, 4),
        "y": np.arange(24.0),
    }
    data = module(columns, {"gaps": "split", "group": "g"}, validation=0.25, test=0.25)
    names = [[name for name, *_ in each] for each in sections(data)]
    assert names == [["a (1)", "a (2)", "b (1)", "b (2)"], ["c (1)", "c (2)"], ["d (1)", "d (2)"]]


def test_a_part_gives_horizons_after_a_whole_context_only():
    times = np.concatenate([np.arange(34.0), np.arange(40, 56)])  # 35, 5 and 10 steps
    data = module({"t": times, "y": times}, {"gaps": "split"}, windows=Windows(5, 2))
    train, validation, test = sections(data)
    assert train == [("0 (1)", 0, 34)]  # one step of the second part is no row
    assert validation == [("0 (2)", 5, 6)]
    assert test == [("0 (2)", 6, 16)]


def test_without_a_known_column_the_position_is_one():
    data = module({"t": np.arange(20.0), "y": np.arange(20.0)}, windows=Windows(3, 2))
    assert data.roles.known == ("step from the start of the horizon",)
    assert (data.past_features, data.future_features) == (2, 1)
    row = data.train[1]
    np.testing.assert_allclose(row.past[:, 0], -np.log1p([3, 2, 1]))
    np.testing.assert_allclose(row.future[:, 0], np.log1p([0, 1]))


def test_targets_that_never_change_are_told():
    columns = {"g": np.repeat(list("abc"), 4), "t": np.tile(np.arange(4.0), 3)}
    flat = module(columns | {"y": np.ones(12)}, {"group": "g"}, validation=0, test=0)
    assert flat.notes == ["target 'y' never changes in training: there is nothing to learn"]
    one = module(columns | {"y": [1.0] * 4 + [*range(8)]}, {"group": "g"}, validation=0, test=0)
    assert one.notes == ["target 'y' never changes in 1 of 3 events: a"]


def test_a_column_that_is_empty_is_to_be_left_out():
    columns = {"t": [0, 1], "y": [1.0, 2], "x": [nan, nan]}
    for options in ({"known": ["x"]}, {"past": ["x"]}, {"static": ["x"], "missing": "ffill"}):
        with refuses("`x` is empty, on every row; expected values to learn from. Leave the col"):
            tables(columns, **options).events()


def test_numbers_that_may_be_dates_are_told():
    columns = {"t": [1609459200, 1609462800], "y": [1.0, 2]}
    for form, times in (("s", columns["t"]), ("year", [1949.0, 1949.08, 1949.17])):
        source = tables({"t": times, "y": np.arange(float(len(times)))}, gaps="keep")
        source.events()
        assert source.notes[0].startswith(f"'t' is read as numbers: with time_format: {form} they")
    hours = tables(columns, time_format="s")
    assert (hours.season, hours.notes) == (24, [])
    for quiet in ({"time": None}, {"time_format": "number"}):
        source = tables(columns, **quiet)
        source.events()
        assert source.notes == []


def test_holidays_of_a_country_are_a_known_column(monkeypatch):
    pytest.importorskip("holidays")
    days = {"t": ["2023-10-02", "2023-10-03", "2023-10-04"], "y": [1.0, 2, 3]}
    german = tables(days, holidays="DE", calendar="none")
    assert german.roles.known == ("holiday (DE)",)
    assert values(german, "holiday (DE)") == {"0": [0, 1, 0]}
    assert german.notes == ["columns were added: holiday (DE)"]
    american = tables(days, holidays="US-CA")
    assert values(american, "holiday (US-CA)") == {"0": [0, 0, 0]}
    for country in ("XX", "US-ZZ"):
        with pytest.raises(OptionError, match=f"`holidays` is '{country}' .*expected a country's"):
            tables(days, holidays=country).events()
    with refuses("`holidays` is US for a time without dates; expected dates in `t`"):
        tables({"t": [0, 1], "y": [1.0, 2]}, holidays="US").events()
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(MissingExtraError, match="`holidays` is 'DE'; expected the package holiday"):
        tables(days, holidays="DE").events()
