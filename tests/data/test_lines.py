"""Lines that are no rows, blanks between cells, headers of another width, signs of numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged.data import Tables
from ragged.data.tables.dialect import Dialect
from ragged.data.tables.reader import read_table
from ragged.errors import DataError
from tests.data.samples import numbers

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


@pytest.mark.parametrize(
    ("cells", "dialect", "expected"),
    [
        (["12%", "-5.5 %"], {}, [12, -5.5]),
        (["$12", "-$5.5"], {}, [12, -5.5]),
        (["\u20ac 1.234,5", "NA"], {"decimal": ",", "thousands": "."}, [1234.5, np.nan]),
        (["1,234 \u00a3", "5 \u00a3"], {"thousands": ","}, [1234, 5]),
        (["\u22121.5", "2"], {}, [-1.5, 2]),  # a minus as typesetters write it
    ],
)
def test_signs_that_all_cells_have_are_left_out(tmp_path, cells, dialect, expected):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["x;g", *(f"{cell};1" for cell in cells)]), encoding="utf-8")
    table = read_table(path, Dialect(**dialect))
    np.testing.assert_array_equal(table.numbers("x", may_be_empty=True), expected)
    assert not table.has_labels("x")


def test_different_signs_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    for cells in (["12%", "0.5"], ["$1", "\u00a31"]):
        path.write_text("\n".join(["x;g", *(f"{cell};1" for cell in cells)]), encoding="utf-8")
        with refuses("expected a number. Write the same sign, of money or percent, in all"):
            read_table(path).numbers("x")
    path.write_text("x;g\n$1,234;1\n$5;2\n")
    with refuses("is '$1,234' at line 2, column 'x'"):
        read_table(path).numbers("x")
    with refuses("Set thousands to ','"):
        read_table(path).numbers("x")


def test_a_line_of_units_and_one_of_totals_name_the_setting(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x\nday,m\n1,2\n2,3\n")
    with refuses("If the line holds units, set skip_rows to 2 and list all names in names."):
        Tables(str(path), ["x"], time="t").events()
    assert numbers(path, "x", skip_rows=2, names=["t", "x"]) == [[2, 3]]
    path.write_text("t,x\n" + "".join(f"{n},{n}\n" for n in range(12)) + "Total,66\n")
    with refuses("is 'Total' at line 14, column 't'"):
        Tables(str(path), ["x"], time="t").events()
    with refuses("If it is below the last row, set skip_footer to 1."):
        Tables(str(path), ["x"], time="t").events()
    assert numbers(path, "x", skip_footer=1) == [list(range(12))]


def test_more_lines_than_a_pattern_can_count_are_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,g\n1,2\n")
    with refuses("is an empty file"):
        read_table(path, Dialect(skip_rows=2**40))
    with refuses("is an empty file"):
        read_table(path, Dialect(skip_footer=2**70))


def test_lines_below_the_last_row_are_left_out_where_it_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,g\n1,2\n3,4\n\nSource: office\nNotes: none, at all, here\n\n")
    with refuses("Repair it, or, if it is below the last row, set skip_footer to 2."):
        read_table(path)
    assert numbers(path, "x", skip_footer=2) == [[1, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "  year   x\n 1950   1\n 1951  2.5 \n",
        "year\tx\n1950 \t 1\n1951\t2.5\n",
        '"year" "x"\n"1" 1950 1\n"2" 1951 2.5\n',  # as R writes the names of rows
        "year x\r\n1 1950 1\r\n2 1951 2.5\r\n",
    ],
)
def test_blanks_separate_cells_where_nothing_else_does(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text, newline="")
    table = read_table(path)
    assert [table.numbers(name).tolist() for name in ("year", "x")] == [[1950, 1951], [1, 2.5]]
    named = read_table(path, Dialect(" "))
    assert named.numbers("x").tolist() == [1, 2.5]
    path.write_text(text.replace("2.5", "bad"), newline="")
    with refuses("is 'bad' at line 3, column 'x'"):
        read_table(path).numbers("x")


@pytest.mark.parametrize("text", ["sales\n1 234\n5 678\n", "net sales\n1\n2\n"])
def test_blanks_within_the_cells_of_one_column_separate_nothing(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert read_table(path).header == [text.splitlines()[0]]


@pytest.mark.parametrize(
    "text",
    [
        "x,g\n1,2,\n3,4,\n",  # rows end in a separator
        "x,g,\n1,2\n3,4\n",
        "x,g\n1,1,2\n2,3,4\n",  # rows have their numbers as names
        "x;g\n1;2;\n3;4;\n",
    ],
)
def test_a_header_may_be_one_name_short_or_long(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    table = read_table(path)
    assert [table.numbers(name).tolist() for name in "xg"] == [[1, 3], [2, 4]]
    source = Tables(str(path), ["g"], known=["x"])
    source.events()
    told = [note for note in source.notes if "was taken for numbers of rows, as R writes" in note]
    assert len(told) == text.startswith("x,g\n1,1,2")
    path.write_text(text.replace("4", "bad"))
    with refuses("is 'bad' at line 3, column 'g'"):
        read_table(path).numbers("g")


def test_a_decimal_comma_between_commas_is_no_name_of_a_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("year,x\n1949,12,5\n1950,13,5\n")
    with refuses("is a row of 3 cells at line 2"):
        read_table(path)


@pytest.mark.parametrize("text", ['x, g\n1, "2"\n3 , "4" \n', '"x" , "g" \r\n1,2\r\n3,4\r\n'])
def test_blanks_around_quotes_are_left_out(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    assert numbers(path, "x", "g") == [[1, 3], [2, 4]]
    path.write_text('t, x\n1, "a, b"\n"c ""d"" ,", 2\n5" e,3\n')
    assert read_table(path).labels("x") == ["a, b", "2", "3"]
    assert read_table(path).labels("t") == ["1", 'c "d" ,', '5" e']
