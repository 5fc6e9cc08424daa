"""Sources and the reading of their tables: values, and refusals by their text."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from ragged.data import Roles, Series, Storms
from ragged.data.reading import read_events
from ragged.data.sources import check_targets, check_time
from ragged.errors import DataError

HEADER = "event,minute,discharge_m3s,turbidity_fnu\n"


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "storms.csv") -> Path:
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return _write


def refuses(message: str):
    return pytest.raises(DataError, match=re.escape(message))


def test_packaged_storms_are_all_there():
    events = Storms().events()
    assert [event.name for event in events] == [str(number) for number in range(316)]
    assert sum(event.steps for event in events) == 69_635
    lengths = sorted(event.steps for event in events)
    assert (lengths[0], lengths[-1], np.median(lengths)) == (23, 769, 189)
    for event in events:
        assert all(np.isfinite(values).all() for values in event.columns.values())
        assert event.columns["discharge_rate"][0] == 0.0


def test_storm_columns_are_derived_as_documented(write):
    path = write(HEADER + "a,0,1.0,2.0\na,15,2.0,4.0\na,30,1.0,8.0\n")
    (event,) = Storms(str(path)).events()
    np.testing.assert_array_equal(event.time, [0.0, 0.25, 0.5])
    np.testing.assert_allclose(event.columns["log_discharge"], np.log([1.0, 2.0, 1.0]))
    rate = np.log(2.0) / 0.25
    np.testing.assert_allclose(event.columns["discharge_rate"], [0.0, rate, -rate])
    np.testing.assert_allclose(event.columns["log_turbidity"], np.log([2.0, 4.0, 8.0]))


def test_discharge_rate_is_causal():
    event = Storms().events()[0]
    level, rate = event.columns["log_discharge"], event.columns["discharge_rate"]
    np.testing.assert_allclose(level[0] + np.cumsum(rate * 0.25), level, atol=1e-12)


def test_storms_roles_units_and_raw_target():
    source = Storms()
    assert source.roles.encoder == ("log_discharge", "discharge_rate", "log_turbidity")
    assert source.roles.decoder == ("log_discharge", "discharge_rate")
    assert set(source.units) == set(source.roles.encoder)
    assert source.time_label.endswith("(h)")
    name, values = source.raw_target("log_turbidity", np.log([3.0]))
    assert name == "turbidity_fnu"
    np.testing.assert_allclose(values, [3.0])
    assert source.raw_target("other", values) == ("other", values)


def test_read_gives_nan_for_unknown_turbidity_and_events_refuses_it(write):
    path = write(HEADER + "a,0,1.0,2.0\na,15,2.0,\n", "storms.csv.gz")
    (event,) = Storms().read(path)
    np.testing.assert_array_equal(np.isnan(event.columns["log_turbidity"]), [False, True])
    with refuses("events(): `log_turbidity` is unknown in event 'a' at step 1; expected"):
        Storms(str(path)).events()


def test_events_keep_the_order_of_the_file_and_may_interleave(write):
    path = write(HEADER + "b,0,1,1\na,0,3,1\nb,15,2,1\n")
    names = {event.name: event.steps for event in Storms().read(path)}
    assert list(names.items()) == [("b", 2), ("a", 1)]


def test_byte_order_mark_and_spaces_and_further_columns_are_taken(write):
    path = write("\ufeffevent, minute ,discharge_m3s,turbidity_fnu,note\na, 0 ,1,1,x\n\n")
    assert Storms().read(path)[0].time.tolist() == [0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is an empty file in"),
        (HEADER, "is a header without rows in"),
        ("event,minute,discharge,turbidity_fnu\na,0,1,1\n", "is without column 'discharge_m3s'"),
        ("event,minute,discharge,turbidity_fnu\na,0,1,1\n", "Rename 'discharge'."),
        ("q\n1\n", "It has the columns ['q']."),
        ("event,event,minute,discharge_m3s,turbidity_fnu\na,a,0,1,1\n", "two columns 'event'"),
        (HEADER + "a,0,1\n", "is a row of 3 cells at line 2 of"),
        (HEADER + ",0,1,1\n", "is an empty cell at line 2, column 'event'"),
        (HEADER + "a,0,wet,1\n", "is 'wet' at line 2, column 'discharge_m3s'"),
        (HEADER + "a,0,1,1\na,15,,1\n", "is an empty cell at line 3, column 'discharge_m3s'"),
        (HEADER + "a,0,nan,1\n", "is 'nan' at line 2, column 'discharge_m3s'"),
        (HEADER + "a,0,1,inf\n", "is 'inf' at line 2, column 'turbidity_fnu'"),
        (HEADER + "a,0,0,1\n", "`discharge_m3s` is 0 (event 'a', step 0); expected a value above"),
        (HEADER + "a,0,1,-2\n", "`turbidity_fnu` is -2 (event 'a', step 0); expected a value"),
        (HEADER + "a,0,1,1\na,0,1,1\n", "`minute` is 0 after 0 (event 'a', step 1); expected a gr"),
        (HEADER + "a,9,1,1\na,5,1,1\n", "`minute` is 5 after 9 (event 'a', step 1); expected a gr"),
        (
            HEADER + "a,0,1,1\na,15,1,1\na,60,1,1\n",
            "`minute` is 60 after 15 (event 'a', step 2); expected even steps of 15. Fill the gap",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_refused(write, text, message):
    with refuses(message):
        Storms().read(write(text))


def test_missing_and_damaged_files_are_refused(write, tmp_path):
    with refuses(f"read(): `path` is {tmp_path / 'no.csv'}, which is no file; expected"):
        Storms(str(tmp_path / "no.csv")).events()
    path = write(HEADER + "a,0,1,1\n", "cut.csv.gz")
    path.write_bytes(path.read_bytes()[:-9])
    with refuses("is unreadable (EOFError"):
        Storms().read(path)
    path.write_bytes(b"not gzip")
    with refuses("is unreadable (BadGzipFile"):
        Storms().read(path)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"event,\xb5\n1,2\n")
    with refuses("is unreadable (UnicodeDecodeError"):
        Storms().read(latin)


def test_read_events_groups_columns(write):
    path = write("g,v\nx,1\ny,2\nx,\n")
    table = read_events(path, ("v",), "g", may_be_empty=("v",))
    np.testing.assert_array_equal(table["x"]["v"], [1.0, np.nan])
    assert table["y"]["v"].dtype == np.float64


def test_time_of_one_step_or_none_is_even():
    check_time("a", np.array([3.0]), "minute")
    check_time("a", np.array([]), "minute")
    check_time("a", np.array([0.0, 0.1, 0.2, 0.30000000000000004]), "hour")


def test_event_refuses_columns_of_another_length():
    with refuses("`columns` is of shape (2,) in column 'v' of event 'a'; expected (3,)"):
        Series("a", np.arange(3.0), {"v": np.arange(2.0)})


def test_check_targets_looks_at_targets_only():
    roles = Roles(known=("k",), past=(), target=("t",))
    event = Series("a", np.arange(1.0), {"k": np.array([np.nan]), "t": np.array([1.0])})
    check_targets([event], roles)
