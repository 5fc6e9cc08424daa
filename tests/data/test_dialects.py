"""Tables written in other ways: separators, decimals, encodings, archives, Excel, frames."""

from __future__ import annotations

import gzip
import re
import zipfile

import numpy as np
import pytest

from ragged.data import Tables
from ragged.data.tables.dialect import Dialect
from ragged.data.tables.reader import read_table, read_tables
from ragged.errors import DataError, MissingExtraError, OptionError
from tests.data.samples import numbers

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path, separator):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3,4\n".replace(",", separator))
    assert numbers(path, "x", "y") == [[1, 3], [2, 4]]
    path.write_text('x,y\n"1",2\n3,"4"\n'.replace(",", separator))
    assert numbers(path, "x", "y", separator=separator) == [[1, 3], [2, 4]]


def test_text_does_not_hide_the_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('day;note;y\n1;"a, b; c";2\n2;d, e, f;3\n3;|;4\n')
    assert numbers(path, "day", "y") == [[1, 2, 3], [2, 3, 4]]


def test_separators_that_both_fit_are_refused_until_one_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b;c\n1,2;3\n")
    with refuses("is separated by ',' or by ';' in"):
        read_table(path)
    assert read_table(path, Dialect(separator=";")).header == ["a,b", "c"]


def test_decimal_commas_are_read_where_they_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x;y\n1,5;-,25\n2;1e3\n")
    assert numbers(path, "x", "y", decimal=",") == [[1.5, 2], [-0.25, 1000]]
    with refuses("is '1,5' at line 2, column 'x'"):
        read_table(path).numbers("x")
    path.write_text("x;y\n1.500;2\n")
    with refuses("is '1.500' at line 2, column 'x'"):
        read_table(path, Dialect(decimal=",")).numbers("x")


@pytest.mark.parametrize(
    ("cell", "number", "dialect", "remedy"),
    [
        ("1,234.5", 1234.5, {"thousands": ","}, "Set thousands to ','."),
        ("1,234,567", 1234567, {"thousands": ","}, "Set thousands to ','."),
        ("-1.234,5", -1234.5, {"thousands": ".", "decimal": ","}, "to '.' and decimal to ','."),
        ("1 234,5", 1234.5, {"thousands": " ", "decimal": ","}, "to ' ' and decimal to ','."),
        ("1\u00a0234,5", 1234.5, {"thousands": " ", "decimal": ","}, "and decimal to ','."),
        ("1,234", 1234, {"thousands": ","}, "if it is above 999; else set decimal to ','."),
    ],
)
def test_marks_of_thousands_are_read_where_they_are_named(tmp_path, cell, number, dialect, remedy):
    path = tmp_path / "a.csv"
    path.write_text(f"x\tg\n{cell}\t1\n2\t2\n")
    assert numbers(path, "x", **dialect) == [[number, 2]]
    with refuses(remedy):
        read_table(path).numbers("x")
    path.write_text("x\tg\n12,34\t1\n")  # no group of three digits
    with refuses("is '12,34' at line 2"):
        read_table(path, Dialect(thousands=",")).numbers("x")


def test_lines_above_the_header_are_left_out_where_it_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Report, 2020\r\n# units: m\r\nx,y\r\n1,2\r\n3,bad\r\n")
    assert numbers(path, "x", skip_rows=2) == [[1, 3]]
    with refuses("is 'bad' at line 5, column 'y'"):
        read_table(path, Dialect(skip_rows=2)).numbers("y")
    path.write_text("Report; 2020\nx;y\n1;2\n")
    with refuses("Set skip_rows to 1."):
        Tables(str(path), ["y"]).events()
    path.write_text("# Report\nx,y\n1,2\n")
    with refuses("If it is the header, set skip_rows to 1;"):
        read_table(path)
    with refuses("is an empty file"):
        read_table(path, Dialect(skip_rows=9))
    path.write_text("a,b\n1,x\n2,y\n")  # a label of the name that lacks is no header
    with refuses("expected a column 'y'. It has the columns ['a', 'b']."):
        read_table(path).numbers("y")


