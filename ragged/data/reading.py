"""Reading of tables: CSV and Parquet files and pandas frames; errors name line and column."""

from __future__ import annotations

import csv
import difflib
import gzip
import math
import re
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ragged.data.sources import Columns
from ragged.errors import DataError, MissingExtraError

SUFFIXES = (".csv", ".csv.gz", ".parquet")
FILL = "Fill the cell; only targets may be empty, and only when forecasting."


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of cells; errors name the file, line and column.

    Args:
        name: of the file; a single event is named after it.
        origin: the function and the argument that gave the table, and the argument's value.
        header: the names of the columns.
        cells: each column's cells: text, or numbers, or datetimes; None or "" is empty.
        lines: the number of each row in its file.
        unit: the name of such a number.
    """

    name: str
    origin: tuple[str, str, str]
    header: Sequence[str]
    cells: Sequence[Sequence[Any] | np.ndarray]
    lines: Sequence[int]
    unit: str = "line"

    def numbers(self, column: str, *, may_be_empty: bool = False, fill: str = FILL) -> np.ndarray:
        """Return a column as `(rows,)` float64; an empty cell becomes NaN.

        Args:
            column: its name.
            may_be_empty: whether empty cells are allowed.
            fill: the remedy for an empty cell that is not.

        Raises:
            DataError: a missing column; a cell that is no number, infinite, or empty.
        """
        cells = self._cells(column)
        try:
            if not isinstance(cells, np.ndarray):
                cells = [_number(cell) for cell in cells]
            values = np.array(cells, dtype=np.float64)
        except (TypeError, ValueError):
            self._refuse_first(column, cells)
        wrong = np.isinf(values) if may_be_empty else ~np.isfinite(values)
        if wrong.any():
            self._refuse_cell(int(np.argmax(wrong)), column, "a finite number", fill)
        return values

    def labels(self, column: str) -> list[str]:
        """Return a column as text, no cell of it empty.

        Raises:
            DataError: a missing column, an empty cell, or bytes that are no UTF-8.
        """
        cells = self._cells(column)
        for row, cell in enumerate(cells):
            if _is_empty(cell):
                expected, remedy = "the name of an event", "Name the event on every row."
                self._refuse_cell(row, column, expected, remedy)
            if isinstance(cell, bytes):
                self._refuse_cell(row, column, "text in UTF-8", "Write the column as text.")
        return [str(_to_python(cell)).strip() for cell in cells]

    def times(self, column: str) -> tuple[np.ndarray, list[datetime] | None]:
        """Return a column of numbers, or of datetimes with their seconds since 1970.

        The first cell that is not empty decides; no cell may be empty.

        Raises:
            DataError: a missing column; a cell that is neither a number nor an ISO 8601 datetime;
                datetimes of which only some have a time zone.
        """
        cells, fill = self._cells(column), "Give the time of every row."
        if not _is_datetime(next((cell for cell in cells if not _is_empty(cell)), None)):
            return self.numbers(column, fill=fill), None
        dates: list[datetime] = []
        for row, cell in enumerate(cells):
            try:
                dates.append(_datetime(cell))
            except (AttributeError, ValueError):
                remedy = fill if _is_empty(cell) else "Write it as 2026-01-31T12:00."
                self._refuse_cell(row, column, "an ISO 8601 datetime", remedy)
            if (dates[row].tzinfo is None) != (dates[0].tzinfo is None):
                expected = "a time zone on every row or on none"
                self._refuse_cell(row, column, expected, "Give all the same.")
        return np.array([timestamp(date_time) for date_time in dates], dtype=np.float64), dates

    def refuse(self, got: str, expected: str, remedy: str) -> NoReturn:
        """Raise the error for a table that cannot be used."""
        function, argument, source = self.origin
        got = got if source in got else f"{got} in {source}"
        raise DataError.of(function, argument, got, expected, remedy)

    def _cells(self, column: str) -> Sequence[Any] | np.ndarray:
        count = list(self.header).count(column)
        if count == 1:
            return self.cells[list(self.header).index(column)]
        if count:
            self.refuse(f"two columns '{column}'", "one", "Rename or drop the other.")
        near = difflib.get_close_matches(column, self.header, n=1)
        remedy = f"Rename '{near[0]}'." if near else f"It has the columns {list(self.header)}."
        self.refuse(f"without column '{column}'", f"a column '{column}'", remedy)

    def _refuse_first(self, column: str, cells: Sequence[Any] | np.ndarray) -> NoReturn:
        """Refuse the first cell that is no number."""
        for row, cell in enumerate(cells):
            try:
                _number(cell)
            except (TypeError, ValueError):
                remedy = "Correct the cell."
                if isinstance(cell, str) and re.fullmatch(r"\s*[-+]?\d*,\d+\s*", cell):
                    remedy = "Write it with a decimal point."
                elif isinstance(cell, str) and cell.strip().lower() in ("na", "n/a", "null", "-"):
                    remedy = "Leave the cell empty where the value is unknown."
                self._refuse_cell(row, column, "a number", remedy)
        raise AssertionError

    def _refuse_cell(self, row: int, column: str, expected: str, remedy: str) -> NoReturn:
        cell = _shown(self._cells(column)[row])
        got = f"{cell} at {self.unit} {self.lines[row]}, column '{column}'"
        self.refuse(got, expected, remedy)


def read_table(path: Path) -> Table:
    """Read a `.parquet` file, or any other as CSV, compressed if it ends in `.gz`.

    A CSV is in UTF-8 with commas and a header; a byte order mark and blank lines are passed over.
    A row of empty cells is a row. In a table of one column a blank line might be meant as one, so
    it is refused after the header: an empty cell is written as "" there.

    Raises:
        DataError: a file that is missing, empty or unreadable; a header without rows; another
            separator; a row with too few or too many cells; a blank line in a single column.
        MissingExtraError: a Parquet file without pandas and pyarrow.
    """
    if not path.is_file():
        _refuse(path, f"{path}, which is no file", "a table", "Check the path.")
    if path.suffix.lower() == ".parquet":
        return _from_frame(_read_parquet(path), _stem(path), ("read_table", "path", str(path)))
    lines = _read_lines(path)
    rows = [(line, cells) for line, cells in lines if cells]
    if len(rows) < 2:
        got = "an empty file" if not rows else "a header without rows"
        _refuse(path, got, "a table with a header and rows", "Give a table with data.")
    header = [name.strip() for name in rows[0][1]]
    if len(header) == 1 and (separator := re.search("[;\t|]", header[0])):
        got, remedy = f"separated by {separator[0]!r}", "Write the table with commas."
        _refuse(path, got, "cells separated by ','", remedy)
    if len(header) == 1:
        _check_no_blank_lines(path, lines)
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            got = f"a row of {len(cells)} cells at line {line} of {path}"
            remedy = "Repair the row; numbers take a decimal point."
            _refuse(path, got, f"{len(header)} cells, as the header has", remedy)
    columns = list(zip(*(cells for _, cells in rows[1:]), strict=True))
    line_numbers = [line for line, _ in rows[1:]]
    return Table(_stem(path), ("read_table", "path", str(path)), header, columns, line_numbers)


def read_tables(path: Path) -> list[Table]:
    """Read a file, or every table of a folder in the order of their names.

    Raises:
        DataError: a file that `read_table` refuses; a folder without tables, or with two that
            differ in their suffix only.
    """
    if not path.is_dir():
        return [read_table(path)]
    names = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
    files = [path / name for name in names if name.lower().endswith(SUFFIXES)]
    if not files:
        got = f"{path}, a folder without tables"
        _refuse(path, got, f"files that end in one of {SUFFIXES}", "Check the path.")
    seen: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if seen.setdefault(stem, file) is not file:
            got, expected = f"{seen[stem].name} and {file.name}", f"one table called '{stem}'"
            _refuse(path, got, expected, "Rename or remove one.")
    return [read_table(file) for file in files]


def table_from_frame(frame: Any) -> Table:
    """Create a table of the columns of a pandas frame, and of its index if that has a name.

    An index and a column of the same name are two columns: reading that name is refused.

    Raises:
        DataError: something else than a frame, or one without rows.
    """
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        got = f"of type {type(frame).__name__}"
        remedy = "Give a DataFrame, or Tables the path of a file."
        raise DataError.of("Tables.from_frame", "frame", got, "a pandas DataFrame", remedy)
    return _from_frame(frame, "0", ("Tables.from_frame", "frame", "the frame"))


def read_events(
    path: Path, required: Sequence[str], group: str, *, may_be_empty: Sequence[str] = ()
) -> dict[str, Columns]:
    """Read the numbers of a table, grouped into events.

    Args:
        path: as in `read_table`. Further columns are ignored.
        required: the columns to read, all numbers.
        group: the column that names the event of a row.
        may_be_empty: columns of `required` whose empty cells become NaN.

    Returns:
        For each event, in order of first appearance, its columns as `(steps,)` float64.

    Raises:
        DataError: a table that `read_table` refuses; a missing column; a cell that is empty, no
            number, or not finite.
    """
    table = read_table(Path(path))
    rows = group_rows(table.labels(group))
    columns = {c: table.numbers(c, may_be_empty=c in may_be_empty) for c in required}
    return {name: {c: v[indices] for c, v in columns.items()} for name, indices in rows.items()}


def group_rows(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Group the indices of rows by label, labels in order of first appearance.

    >>> {name: rows.tolist() for name, rows in group_rows(["b", "a", "b"]).items()}
    {'b': [0, 2], 'a': [1]}
    """
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return {label: np.array(rows) for label, rows in groups.items()}


