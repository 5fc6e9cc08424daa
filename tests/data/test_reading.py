"""Reading tables cell by cell: no row, label or number is lost or altered on the way."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ragged.data import Tables
from ragged.data.tables.reader import read_table, read_tables
from ragged.errors import DataError

nan = np.nan


def refuses(message: str):
    return pytest.raises(DataError, match=re.escape(message))


def test_rows_of_empty_cells_are_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('y\n1\n""\n3\n')
    (event,) = Tables(str(path), ["y"], missing="ffill").events()
    np.testing.assert_array_equal(event.columns["y"], [1, nan, 3])
    path.write_text("x,y\n1,1\n\n,\n3,3\n")
    (event,) = Tables(str(path), ["y"], known=["x"], missing="ffill").events()
    np.testing.assert_array_equal(event.columns["x"], [1, nan, 3])
    with refuses("is an empty cell at line 4, column 'x'"):
        Tables(str(path), ["y"], known=["x"]).events()


def test_a_frame_with_unknown_cells_is_the_same_as_csv(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": [1.0, nan, 3.0, 4.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    (event,) = Tables(str(tmp_path / "a.csv"), ["y"], missing="ffill").events()
    np.testing.assert_array_equal(event.columns["y"], frame["y"])


@pytest.mark.parametrize("text", ["y\n1\n\n3\n", "y\n1\n3\n\n"])
def test_a_blank_line_in_a_table_of_one_column_is_refused(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    line = text.split("\n").index("") + 1
    with refuses(f'is a blank line at line {line} of {path}; expected a value, or "" where'):
        read_table(path)


def test_blank_lines_elsewhere_are_passed_over(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\nx,y\n\n1,2\r\n\r\n3,4\n\n")
    table = read_table(path)
    assert [table.labels(column) for column in "xy"] == [["1", "3"], ["2", "4"]]
    path.write_text("\ny\n1\n")
    assert read_table(path).numbers("y").tolist() == [1.0]


def test_damaged_compression_is_refused(tmp_path):
    data = bytearray(gzip.compress(b"x,y\n" + b"1,2\n" * 99))
    data[10] = 0b111  # where the first block says its kind: there is none of this number
    path = tmp_path / "a.csv.gz"
    path.write_bytes(data)
    with refuses("is unreadable (error: Error -3 while decompressing data"):
        read_table(path)


def test_suffixes_are_taken_in_any_case(tmp_path):
    (tmp_path / "a.csv").write_text("y\n1\n")
    (tmp_path / "B.CSV").write_text("y\n2\n")
    (tmp_path / "c.Csv.GZ").write_bytes(gzip.compress(b"y\n3\n"))
    tables = {table.name: table.numbers("y").tolist() for table in read_tables(tmp_path)[0]}
    assert tables == {"B": [2], "a": [1], "c": [3]}


def test_parquet_is_known_in_any_case(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"y": [1, 2]}).to_parquet(tmp_path / "A.PARQUET")
    ((table,), _) = read_tables(tmp_path)
    assert (table.name, table.numbers("y").tolist()) == ("A", [1, 2])


def test_two_tables_of_one_name_are_refused(tmp_path):
    for name in ("a.csv", "a.csv.gz", "b.csv"):
        (tmp_path / name).write_bytes(b"y\n1\n")
    with refuses(f"is a.csv and a.csv.gz in {tmp_path}; expected one table called 'a'. Rename or"):
        read_tables(tmp_path)


def frame_events(columns: dict, **options: object):
    pandas = pytest.importorskip("pandas")
    return Tables.from_frame(pandas.DataFrame(columns), **{"target": ["y"]} | options).events()


def test_large_whole_numbers_keep_their_value():
    large = np.array([2**63 + 5], dtype=np.uint64)
    (event,) = frame_events({"g": large, "k": large, "y": [1.0]}, group="g", known=["k"])
    assert event.name == str(2**63 + 5)
    assert event.columns["k"].tolist() == [float(2**63 + 5)]


@pytest.mark.parametrize("kind", ["bool", "boolean"])
def test_truth_values_name_events_by_their_words(kind):
    pandas = pytest.importorskip("pandas")
    labels = pandas.array([True, False], dtype=kind)
    events = frame_events({"g": labels, "k": labels, "y": [1.0, 2.0]}, group="g", known=["k"])
    found = {event.name: event.columns["k"].tolist() for event in events}
    assert found == {"True": [1.0], "False": [0.0]}


def test_bytes_are_text():
    events = frame_events({"g": [b"a", "\u00e9".encode()], "y": [b"1.5", b"2"]}, group="g")
    assert {e.name: e.columns["y"].tolist() for e in events} == {"a": [1.5], "\u00e9": [2.0]}
    with refuses(r"is b'\xff' at row 1, column 'g' in the frame; expected text in UTF-8."):
        frame_events({"g": [b"a", b"\xff"], "y": [1.0, 2.0]}, group="g")
    assert frame_events({"unused": [b"\xff"], "y": [1.0]})


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_whole_number_above_all_floats_is_refused(digits):
    expected = "is a number beyond float64 at row 1, column 'y' in the frame; expected a finite nu"
    with refuses(expected):
        frame_events({"y": [1, 10**digits]})


def test_an_index_that_is_a_column_too_is_refused_where_it_is_used():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"t": [0, 1], "y": [1.0, 2.0]}).set_index("t", drop=False)
    with refuses("`frame` is two columns 't' in the frame; expected one."):
        Tables.from_frame(frame, ["y"], time="t").events()
    assert Tables.from_frame(frame, ["y"]).events()[0].columns["y"].tolist() == [1.0, 2.0]


def test_an_empty_first_time_is_what_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,y\n,1\n2026-01-01,2\n")
    with refuses("is an empty cell at line 2, column 't'"):
        Tables(str(path), ["y"], time="t").events()
    path.write_text("t,y\n2026-01-01,1\n,2\n")
    expected = "is an empty cell at line 3, column 't'"
    with refuses(expected):
        Tables(str(path), ["y"], time="t").events()


def test_parts_after_the_clock_changed_start_when_they_did():
    pandas = pytest.importorskip("pandas")
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    hours = [0, 1, 2, 24, 25]  # the clocks of Berlin go forward at hour 13
    stamps = pandas.DatetimeIndex([start + timedelta(hours=h) for h in hours])
    stamps = stamps.tz_convert("Europe/Berlin")
    _, second = frame_events({"t": stamps, "y": np.arange(5.0)}, time="t", gaps="split")
    assert second.start.astimezone(UTC) == start + timedelta(hours=24)
    assert second.start.isoformat() == "2026-03-29T14:00:00+02:00"


def test_errors_of_a_folder_name_the_file(tmp_path):
    good, header = "a,0,1,7\na,1,1,7\na,2,1,7\n", "g,t,y,depth\n"
    (tmp_path / "good.csv").write_text(header + good)
    source = Tables(str(tmp_path), ["y"], group="g", time="t", static=["depth"])
    for row, message in (
        ("a,2,1,7\n", "`t` is 2 after 2 (event 'bad/a', step 3)"),
        ("a,3,1,8\n", "`depth` is 7 and 8 in event 'bad/a'"),
        ("a,9,1,7\n", "`t` is 7 after the step before (event 'bad/a', step 3)"),
    ):
        (tmp_path / "bad.csv").write_text(header + good + row)
        with refuses(message):
            source.events()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((1767225600, 1767225660, 1767225660), "`t` is 1767225660 after 1767225660 (event"),
        ((0, 3600001, 7200002, 99999999), "`t` is 92799997 after the step before (event"),
        ((0, 3600001, 7200002, 99999999), "expected steps of about 3600001."),
    ],
)
def test_times_are_told_to_their_last_digit(tmp_path, times, message):
    path = tmp_path / "a.csv"
    path.write_text("t,y\n" + "".join(f"{time},1\n" for time in times))
    with refuses(message):
        Tables(str(path), ["y"], time="t").events()


def past_wells(path: Path) -> Tables:
    return Tables(str(path), ["y"], known=["k"], past=["p"])


def test_past_columns_may_be_empty_in_what_is_read_to_forecast(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("k,p,y\n1,5,2\n2,6,3\n3,,\n")
    (event,) = past_wells(path).read(path)
    np.testing.assert_array_equal(event.columns["p"], [5, 6, nan])
    path.write_text("k,p,y\n1,5,2\n2,,3\n")
    with refuses("Tables(): `p` is unknown in event 'a' at step 1; expected a value at every step"):
        past_wells(path).events()