def test_columns_are_named_where_the_header_does_not(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,bad\n")
    assert numbers(path, "x", names=["x", "y"]) == [[1, 3]]
    with refuses("is 'bad' at line 2, column 'y'"):
        read_table(path, Dialect(names=["x", "y"])).numbers("y")
    with refuses("is 2 columns in"):
        read_table(path, Dialect(names=["x"]))
    with refuses("Where these are no names, list the names of all in names."):
        read_table(path).numbers("x")
    path.write_text("y,z\na,1,2\nb,3,4\n")  # as R writes the names of rows
    with refuses("if the header lacks a name, set skip_rows to 1 and list all in names."):
        read_table(path)
    assert numbers(path, "y", skip_rows=1, names=["row", "y", "z"]) == [[1, 3]]


def test_infinite_numbers_are_not_filled(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,g\ninf,1\n2,1\n")
    with refuses("is 'inf' at line 2, column 'x'"):
        numbers(path, "x")
    with refuses("Correct the cell, or list it in na_values"):
        numbers(path, "x")
    np.testing.assert_array_equal(numbers(path, "x", na_values=["inf"]), [[np.nan, 2]])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_encodings_are_read_where_they_are_named(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("größe,y\nä,1\n".encode(encoding))
    table = read_table(path, Dialect(encoding=encoding))
    assert (table.labels("größe"), table.labels("y")) == (["ä"], ["1"])


def test_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("x,y\n1,1\nä,2\n".encode("latin-1"))
    with refuses("at line 3 in"):
        read_table(path)
    with refuses("Name its encoding in `encoding`, such as latin-1"):
        read_table(path)


def test_words_for_unknown_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y,g\nNA,-999,NA\n1, nan ,b\n.,2,x\n")
    (x, y) = numbers(path, "x", "y", na_values=["-999", "x"])
    np.testing.assert_array_equal([x, y], [[np.nan, 1, np.nan], [np.nan, np.nan, 2]])
    assert read_table(path).labels("g") == ["NA", "b", "x"]  # NA may be Namibia
    with refuses("is 'x' at line 4, column 'g'"):
        read_table(path, Dialect(na_values=("x",))).labels("g")
    (event,) = Tables(str(path), ["y"], missing="ffill", na_values=[-999]).events()
    np.testing.assert_array_equal(event.columns["y"], [np.nan, np.nan, 2])


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\nx,y\n\n"1","a\nb"\n\n2,c\nbad,d\n')
    with refuses("is 'bad' at line 8, column 'x'"):
        read_table(path).numbers("x")
    path.write_text("x,y\r\n1,2\r\n\r\n3\r\n")
    with refuses("is a row of 1 cells at line 4 of"):
        read_table(path)


def test_archives_hold_one_table(tmp_path):
    path = tmp_path / "a.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.csv", "y\n1\n2\n")
        archive.writestr("__MACOSX/._inner.csv", "what macOS adds")
    assert (read_table(path).name, numbers(path, "y")) == ("a", [[1, 2]])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.csv", "y\n3\n")
    with refuses("is an archive of 2 files in"):
        read_table(path)
    path.write_bytes(b"PK no archive")
    with refuses("is unreadable (BadZipFile"):
        read_table(path)


def test_a_folder_tells_what_it_left_out(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n2\t3\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"x,y\n1,4\n2,5\n"))
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "deep").mkdir()
    tables, others = read_tables(tmp_path)
    assert ([table.name for table in tables], others) == (["a", "b"], ["c.json", "deep"])
    source = Tables(str(tmp_path), ["y"])
    assert [event.name for event in source.events()] == ["a", "b"]
    assert source.notes == ["left out of the folder, no tables: c.json, deep"]


def test_excel_is_read(tmp_path):
    pytest.importorskip("openpyxl")
    frame = pandas.DataFrame(
        {"day": pandas.date_range("2024-01-31", periods=3), "y": [1.5, None, 3.0], "g": ["007"] * 3}
    )
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    options = {"time": "day", "group": "g", "missing": "ffill"}
    (event,) = Tables(str(tmp_path / "a.xlsx"), ["y"], **options).events()
    assert (event.name, event.time.tolist()) == ("007", [0, 24, 48])
    np.testing.assert_array_equal(event.columns["y"], [1.5, np.nan, 3])
    with refuses("is an empty cell at row 3, column 'y'"):  # as Excel counts
        read_table(tmp_path / "a.xlsx").numbers("y")
    titled = pandas.DataFrame([["Report", None], ["day", "y"], [1, 1.5], [2, "bad"]])
    titled.to_excel(tmp_path / "b.xlsx", index=False, header=False)
    with refuses("Set skip_rows to 1."):
        read_table(tmp_path / "b.xlsx").numbers("y")
    assert numbers(tmp_path / "b.xlsx", "day", skip_rows=1) == [[1, 2]]
    assert numbers(tmp_path / "b.xlsx", "x", skip_rows=2, names=["x", "y"]) == [[1, 2]]
    for dialect in (Dialect(skip_rows=1), Dialect(skip_rows=2, names=["x", "y"])):
        with refuses("is 'bad' at row 4, column 'y'"):
            read_table(tmp_path / "b.xlsx", dialect).numbers("y")
    (tmp_path / "a.xlsx").write_bytes(b"no sheet")
    with refuses("expected an Excel table. Write the file again."):
        read_table(tmp_path / "a.xlsx")


