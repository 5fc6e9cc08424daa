"""Users' own tables: what every imperfection of a table comes to, and that no value is lost."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ragged.data import Tables
from ragged.errors import DataError, MissingExtraError, OptionError

nan = np.nan


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str | bytes, name: str = "wells.csv") -> Path:
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return _write


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


def wells(path: object, **options: object) -> Tables:
    given: dict = {"target": ["level"], "known": ["rain"], "group": "well", "time": "t"}
    return Tables(str(path), **given | options)


def columns_of(events, column: str) -> dict[str, list[float]]:
    return {event.name: event.columns[column].tolist() for event in events}


TABLE = "well,t,rain,level,note\nb,0,1,10,x\na,5,4,20,y\nb,1,2,11,\nb,2,3,12,z\na,6,5,21,\n"


def test_groups_keep_every_value_in_the_order_of_the_file(write):
    events = wells(write(TABLE)).events()
    assert columns_of(events, "rain") == {"b": [1, 2, 3], "a": [4, 5]}
    assert columns_of(events, "level") == {"b": [10, 11, 12], "a": [20, 21]}
    assert [event.time.tolist() for event in events] == [[0, 1, 2], [5, 6]]
    assert [event.start for event in events] == [None, None]


def test_without_a_group_each_file_is_an_event(write, tmp_path):
    write("level\n1\n2\n", "b.csv")
    write("level\n3\n", "a.csv.gz")
    write("not a table", "readme.txt")
    source = Tables(str(tmp_path), ["level"])
    assert columns_of(source.events(), "level") == {"a": [3], "b": [1, 2]}
    assert source.events()[1].time.tolist() == [0.0, 1.0]
    assert source.time_label == "step"
    (alone,) = source.read(tmp_path / "b.csv")
    assert (alone.name, alone.steps) == ("b", 2)


def test_groups_of_a_folder_are_told_apart(write, tmp_path):
    write(TABLE, "x.csv")
    write(TABLE, "y.csv")
    names = [event.name for event in wells(tmp_path).events()]
    assert names == ["x/b", "x/a", "y/b", "y/a"]


def test_datetimes_become_hours_and_sort_the_events(write):
    source = wells(
        write(
            "well,t,rain,level\nlate,2020-03-01T00:00,1,1\nlate,2020-03-01T01:30,1,2\n"
            "early,2020-02-29 23:00,1,3\nearly,2020-03-01 00:30,1,4\n"
        )
    )
    events = source.events()
    assert columns_of(events, "level") == {"early": [3, 4], "late": [1, 2]}
    assert [event.time.tolist() for event in events] == [[0.0, 1.5], [0.0, 1.5]]
    assert events[0].start == datetime(2020, 2, 29, 23)
    assert source.time_label == "time since the start of the event (h)"


def test_time_zones_are_honoured(write):
    text = "well,t,rain,level\na,2020-03-29T01:00+01:00,1,1\na,2020-03-29T03:00+02:00,1,2\n"
    (event,) = wells(write(text)).events()
    assert event.time.tolist() == [0.0, 1.0]
    assert event.start.astimezone(UTC) == datetime(2020, 3, 29, tzinfo=UTC)


def test_labels_and_units(write):
    source = wells(write(TABLE), units={"rain": "mm", "t": "d"})
    assert source.units == {"rain": "mm", "level": "-"}
    assert source.time_label == "t (d)"
    assert source.roles.encoder == ("rain", "level")


HEADER = "well,t,rain,level\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is an empty file in"),
        (HEADER, "is a header without rows in"),
        ("well,t,rainfall,level\na,0,1,1\n", "is without column 'rain' in"),
        ("well,t,rainfall,level\na,0,1,1\n", "Rename 'rainfall'."),
        ("well,x;t,x;rain,x;level\na,x;0,x;1,x;1\n", "is separated by ',' or by ';' in"),
        (HEADER + 'a,0,"1,5",1\n', "is '1,5' at line 2, column 'rain'"),
        (HEADER + 'a,0,"1,5",1\n', "expected a number. Set decimal to ','."),
        (HEADER + "a,0,1,5,1\n", "is a row of 5 cells at line 2 of"),
        (HEADER + "a,0,1,1\na,1,dry,1\n", "is 'dry' at line 3, column 'rain'"),
        (HEADER + "a,0,1,dry\n", "is 'dry' at line 2, column 'level'"),
        (HEADER + "a,0,1,1\na,1,3 mm,1\n", "Correct the cell, or list it in na_values if"),
        (HEADER + "a,0,NA,1\n", "is 'NA' at line 2, column 'rain'"),
        (HEADER + "a,0,inf,1\n", "is 'inf' at line 2, column 'rain'"),
        (HEADER + "a,0,,1\n", "is an empty cell at line 2, column 'rain'"),
        (HEADER + "a,0,,1\n", "Fill the cell, or set missing to ffill."),
        (HEADER + "a,0,1,\na,1,1,1\n", "`level` is unknown in event 'a' at step 0; expected a ta"),
        (HEADER + "a,0,1,\na,1,1,1\n", "Fill the cell, or set missing to ffill."),
        (
            HEADER + "a,0,1,\n",
            "`level` is empty, on every row; expected values to learn from. Name",
        ),
        (HEADER + ",0,1,1\n", "is an empty cell at line 2, column 'well'"),
        (HEADER + "a,,1,1\n", "is an empty cell at line 2, column 't'"),
        (HEADER + "a,0,1,1\na,0,1,1\n", "`t` is 0 after 0 (event 'a', step 1); expected a gr"),
        (
            HEADER + "a,2020-01-01,1,1\na,2020-01-01,1,1\n",
            "`t` is 2020-01-01 00:00:00 after 2020-01-01 00:00:00 (event 'a', step 1)",
        ),
        (HEADER + "a,2020-01-01,1,1\na,2020-13-01,1,1\n", "is '2020-13-01' at line 3, column 't'"),
        (
            HEADER + "a,2020-01-01T00Z,1,1\na,2020-01-02T00,1,1\n",
            "is '2020-01-02T00' at line 3, column 't' in",
        ),
        (
            HEADER + "a,0,1,1\na,1,1,1\na,2,1,1\na,9,1,1\n",
            "`t` is 7 after the step before (event 'a', step 3); expected steps of about 1. Fill",
        ),
        (
            HEADER + "a,2020-01-01,1,1\na,2020-01-02,1,1\na,2020-01-09,1,1\n",
            "after the step before (event 'a', step 2); expected steps of about 24 hours. Fill",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_refused(write, text, message):
    with refuses(message):
        wells(write(text)).events()


def test_a_byte_order_mark_and_further_columns_are_taken(write):
    assert len(wells(write("\ufeff" + TABLE)).events()) == 2
    with refuses("is unreadable (UnicodeDecodeError"):
        wells(write(TABLE.encode("utf-16"))).events()


def test_unknown_cells_are_kept_as_unknown_where_they_are_held(write):
    text = HEADER + "a,0,,1\na,1,2,\na,2,,3\n"
    (event,) = wells(write(text), missing="ffill").events()
    np.testing.assert_array_equal(event.columns["rain"], [nan, 2, nan])
    np.testing.assert_array_equal(event.columns["level"], [1, nan, 3])


def test_reading_to_forecast_takes_empty_targets_only(write):
    path = write(HEADER + "a,0,1,1\na,1,2,\n")
    (event,) = wells("unused").read(path)
    np.testing.assert_array_equal(event.columns["level"], [1, nan])
    with refuses("is an empty cell at line 2, column 'rain'"):
        wells("unused").read(write(HEADER + "a,0,,1\n"))


def test_gaps_split_events(write):
    text = HEADER + "".join(f"a,{t},{t},1\n" for t in (0, 1, 2.1, 9, 10, 20))
    source = wells(write(text), gaps="split")
    events = source.events()
    assert columns_of(events, "rain") == {"a (1)": [0, 1, 2.1], "a (2)": [9, 10], "a (3)": [20]}
    assert events[1].time.tolist() == [9, 10]
    assert source.notes == ["gaps in time made 3 events of 1"]
    days = "".join(f"a,2020-01-{day:02d},{day},1\n" for day in (1, 2, 3, 9, 10))
    events = wells(write(HEADER + days), gaps="split").events()
    assert [event.time.tolist() for event in events] == [[0, 24, 48], [0, 24]]
    assert events[1].start == datetime(2020, 1, 9)


def test_a_gap_between_numbers_that_may_be_dates_names_their_form(write):
    text = HEADER + "".join(f"a,{t},{t},1\n" for t in (199051, 199052, 199101, 199102))
    with refuses("If the numbers are dates, name their form in time_format"):
        wells(write(text)).events()
    assert len(wells(write(text), time_format="%G%V").events()) == 1


def test_months_leave_no_gap(write):
    text = HEADER + "".join(f"a,2021-{month:02d}-01,1,1\n" for month in range(1, 13))
    assert [event.steps for event in wells(write(text)).events()] == [12]


def test_statics_are_one_value_an_event(write):
    text = "well,t,rain,level,depth\na,0,1,1,7\na,1,1,1,\nb,0,1,1,\n"
    source = wells(write(text), static=["depth"], missing="ffill")
    a, b = source.events()
    assert a.columns["depth"].tolist() == [7, 7]
    assert np.isnan(b.columns["depth"]).all()
    with refuses("`depth` is 7 and 8 in event 'a'; expected one value an event."):
        wells(write(text.replace("a,1,1,1,", "a,1,1,1,8")), static=["depth"]).read(
            write("well,t,rain,level,depth\na,0,1,1,7\na,1,1,1,8\n")
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": []}, "`target` is empty; expected a column to forecast"),
        ({"target": "level"}, "`target` is 'level'; expected a list of columns. Write ['level']."),
        ({"past": ["level"]}, "`past` is with 'level', which is in target too; expected one role"),
        ({"known": ["rain", "rain"]}, "`known` is with 'rain', which is in known too"),
        ({"missing": "zero"}, "`missing` is 'zero'; expected one of ('error', 'ffill')"),
        ({"gaps": "fill"}, "`gaps` is 'fill'; expected one of ('error', 'split', 'keep')"),
        ({"units": {"rainn": "mm"}}, "`units` is of 'rainn'; expected one of ['rain', 'level'"),
        ({"units": {"rainn": "mm"}}, "Write 'rain'."),
    ],
)
def test_options_are_refused(options, message):
    with refuses(f"Tables(): {message}" if message[0] == "`" else message, OptionError):
        wells("unused", **options)


def test_folders_without_tables_and_missing_files_are_refused(tmp_path):
    with refuses(f"is {tmp_path}, a folder without tables; expected files that end in one of"):
        wells(tmp_path).events()
    with refuses("which is no file; expected a table. Check the path."):
        wells(tmp_path / "no.csv").events()


def test_kinds_of_time_are_not_mixed(write, tmp_path):
    write("t,level\n1,1\n", "a.csv")
    write("t,level\n2020-01-01,1\n", "b.csv")
    with refuses("`t` is numbers in some files and datetimes in others; expected the same"):
        Tables(str(tmp_path), ["level"], time="t").events()


def test_frames_and_parquet_give_what_the_csv_gives(write, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    text = (
        "well,t,rain,level\n1,2020-01-01T00:00,1,1.5\n1,2020-01-01T01:00,,2\n"
        "2,2020-01-01T00:00,3,\n"
    )
    frame = pandas.read_csv(write(text), parse_dates=["t"])
    frame.to_parquet(tmp_path / "wells.parquet")
    (tmp_path / "indexed").mkdir()
    frame.set_index("t").to_parquet(tmp_path / "indexed" / "w.parquet")
    options = {"target": ["level"], "known": ["rain"], "missing": "ffill", "time": "t"}
    kinds = {"well": "category", "rain": "Int64"}
    expected = Tables(str(tmp_path / "wells.csv"), group="well", **options).events()
    for source in (
        Tables.from_frame(frame, group="well", **options),
        Tables.from_frame(frame.astype(kinds), group="well", **options),
        Tables(str(tmp_path / "wells.parquet"), group="well", **options),
        Tables(str(tmp_path / "indexed" / "w.parquet"), group="well", **options),
    ):
        for one, other in zip(source.events(), expected, strict=True):
            assert (one.name, one.start) == (other.name, other.start)
            np.testing.assert_array_equal(one.time, other.time)
            for column, values in other.columns.items():
                np.testing.assert_array_equal(one.columns[column], values)


def test_frames_of_mixed_cells_are_refused_by_row():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"level": [1, "2", "dry"]})
    with refuses("`frame` is 'dry' at row 2, column 'level' in the frame; expected a number"):
        Tables.from_frame(frame, ["level"]).events()
    (event,) = Tables.from_frame(frame[:2], ["level"]).events()
    assert event.columns["level"].tolist() == [1.0, 2.0]
    with refuses("`frame` is an empty cell at row 0, column 'rain' in the frame"):
        Tables.from_frame(
            pandas.DataFrame({"rain": [None], "level": [1.0]}), ["level"], known=["rain"]
        ).events()
    with refuses("`frame` is of type dict; expected a DataFrame of pandas, polars or pyarrow"):
        Tables.from_frame({"level": [1.0]}, ["level"])
    with refuses("`frame` is without rows in the frame; expected a table with rows"):
        Tables.from_frame(frame[:0], ["level"])


def test_parquet_without_its_extra_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with refuses("Install the extra: pip install 'ragged-sequences[tables]'.", MissingExtraError):
        wells(write(b"PAR1", "w.parquet")).events()


def test_pandas_is_imported_by_those_who_need_it():
    code = "import ragged.data, sys; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_damaged_parquet_is_refused(write):
    pytest.importorskip("pyarrow")
    with refuses("is unreadable (ArrowInvalid"):
        wells(write(b"no parquet", "w.parquet")).events()