def timestamp(date_time: datetime) -> float:
    """Return the seconds since 1970; a datetime without a time zone is taken to be in UTC."""
    return (date_time if date_time.tzinfo else date_time.replace(tzinfo=UTC)).timestamp()


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of each line of a CSV with its number; a blank line has none."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix.lower() == ".gz"
            else open(path, encoding="utf-8-sig", newline="")
        ) as stream:
            reader = csv.reader(stream)
            return [(reader.line_num, cells) for cells in reader]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        got = f"unreadable ({type(error).__name__}: {error})"
        _refuse(path, got, "a CSV table in UTF-8", "Write the file again.")


def _check_no_blank_lines(path: Path, lines: list[tuple[int, list[str]]]) -> None:
    """Refuse a blank line after the header."""
    header = next(index for index, (_, cells) in enumerate(lines) if cells)
    for line, cells in lines[header:]:
        if not cells:
            got, expected = f"a blank line at line {line} of {path}", 'a value, or "" where unknown'
            _refuse(path, got, expected, 'Write "" if a cell is empty there, or drop the line.')


def _read_parquet(path: Path) -> Any:
    try:
        import pandas

        return pandas.read_parquet(path)
    except ImportError as error:
        got, expected = "a Parquet file", "pandas and pyarrow to read it"
        remedy = "Install the extra: pip install 'ragged-sequences[tables]'."
        raise MissingExtraError.of("read_table", "path", got, expected, remedy) from error
    except (OSError, ValueError) as error:
        got = f"unreadable ({type(error).__name__}: {error})"
        _refuse(path, got, "a Parquet table", "Write the file again.")


