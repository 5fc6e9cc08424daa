"""Random tables, written in random ways, come back equal or are refused."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragged.data import Tables
from ragged.data.tables.dialect import Dialect
from ragged.data.tables.reader import read_table, table_from_frame
from ragged.data.tables.table import Table
from ragged.data.tables.times import read_times
from ragged.errors import DataError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

quick = settings(max_examples=80, deadline=None, derandomize=True, database=None)
words = st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@dataclass(frozen=True)
class Written:
    """How a table is written: what a user may have to name, and what is found."""

    separator: str
    named: bool
    decimal: str
    encoding: str
    newline: str
    quoting: int
    suffix: str
    unknown: str

    def write(self, path: Path, rows: list[list[object]]) -> Path:
        text = io.StringIO(newline="")
        writer = csv.writer(
            text, delimiter=self.separator, lineterminator=self.newline, quoting=self.quoting
        )
        writer.writerows([[self._cell(cell) for cell in row] for row in rows])
        data, path = text.getvalue().encode(self.encoding), path.with_name(path.name + self.suffix)
        if self.suffix.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("table.csv", data)
        else:
            path.write_bytes(gzip.compress(data) if self.suffix.endswith(".gz") else data)
        return path

    @property
    def dialect(self) -> Dialect:
        separator = self.separator if self.named else None
        return Dialect(separator, self.decimal, self.encoding)

    def _cell(self, cell: object) -> str:
        if cell is None:
            return self.unknown
        return repr(cell).replace(".", self.decimal) if isinstance(cell, float) else str(cell)


@st.composite
def ways(draw: st.DrawFn) -> Written:
    separator = draw(st.sampled_from(",;\t|"))
    return Written(
        separator=separator,
        named=draw(st.booleans()),
        decimal=draw(st.sampled_from([".", ","] if separator != "," else ["."])),
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])),
        newline=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        suffix=draw(st.sampled_from([".csv", ".tsv", ".csv.gz", ".csv.zip"])),
        unknown=draw(st.sampled_from(["", "NA", "nan", "-", "N/A"])),
    )


def read_or_refuse(path: Path, way: Written) -> Table | None:
    """Read a table; only a separator that is to be found may be refused."""
    if way.named:
        return read_table(path, way.dialect)
    try:
        return read_table(path, way.dialect)
    except DataError:
        return None


@quick
@given(ways(), st.lists(st.tuples(words, numbers | st.none(), numbers), min_size=1, max_size=6))
def test_written_tables_come_back_equal_or_are_refused(way, rows):
    header = [["label", "x", "y"]]
    with TemporaryDirectory() as folder:
        path = way.write(Path(folder, "table"), header + [list(row) for row in rows])
        table = read_or_refuse(path, way)
        if table is None:
            return
        assert table.header == header[0]
        expected = [float("nan") if x is None else float(x) for _, x, _ in rows]
        np.testing.assert_array_equal(table.numbers("x", may_be_empty=True), expected)
        np.testing.assert_array_equal(table.numbers("y"), [float(y) for *_, y in rows])
        if all(label.strip() for label, *_ in rows):
            assert table.labels("label") == [label.strip() for label, *_ in rows]


@quick
@given(ways(), st.data())
def test_a_cell_that_is_no_number_is_named_by_its_line(way, data):
    count = data.draw(st.integers(2, 6))
    wrong = data.draw(st.integers(0, count - 1))
    rows: list[list[object]] = [[f"l{n}", float(n)] for n in range(count)]
    rows[wrong][1] = "wrong"
    with TemporaryDirectory() as folder:
        path = way.write(Path(folder, "table"), [["label", "x"], *rows])
        with pytest.raises(DataError, match=f"is 'wrong' at line {wrong + 2}, column 'x'"):
            read_table(path, way.dialect).numbers("x")


FORMS = ("%Y-%m-%d", "%Y/%m/%d", "%d %b %Y", "%B %d, %Y", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%y")


@quick
@given(
    st.lists(st.dates(date(1970, 1, 1), date(2060, 1, 1)), min_size=1),
    st.sampled_from(FORMS),
    st.sampled_from(("", " %H:%M", " %H:%M:%S", " %I:%M %p")),
)
def test_dates_come_back_equal_or_are_refused(days, form, clock):
    stamps = pandas.DatetimeIndex(days) + pandas.Timedelta(hours=13 if clock else 0)
    if form == "%Y-%m-%d" and "%p" in clock:
        return  # no ISO 8601, and in no common form
    table = table_from_frame(pandas.DataFrame({"t": stamps.strftime(form + clock)}))
    try:
        times = read_times(table, "t")
    except DataError:  # the day may be the month
        assert max(day.day for day in stamps) <= 12
        times = read_times(table, "t", form + clock)
    if "%y" in form:  # a century is a matter of the two digits: 69 is 1969
        assert [day.month for day in times.dates] == [stamp.month for stamp in stamps]
        assert [day.day for day in times.dates] == [stamp.day for stamp in stamps]
    else:
        assert list(times.dates) == list(stamps)


@quick
@given(st.permutations(range(6)), st.sampled_from(["first", "last", "mean"]), st.data())
def test_series_do_not_depend_on_the_order_of_their_rows(order, duplicates, data):
    days = data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))
    frame = pandas.DataFrame({"t": days, "y": [float(3 * day) for day in days]})
    options = {"time": "t", "duplicates": duplicates, "gaps": "keep"}
    one, other = (
        Tables.from_frame(each, ["y"], **options).events()[0]
        for each in (frame, frame.iloc[list(order)])
    )
    np.testing.assert_array_equal(one.time, sorted(set(days)))
    np.testing.assert_array_equal(one.time, other.time)
    np.testing.assert_array_equal(one.columns["y"], other.columns["y"])


@settings(quick, max_examples=40)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6),
    st.sampled_from(["blanks", "row numbers", "ends in a separator", "remarks below", "percent"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_other_layouts_come_back_equal(rows, layout, newline):
    lines = ["x,y", *(f"{x!r},{y!r}" for x, y in rows)]
    dialect = Dialect()
    if layout == "blanks":
        lines = [f"  {line.replace(',', '     ')} " for line in lines]
    elif layout == "row numbers":
        lines[1:] = [f"{number},{line}" for number, line in enumerate(lines[1:], start=1)]
    elif layout == "ends in a separator":
        lines[1:] = [f"{line}," for line in lines[1:]]
    elif layout == "remarks below":
        lines, dialect = [*lines, "", "Source: office", "none"], Dialect(skip_footer=2)
    else:
        lines[1:] = [line.replace(",", "%,") + " %" for line in lines[1:]]
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        path.write_text(newline.join(lines) + newline, newline="")
        table = read_table(path, dialect)
        for name, expected in zip("xy", zip(*rows, strict=True), strict=True):
            np.testing.assert_array_equal(table.numbers(name), [float(cell) for cell in expected])
