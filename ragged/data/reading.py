"""Reading: columns of a CSV or Parquet file or a pandas frame, each cell known by its place."""

from __future__ import annotations

import csv
import difflib
import gzip
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ragged.data.sources import Columns
from ragged.errors import DataError, MissingExtraError, refusal

SUFFIXES = (".csv", ".csv.gz", ".parquet")
FILL = "Fill the cell; only targets may be empty, and only when forecasting."


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of cells; what cannot be used is refused with its file, line and column.

    Args:
        name: of the file, or what stands for it; a single event is called after it.
        origin: the function and the argument that gave the table, and what the argument held.
        header: the names of the columns.
        cells: each column's cells: text, or numbers, or datetimes; None or "" is empty.
        lines: the number of each row, as its file counts.
        unit: what such a number is called.
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
            may_be_empty: whether a cell may be.
            fill: the remedy for one that is and may not be.

        Raises:
            DataError: a missing column; a cell that is no number, infinite, or empty.
        """
        cells = self._cells(column)
        try:
            if not isinstance(cells, np.ndarray) or cells.dtype == object:
                cells = [_number(cell) for cell in cells]
            values = np.array(cells, dtype=np.float64)
        except (TypeError, ValueError):
            self._refuse_first(column, cells)
        wrong = np.isinf(values) if may_be_empty else ~np.isfinite(values)
        if wrong.any():
            row, cells = int(np.argmax(wrong)), self._cells(column)
            got = "an empty cell" if _is_empty(cells[row]) else repr(_plain(cells[row]))
            self._refuse_cell(got, row, column, "a finite number", fill)
        return values

    def labels(self, column: str) -> list[str]:
        """Return a column as text, no cell of it empty.

        Raises:
            DataError: a missing column, or an empty cell.
        """
        cells = self._cells(column)
        for row, cell in enumerate(cells):
            if _is_empty(cell):
                expected, remedy = "the name of an event", "Name the event on every row."
                self._refuse_cell("an empty cell", row, column, expected, remedy)
        return [str(_plain(cell)).strip() for cell in cells]

    def times(self, column: str) -> tuple[np.ndarray, list[datetime] | None]:
        """Return a column of numbers, or of datetimes with their seconds since 1970.

        Raises:
            DataError: a missing column; a cell that is neither a number nor an ISO 8601 datetime;
                datetimes of which only some have a time zone.
        """
        cells = self._cells(column)
        if not len(cells) or not _is_datetime(cells[0]):
            return self.numbers(column, fill="Give the time of every row."), None
        found: list[datetime] = []
        for row, cell in enumerate(cells):
            try:
                found.append(_datetime(cell))
            except (AttributeError, ValueError):
                got, remedy = repr(_plain(cell)), "Write it as 2026-01-31T12:00."
                self._refuse_cell(got, row, column, "an ISO 8601 datetime", remedy)
            if (found[row].tzinfo is None) != (found[0].tzinfo is None):
                expected = "a time zone on every row or on none"
                self._refuse_cell(repr(str(cell)), row, column, expected, "Give all the same.")
        aware = [t.replace(tzinfo=UTC) if t.tzinfo is None else t.astimezone(UTC) for t in found]
        return np.array([t.timestamp() for t in aware], dtype=np.float64), found

    def refuse(self, got: str, expected: str, remedy: str) -> NoReturn:
        """Raise what says that the table cannot be used."""
        function, argument, what = self.origin
        place = got if what in got else f"{got} in {what}"
        raise DataError(refusal(function, argument, place, expected, remedy))

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
                self._refuse_cell(repr(_plain(cell)), row, column, "a number", remedy)
        raise AssertionError

    def _refuse_cell(self, got: str, row: int, column: str, expected: str, remedy: str) -> NoReturn:
        place = f"{got} at {self.unit} {self.lines[row]}, column '{column}'"
        self.refuse(place, expected, remedy)


def read_table(path: Path) -> Table:
    """Read a `.parquet` file, or any other as CSV, compressed if it ends in `.gz`.

    A CSV is in UTF-8 with commas and a header; a byte order mark and blank lines are passed over.

    Raises:
        DataError: a file that is missing, empty or unreadable; a header without rows; another
            separator; a row with too few or too many cells.
        MissingExtraError: a Parquet file without pandas and pyarrow.
    """
    if not path.is_file():
        _refuse(path, f"{path}, which is no file", "a table", "Check the path.")
    if path.suffix == ".parquet":
        return _from_frame(_read_parquet(path), _stem(path), ("read_table", "path", str(path)))
    lines = _read_lines(path)
    if len(lines) < 2:
        got = "an empty file" if not lines else "a header without rows"
        _refuse(path, got, "a table with a header and rows", "Give a table with data.")
    header = [name.strip() for name in lines[0][1]]
    if len(header) == 1 and (found := re.search("[;\t|]", header[0])):
        got, remedy = f"separated by {found[0]!r}", "Write the table with commas."
        _refuse(path, got, "cells separated by ','", remedy)
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            got = f"a row of {len(cells)} cells at line {line} of {path}"
            remedy = "Repair the row; numbers take a decimal point."
            _refuse(path, got, f"{len(header)} cells, as the header has", remedy)
    columns = list(zip(*(cells for _, cells in lines[1:]), strict=True))
    numbers = [line for line, _ in lines[1:]]
    return Table(_stem(path), ("read_table", "path", str(path)), header, columns, numbers)


def read_tables(path: Path) -> list[Table]:
    """Read a file, or every table of a folder in the order of their names.

    Raises:
        DataError: a file that `read_table` refuses, or a folder without tables.
    """
    if not path.is_dir():
        return [read_table(path)]
    files = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES) and f.name[0] != ".")
    if not files:
        got = f"{path}, a folder without tables"
        _refuse(path, got, f"files that end in one of {SUFFIXES}", "Check the path.")
    return [read_table(file) for file in files]


def table_from_frame(frame: Any) -> Table:
    """Take the columns of a pandas frame, and its index where that has a name.

    Raises:
        DataError: something else than a frame, or one without rows.
    """
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        got = f"of type {type(frame).__name__}"
        remedy = "Give a DataFrame, or Tables the path of a file."
        raise DataError(refusal("Tables.from_frame", "frame", got, "a pandas DataFrame", remedy))
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
    rows = rows_of(table.labels(group))
    columns = {c: table.numbers(c, may_be_empty=c in may_be_empty) for c in required}
    return {name: {c: v[places] for c, v in columns.items()} for name, places in rows.items()}


def rows_of(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows that bear each label, labels in order of first appearance.

    >>> {name: rows.tolist() for name, rows in rows_of(["b", "a", "b"]).items()}
    {'b': [0, 2], 'a': [1]}
    """
    found: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        found.setdefault(label, []).append(row)
    return {label: np.array(rows) for label, rows in found.items()}


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else open(path, encoding="utf-8-sig", newline="")
        ) as stream:
            reader = csv.reader(stream)
            return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        got = f"unreadable ({type(error).__name__}: {error})"
        _refuse(path, got, "a CSV table in UTF-8", "Write the file again.")