def test_a_sheet_is_named(tmp_path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "a.xlsx"
    with pandas.ExcelWriter(path) as book:
        for sheet, column in (("about", "text"), ("data", "y")):
            pandas.DataFrame({column: [1.5, 2.5]}).to_excel(book, sheet_name=sheet, index=False)
    with refuses("Or set sheet to one of ['data']."):
        read_table(path).numbers("y")
    assert numbers(path, "y", sheet="data") == [[1.5, 2.5]]
    with refuses("without sheet 'x' in"):
        read_table(path, Dialect(sheet="x"))
    source = Tables(str(path), ["text"])
    source.events()
    assert source.notes == ["read of the first sheet alone, not of data"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.json", "a.tar"])
def test_files_that_are_no_tables_say_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80")
    with refuses("Unpack"):
        read_table(tmp_path / name)


def test_old_excel_is_refused(tmp_path):
    (tmp_path / "a.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with refuses("is an Excel file of before 2007 in"):
        read_table(tmp_path / "a.xls")


def test_excel_without_its_package_names_the_extra(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    pandas.DataFrame({"y": [1.0]}).to_excel(tmp_path / "a.xlsx", index=False)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with refuses("Install the extra: pip install 'ragged-sequences[tables]'.", MissingExtraError):
        read_table(tmp_path / "a.xlsx")


def test_frames_of_other_libraries_are_read():
    pyarrow = pytest.importorskip("pyarrow")

    class Stream:
        """A frame of any library that hands out Arrow's streams, as polars does."""

        def __init__(self, table):
            self.table = table

        def __arrow_c_stream__(self, requested_schema=None):
            return self.table.__arrow_c_stream__(requested_schema)

    table = pyarrow.table({"g": ["a", "a"], "y": [1.0, None]})
    for frame in (table, Stream(table)):
        (event,) = Tables.from_frame(frame, ["y"], group="g", missing="ffill").events()
        np.testing.assert_array_equal(event.columns["y"], [1, np.nan])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ";;"}, "`separator` is ';;'; expected one character"),
        ({"decimal": "'"}, "`decimal` is \"'\"; expected '.' or ','"),
        ({"decimal": ",", "separator": ","}, "`decimal` is ','; expected another character"),
        ({"thousands": "."}, "`thousands` is '.'; expected one character that is no digit and not"),
        ({"thousands": ",,"}, "`thousands` is ',,'; expected one character that is no digit"),
        ({"skip_rows": -1}, "`skip_rows` is -1; expected 0 or more"),
        ({"names": "y"}, "`names` is 'y'; expected a list of words. Write ['y']."),
        ({"encoding": "utf-88"}, "`encoding` is 'utf-88'; expected an encoding that Python knows"),
        ({"na_values": "-999"}, "`na_values` is '-999'; expected a list of words. Write ['-999']."),
        ({"duplicates": "sum"}, "`duplicates` is 'sum'; expected one of ('error', 'first',"),
        ({"frequency": "2 months"}, "`frequency` is '2 months'; expected auto or one of"),
        ({"calendar": "moon"}, "`calendar` is 'moon'; expected auto, none, or a list of"),
        ({"labels": "all"}, "`labels` is 'all'; expected none or auto, or columns. Write {column"),
        ({"categories": "all"}, "`categories` is 'all'; expected none, or columns. Write {column"),
        ({"labels": {"y": ["a"]}}, "`labels` is of 'y'; expected a known, past or static column"),
    ],
)
def test_options_are_refused(options, message):
    with refuses(f"Tables(): {message}", OptionError):
        Tables("unused", ["y"], **options)
