"""Wide tables, in which each column is a series."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged.data import Tables
from ragged.errors import DataError, OptionError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

TEXT = "date,rate,AAPL,MSFT\n2020-01-01,1,10,\n2020-01-02,2,11,21\n2020-01-03,3,12,22\n"


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


@pytest.mark.parametrize(("series", "known"), [(["AAPL", "MSFT"], ["rate"]), ("rest", ["rate"])])
@pytest.mark.parametrize("from_frame", [False, True])
def test_each_column_is_a_series_from_its_first_known_cell(tmp_path, series, known, from_frame):
    path = tmp_path / "stocks.csv"
    path.write_text(TEXT)
    options = {"known": known, "time": "date", "series": series, "calendar": "none"}
    source = Tables(str(path), ["price"], **options)
    if from_frame:
        source = Tables.from_frame(pandas.read_csv(path), ["price"], **options)
    apple, microsoft = source.events()
    assert [apple.name, microsoft.name] == ["AAPL", "MSFT"]
    assert apple.columns["price"].tolist() == [10, 11, 12]
    assert microsoft.columns["price"].tolist() == [21, 22]
    assert microsoft.columns["rate"].tolist() == [2, 3]
    assert (source.label_columns, microsoft.labels) == (("series",), ("MSFT",))


def test_groups_and_files_tell_them_apart_too(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("g,x,y\n7,1,2\n8,3,4\n")
    source = Tables(str(tmp_path), ["z"], group="g", series=["x", "y"])
    assert [event.name for event in source.events()][:4] == ["a/x/7", "a/x/8", "a/y/7", "a/y/8"]
    assert (source.label_columns, source.events()[3].labels) == (
        ("file", "series", "g"),
        ("a", "y", "8"),
    )


def test_a_cell_is_named_by_its_own_column(tmp_path):
    path = tmp_path / "stocks.csv"
    path.write_text(TEXT.replace("22", "bad"))
    with refuses("is 'bad' at line 4, column 'MSFT'"):
        Tables(str(path), ["price"], time="date", series=["MSFT"]).events()
    with refuses("is without column 'MFST'"):
        Tables(str(path), ["price"], time="date", series=["MFST"]).events()
    with refuses("is without other columns"):
        Tables(str(path), ["x"], ["AAPL", "MSFT", "rate"], time="date", series="rest").events()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"series": "AAPL"}, "`series` is 'AAPL'; expected a list of columns, or rest."),
        ({"series": ["AAPL", "price"]}, "with 'price', which has another role"),
        ({"series": ["AAPL"], "target": ["a", "b"]}, "given with the targets ['a', 'b']"),
    ],
)
def test_other_columns_are_refused(options, message):
    with refuses(message, OptionError):
        Tables("a.csv", **{"target": ["price"], **options})


def test_the_next_table_is_read_alike():
    frame = pandas.DataFrame({"t": range(3), "x": [1.0, 2, 3], "y": [4.0, 5, np.nan]})
    source = Tables.from_frame(frame, ["z"], time="t", series=["x", "y"], missing="ffill")
    assert [len(event.time) for event in source.events()] == [3, 3]
    ended = source.read(frame)[1]
    np.testing.assert_array_equal(ended.columns["z"], [4, 5, np.nan])