def _from_frame(frame: Any, name: str, origin: tuple[str, str, str]) -> Table:
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index(allow_duplicates=True)
    header = [str(column) for column in frame.columns]
    cells = [_frame_cells(frame.iloc[:, index]) for index in range(len(header))]
    table = Table(name, origin, header, cells, range(len(frame)), unit="row")
    if not len(frame):
        table.refuse("without rows", "a table with rows", "Give a table with data.")
    return table


def _frame_cells(column: Any) -> Any:
    """Return a frame's column: numbers as an array, others as a list, None where empty."""
    kind = column.dtype.kind
    if kind in "iu" and not column.hasnans:
        return column.to_numpy(dtype=np.int64 if kind == "i" else np.uint64)
    if kind in "iuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind == "M":
        return [None if stamp != stamp else stamp.to_pydatetime(warn=False) for stamp in column]
    return [_decoded(cell) for cell in column.to_numpy(dtype=object, na_value=None)]


def _decoded(cell: Any) -> Any:
    """Decode bytes; those that are not UTF-8 are returned, and refused by `Table`."""
    try:
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError:
        return cell


def _number(cell: Any) -> float:
    """Return the number in a cell; NaN if it is empty, infinity if it exceeds float64."""
    try:
        return math.nan if _is_empty(cell) else float(cell)
    except OverflowError:
        return math.inf


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _is_datetime(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            float(cell)
        except ValueError:
            return bool(cell.strip())
        return False
    return isinstance(cell, date)


def _datetime(cell: Any) -> datetime:
    if isinstance(cell, str):
        return datetime.fromisoformat(cell.strip())
    return cell if isinstance(cell, datetime) else datetime(cell.year, cell.month, cell.day)


def _to_python(cell: Any) -> Any:
    """Convert a cell to a plain value: stripped text, or a Python scalar for a NumPy one."""
    return cell.strip() if isinstance(cell, str) else getattr(cell, "item", lambda: cell)()


def _shown(cell: Any) -> str:
    """Format a cell for an error message."""
    value = _to_python(cell)
    if _is_empty(value):
        return "an empty cell"
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "a number beyond float64"  # its digits may be too many for Python to print
    return repr(str(value) if isinstance(value, date) else value)


def _stem(path: Path) -> str:
    return re.sub(r"(\.csv|\.parquet)?(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _refuse(path: Path, got: str, expected: str, remedy: str) -> NoReturn:
    Table("", ("read_table", "path", str(path)), (), (), ()).refuse(got, expected, remedy)
