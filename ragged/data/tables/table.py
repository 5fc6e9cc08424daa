"""A table: columns of cells, read as numbers or labels; errors name the file, line and column."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from ragged.data.tables.cells import (
    GROUPED,
    NUMBER,
    TRUTH,
    UNKNOWN,
    as_series,
    cells_of,
    is_arrow,
    is_like_number,
    label_of,
    plain,
    shown,
    without_sign,
)
from ragged.errors import DataError

CORRECT = "Correct the cell, or list it in na_values if it stands for an unknown value."
FIRST_ROWS = 10  # of which one may be the header
LAST_ROWS = 3  # that may be remarks
BLANKS = " \u00a0\u202f"  # between digits, of which spreadsheets write the last two
FILL = "Fill the cell; only targets may be empty, and only when forecasting."


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of cells; errors name the file, line and column.

    Args:
        name: of the file; a single event is named after it.
        origin: the function and the argument that gave the table, and the argument's value.
        header: the names of the columns.
        columns: the cells of each: a pandas Series, or an Arrow column of text.
        line_of: the number in its file of a row.
        unit: the name of such a number.
        decimal: the mark in front of decimals in text.
        na_values: further words for an unknown cell.
        thousands: the mark between the digits of thousands in text, or None.
        sheets: the other sheets of an Excel file, of which none was named.
        is_numbered: whether the header lacked the name of a first column, of numbers of rows.
        named: what tells its series apart from those of other tables.
        renamed: the names that columns have in the file, where they were changed.
    """

    name: str
    origin: tuple[str, str, str]
    header: Sequence[str]
    columns: Sequence[Any]
    line_of: Callable[[int], int]
    unit: str = "line"
    decimal: str = "."
    na_values: Sequence[str] = ()
    thousands: str | None = None
    sheets: Sequence[str] = ()
    is_numbered: bool = False
    named: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns[0])

    def series(self, column: str) -> Any:
        """Return a column as a pandas Series.

        Raises:
            DataError: no column of this name, or two.
        """
        return as_series(self._cells_of(column))

    def numbers(self, column: str, *, may_be_empty: bool = False, fill: str = FILL) -> np.ndarray:
        """Return a column as `(rows,)` float64; an unknown cell becomes NaN, true 1 and false 0.

        Args:
            column: its name.
            may_be_empty: whether unknown cells are allowed.
            fill: the remedy for an unknown cell that is not.

        Raises:
            DataError: a missing column; a cell that is no number, infinite, or unknown.
        """
        values = self._plain_numbers(column)
        if values is None:
            cells = cells_of(self.series(column))
            if not isinstance(cells, np.ndarray):
                cells = self._converted(column, cells)
            values = np.array(cells, dtype=np.float64)
        values[np.isin(values, self._unknown_numbers)] = np.nan
        wrong = np.isinf(values) if may_be_empty else ~np.isfinite(values)
        if wrong.any():
            row = int(np.argmax(wrong))
            remedy = CORRECT if np.isinf(values[row]) else fill
            self.refuse_cell(row, column, "a finite number", remedy)
        return values

    def labels(self, column: str) -> list[str]:
        """Return a column as text, no cell of it empty.

        Raises:
            DataError: a missing column, an empty cell, or bytes that are no UTF-8.
        """
        empty = self.convert(column, self._is_empty_label)
        if any(empty):
            expected, remedy = "the name of an event", "Name the event on every row."
            self.refuse_cell(empty.index(True), column, expected, remedy)
        labels = self.convert(
            column, lambda cell: cell if isinstance(cell, bytes) else label_of(cell)
        )
        for row, label in enumerate(labels):
            if isinstance(label, bytes):
                self.refuse_cell(row, column, "text in UTF-8", "Write the column as text.")
        return labels

    def categories(self, column: str) -> list[str | None]:
        """Return a column as labels, None where it is unknown.

        Raises:
            DataError: a missing column.
        """
        return self.convert(column, lambda cell: None if self.is_unknown(cell) else label_of(cell))

    def unknown(self, column: str) -> np.ndarray:
        """Return where a column is unknown, `(rows,)` bool.

        Raises:
            DataError: a missing column.
        """
        return np.array(self.convert(column, self.is_unknown), dtype=bool)

    def is_empty(self, column: str) -> bool:
        """Whether a column has no known cell.

        Raises:
            DataError: a missing column.
        """
        cells = self._cells_of(column)
        each = (cell.as_py() for cell in cells) if is_arrow(cells) else cells_of(cells)
        return all(self.is_unknown(cell) for cell in each)

    def has_labels(self, column: str) -> bool:
        """Whether a column holds words: no known cell is like a number, nor all are yes or no.

        Categories of pandas are words, whatever they are.
        """
        cells = self._cells_of(column)
        if hasattr(cells.dtype if hasattr(cells, "dtype") else None, "categories"):
            return True
        if not is_arrow(cells) and cells.dtype.kind in "iufbMm":
            return False
        has_words = False
        for cell in cells.unique().to_pylist() if is_arrow(cells) else cells_of(cells):
            if self.is_unknown(cell):
                continue
            if is_like_number(cell):
                return False
            has_words |= not isinstance(cell, str) or cell.strip().lower() not in TRUTH
        return has_words

    def empty_rows(self, columns: Sequence[str]) -> np.ndarray:
        """Return where all of some columns are unknown, `(rows,)` bool.

        Raises:
            DataError: a missing column.
        """
        empty = np.ones(len(self), dtype=bool)
        for column in columns:
            if not empty.any():
                break
            empty &= self.unknown(column)
        return empty

    def take(self, rows: np.ndarray) -> Table:
        """Return some of the rows; they keep their lines."""
        columns = [cells.take(rows) for cells in self.columns]
        return replace(self, columns=columns, line_of=lambda row: self.line_of(int(rows[row])))

    def number(self, cell: Any) -> float:
        """Return the number in a cell; NaN if it is unknown, infinity if it exceeds float64.

        Raises:
            TypeError, ValueError: a cell that is no number.
        """
        if self.is_unknown(cell):
            return math.nan
        if isinstance(cell, str):
            cell = text = plain(cell)
            if text.lower() in TRUTH:
                return TRUTH[text.lower()]
            if self.thousands is not None:
                text = self._without_thousands(text)
                cell = text
            if self.decimal != ".":
                cell = text.replace(".", "?").replace(self.decimal, ".")  # "?" is in no number
        try:
            return float(cell)
        except OverflowError:
            return math.inf

    def is_unknown(self, cell: Any) -> bool:
        """Whether a cell is empty, or a word for an unknown value."""
        if isinstance(cell, str):
            text = cell.strip()
            return text in UNKNOWN or text in self.na_values
        return cell is None or cell != cell

    def refuse(self, got: str, expected: str, remedy: str) -> NoReturn:
        """Raise the error for a table that cannot be used."""
        function, argument, source = self.origin
        got = got if source in got else f"{got} in {source}"
        raise DataError.of(function, argument, got, expected, remedy)

    def refuse_cell(self, row: int, column: str, expected: str, remedy: str) -> NoReturn:
        """Raise the error for a cell that cannot be used."""
        cell = cells_of(self.series(column)[row : row + 1])[0]
        name = self.renamed.get(column, column)
        got = f"{shown(cell)} at {self.unit} {self.line_of(row)}, column '{name}'"
        if self.origin[1] == "path" and not is_like_number(cell):
            remedy += self._where_no_row(row)
        self.refuse(got, expected, remedy)

    def _where_no_row(self, row: int) -> str:
        """Return the remedy where a line may hold units, or stand below the last row."""
        cells = [cells_of(as_series(each[row : row + 1]))[0] for each in self.columns]
        if row == 0 and len(self) > 1 and not any(map(is_like_number, cells)):
            line = self.line_of(row)
            return f" If the line holds units, set skip_rows to {line} and list all names in names."
        if len(self) - LAST_ROWS <= row and len(self) > FIRST_ROWS:
            return f" If it is below the last row, set skip_footer to {len(self) - row}."
        return ""

    def _cells_of(self, column: str) -> Any:
        count = list(self.header).count(column)
        if count == 1:
            return self.columns[list(self.header).index(column)]
        if count:
            self.refuse(f"two columns '{column}'", "one", "Rename or drop the other.")
        near = difflib.get_close_matches(column, self.header, n=1)
        remedy = f"Rename '{near[0]}'." if near else f"It has the columns {list(self.header)}."
        if (header := self._header_below(column)) is not None:
            remedy = f"Set skip_rows to {header}."
        elif any(map(is_like_number, self.header)):
            remedy += " Where these are no names, list the names of all in names."
        if self.sheets:
            remedy += f" Or set sheet to one of {list(self.sheets)}."
        self.refuse(f"without column '{column}'", f"a column '{column}'", remedy)

    def convert(self, column: str, convert: Callable[[Any], Any]) -> list[Any]:
        """Convert each cell of a column, equal texts once."""
        cells = self._cells_of(column)
        if not is_arrow(cells):
            return [convert(cell) for cell in cells_of(cells)]
        encoded = cells.combine_chunks().dictionary_encode()
        converted = [convert(text) for text in encoded.dictionary.to_pylist()]
        return [converted[index] for index in encoded.indices.to_pylist()]

    def _plain_numbers(self, column: str) -> np.ndarray | None:
        """Return a column of text as numbers, NaN where it is unknown; None if Arrow cannot."""
        text = self._cells_of(column)
        if not is_arrow(text) or self.decimal != "." or self.thousands is not None:
            return None
        import pyarrow
        from pyarrow import compute

        trimmed = compute.utf8_trim_whitespace(text)
        words = pyarrow.array(sorted({*UNKNOWN, *self.na_values}))
        known = compute.if_else(compute.is_in(trimmed, words), None, trimmed)
        try:
            return known.cast("float64").to_numpy().copy()
        except pyarrow.ArrowInvalid:
            return None

    @property
    def _unknown_numbers(self) -> list[float]:
        """The numbers among the words for an unknown cell."""
        return [float(word) for word in self.na_values if re.fullmatch(NUMBER, word)]

    def _without_thousands(self, text: str) -> str:
        """Leave out the marks of thousands, if they stand between groups of three digits."""
        mark, decimal = self.thousands or "", re.escape(self.decimal)
        marks = f"[{BLANKS}]" if mark in BLANKS else re.escape(mark)
        groups = rf"[-+]?\d{{1,3}}({marks}\d{{3}})+({decimal}\d*)?"
        is_marked = re.fullmatch(groups, text) is not None
        return re.sub(marks, "", text) if is_marked else text

    def _header_below(self, column: str) -> int | None:
        """Return the lines above a row that names a column, of the first rows."""
        for row in range(min(len(self), FIRST_ROWS)):
            cells = [cells_of(as_series(each[row : row + 1]))[0] for each in self.columns]
            names = {name.strip() for c in cells for name in re.split(r"[,;\t|]", str(c))}
            if column in names and not any(map(is_like_number, names)):
                return self.line_of(row) - 1
        return None

    def _is_empty_label(self, cell: Any) -> bool:
        """Whether a label is missing: words such as NA may be labels."""
        if isinstance(cell, str):
            return not cell.strip() or cell.strip() in self.na_values
        return self.is_unknown(cell)

    def _converted(self, column: str, cells: Sequence[Any]) -> list[float]:
        """Return cells as numbers, without the sign that all of them have."""
        try:
            return [self.number(cell) for cell in cells]
        except (TypeError, ValueError):
            pairs = [("", "") if self.is_unknown(cell) else without_sign(cell) for cell in cells]
        signs = {sign for text, sign in pairs if text != ""}
        has_one = len(signs) == 1
        numbers = []
        for row, (cell, (text, _)) in enumerate(zip(cells, pairs, strict=True)):
            try:
                numbers.append(self.number(text if has_one else cell))
            except (TypeError, ValueError):
                remedy = self._remedy_for_number(text if has_one else cell)
                if not has_one and without_sign(cell)[1]:
                    remedy = "Write the same sign, of money or percent, in all cells, or none."
                self.refuse_cell(row, column, "a number", remedy)
        return numbers

    def _remedy_for_number(self, cell: Any) -> str:
        text = cell.strip() if isinstance(cell, str) else ""
        if grouped := re.fullmatch(GROUPED, text):
            return self._remedy_for_grouped(grouped)
        if self.decimal == "." and re.fullmatch(r"[-+]?\d*,\d+", text):
            return "Set decimal to ','."
        if self.decimal != "." and re.fullmatch(r"[-+]?\d*\.\d+", text):
            return "Leave decimal out."
        return CORRECT

    def _remedy_for_grouped(self, grouped: re.Match[str]) -> str:
        """Return the settings with which 1.234,5 or 1,234 is the number that it is."""
        mark, decimal = grouped["mark"], grouped["decimal"]
        other = {",": ".", ".": ","}.get(mark, self.decimal)
        set_decimal = f" and decimal to '{decimal or other}'"
        both = f"thousands to '{mark}'{set_decimal if (decimal or other) != self.decimal else ''}"
        if decimal or len(grouped["groups"]) > 4 or mark not in ",.":
            return f"Set {both}."
        as_decimal = f"set decimal to '{mark}'" if mark != "." else "leave decimal out"
        return f"Set {both} if it is above 999; else {as_decimal}."