def _read_parquet(path: Path) -> Any:
    try:
        import pandas

        return pandas.read_parquet(path)
    except ImportError as error:
        got, expected = "a Parquet file", "pandas and pyarrow to read it"
        remedy = "Install the extra: pip install 'ragged-sequences[tables]'."
        raise MissingExtraError(refusal("read_table", "path", got, expected, remedy)) from error
    except (OSError, ValueError) as error:
        got = f"unreadable ({type(error).__name__}: {error})"
        _refuse(path, got, "a Parquet table", "Write the file again.")


def _from_frame(frame: Any, name: str, origin: tuple[str, str, str]) -> Table:
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index()
    header = [str(column) for column in frame.columns]
    cells = [_frame_cells(frame.iloc[:, place]) for place in range(len(header))]
    table = Table(name, origin, header, cells, range(len(frame)), unit="row")
    if not len(frame):
        table.refuse("without rows", "a table with rows", "Give a table with data.")
    return table


def _frame_cells(column: Any) -> Any:
    """The cells of a frame's column: numbers as float64, all else as objects, None where empty."""
    if column.dtype.kind in "iu" and not column.hasnans:
        return column.to_numpy(dtype=np.int64)
    if column.dtype.kind in "iufb":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind == "M":
        return [None if stamp != stamp else stamp.to_pydatetime(warn=False) for stamp in column]
    return column.to_numpy(dtype=object, na_value=None)


def _number(cell: Any) -> float:
    """The number in a cell; NaN if it is empty."""
    return math.nan if _is_empty(cell) else float(cell)


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


def _plain(cell: Any) -> Any:
    """A cell as a user wrote it: text without spaces, NumPy's scalars as Python's."""
    return cell.strip() if isinstance(cell, str) else getattr(cell, "item", lambda: cell)()


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".parquet")


def _refuse(path: Path, got: str, expected: str, remedy: str) -> NoReturn:
    Table("", ("read_table", "path", str(path)), (), (), ()).refuse(got, expected, remedy)
