"""Tables as text: their separator, encoding and decimals, and every row of one width."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ragged.checks import as_size
from ragged.data.tables.lines import (
    BLANKS,
    above,
    below,
    cells_of_blanks,
    may_be_blanks,
    quotes_at_edges,
    with_all_names,
)
from ragged.data.tables.table import Table
from ragged.errors import OptionError

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 20  # rows that show the separator
FOOTER = 10  # rows of another width at the end that may be remarks
BLOCK = 2**24  # bytes; no row may be longer

Origin = tuple[str, str, str]


@dataclass(frozen=True)
class Dialect:
    """How tables are written as text.

    Args:
        separator: between cells, one character; " " is any number of blanks and tabs. By default
            the one of comma, semicolon, tab, bar and blanks that gives every row as many cells as
            the header.
        decimal: the mark in front of decimals, "." or ",".
        encoding: of the text.
        na_values: words for an unknown cell, beside the usual ones.
        thousands: the mark between the digits of thousands, one character.
        skip_rows: the lines above the header.
        names: of the columns, of a table without a header.
        skip_footer: the lines below the last row.
        sheet: of an Excel file, by default the first.

    Raises:
        OptionError: a mark of several characters, another decimal mark, one mark for two things, an
            encoding that Python does not know, a number of rows below 0, or one text instead of a
            list.
    """

    separator: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    na_values: Sequence[str] = ()
    thousands: str | None = None
    skip_rows: int = 0
    names: Sequence[str] | None = None
    skip_footer: int = 0
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '\r\n"'):
            expected, remedy = "one character", r"Write it in quotes: ';' or, a tab, '\t'."
            raise OptionError.of("Tables", "separator", repr(self.separator), expected, remedy)
        if self.decimal not in (".", ","):
            got, expected = repr(self.decimal), "'.' or ','"
            raise OptionError.of("Tables", "decimal", got, expected, "Name one.")
        if self.decimal == self.separator:
            got, expected = repr(self.decimal), "another character than the separator"
            raise OptionError.of("Tables", "decimal", got, expected, "Change one of the two.")
        mark = self.thousands
        if mark is not None and (
            len(mark) != 1 or mark in "+-eE0123456789" or mark == self.decimal
        ):
            got, expected = repr(mark), "one character that is no digit and not the decimal mark"
            raise OptionError.of("Tables", "thousands", got, expected, "Write ',', '.' or ' '.")
        for argument in ("skip_rows", "skip_footer"):
            as_size("Tables", argument, getattr(self, argument), minimum=0, maximum=None)
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            got, remedy = repr(self.encoding), "Name one, such as utf-8, latin-1 or utf-16."
            expected = "an encoding that Python knows"
            raise OptionError.of("Tables", "encoding", got, expected, remedy) from error
        for argument in ("na_values", "names"):
            if isinstance(value := getattr(self, argument), str):
                got, remedy = repr(value), f"Write ['{value}']."
                raise OptionError.of("Tables", argument, got, "a list of words", remedy)


def read_text(content: bytes, name: str, origin: Origin, dialect: Dialect) -> Table:
    """Read a table that is written as text.

    Args:
        content: the bytes of the file.
        name: of the table.
        origin: as in `Table`.
        dialect: how it is written.

    Raises:
        DataError: text in another encoding, an empty file, a header without rows, a separator
            that is not clear, a row of another width, a blank line in a single column.
    """
    blank = Table(name, origin, (), (), int)
    text = _decoded(content, blank, dialect.encoding)
    text = above(below(text, dialect.skip_rows), dialect.skip_footer)
    separator = dialect.separator or _find_separator(text, blank)
    if separator == BLANKS:
        text, separator = cells_of_blanks(text), "\t"
    text = quotes_at_edges(text, separator)
    first = [row for _, row in islice(_rows(text, separator, blank), SAMPLE)]
    has_header = dialect.names is None
    if len(first) < 1 + has_header:
        got = "a header without rows" if first else "an empty file"
        blank.refuse(got, "a table with a header and rows", "Give a table with data.")
    header = check_names(dialect.names, len(first[0]), blank) or [cell.strip() for cell in first[0]]
    if len(header) == 1:
        _check_no_blank_lines(text, separator, blank)
    given = header
    header, columns = _columns(text, separator, header, has_header, [*map(len, first)], blank)

    def line_of(row: int) -> int:
        return next(islice(_rows(text, separator, blank), row + has_header, None))[0]

    marks = dialect.decimal, dialect.na_values, dialect.thousands
    table = Table(name, origin, header, columns, line_of, "line", *marks)
    return replace(table, is_numbered=[*header] == ["", *given])


def check_names(names: Sequence[str] | None, columns: int, table: Table) -> list[str]:
    """Return the names of columns as given, none if they are in the header.

    Raises:
        DataError: more names than columns, or fewer.
    """
    if names is not None and len(names) != columns:
        remedy = "List all columns in names, in their order."
        table.refuse(f"{columns} columns", f"{len(names)}, as names has", remedy)
    return list(names or ())


def _decoded(content: bytes, table: Table, encoding: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        got = f"unreadable ({type(error).__name__}: {error}) at line {line}"
        remedy = "Name its encoding in `encoding`, such as latin-1 or utf-16."
        table.refuse(got, f"text in {encoding}", remedy)


def _rows(text: str, separator: str, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row; a blank line is no row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        got = f"unreadable ({type(error).__name__}: {error}) at line {reader.line_num}"
        table.refuse(got, "cells with quotes around special characters", "Write the file again.")


def _find_separator(text: str, table: Table) -> str:
    """Return the separator that gives the first rows as many cells as the header."""
    samples = {
        separator: [len(cells) for _, cells in islice(_rows(text, separator, table), SAMPLE)]
        for separator in SEPARATORS
    }
    several = {
        separator: widths for separator, widths in samples.items() if max(widths, default=0) > 1
    }
    even = [mark for mark, widths in several.items() if len(set(widths)) == 1]
    if len(even) > 1:
        got = f"separated by {' or by '.join(map(repr, even))}"
        table.refuse(got, "one separator", "Name it in `separator`.")
    # Rows of different widths are refused later, with their line, for the separator of the header.
    of_header = [mark for mark, widths in several.items() if widths[0] > 1]
    if not even and not of_header:
        rows = islice(_rows(cells_of_blanks(_first(text)), "\t", table), SAMPLE)
        if may_be_blanks([len(cells) for _, cells in rows]):
            return BLANKS
    return next(iter([*even, *of_header, ","]))


def _columns(
    text: str, separator: str, header: list[str], has_header: bool, widths: list[int], table: Table
) -> tuple[list[str], list[Any]]:
    """Return the names of the columns and their cells, as Arrow's columns of text.

    Args:
        text: the rows.
        separator: between cells.
        header: the names that there are.
        has_header: whether they are the first row.
        widths: of the first rows.
        table: for errors.
    """
    width = widths[-1]
    if has_header and width != len(header) and set(widths[1:]) == {width}:
        start = next(line for line, _ in _rows(text, separator, table))
        columns = _cells(below(text, start), separator, width, table)
        names = with_all_names(header, width, columns)
        if names is not None:
            return names, columns[:width]
    cells = _cells(text, separator, len(header), table)
    return header, [column.slice(int(has_header)) for column in cells]


def _cells(text: str, separator: str, width: int, table: Table) -> list[Any]:
    """Return all rows of a text as Arrow's columns."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    names = [str(index) for index in range(width)]
    read = arrow_csv.ReadOptions(column_names=names, block_size=BLOCK)
    parse = arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pyarrow.string()),
        strings_can_be_null=False,
        quoted_strings_can_be_null=False,
    )
    try:
        content = io.BytesIO(text.encode())
        return list(arrow_csv.read_csv(content, read, parse, convert).columns)
    except (pyarrow.ArrowException, UnicodeError) as error:
        _refuse_row(text, separator, width, table)
        got = f"unreadable ({type(error).__name__}: {error})"
        table.refuse(got, "a table of text", "Write the file again.")


def _refuse_row(text: str, separator: str, width: int, table: Table) -> None:
    """Refuse the first row that has not the width of the header."""
    rows = list(_rows(text, separator, table))
    for row, (line, cells) in enumerate(rows):
        if len(cells) == width:
            continue
        got = f"a row of {len(cells)} cells at line {line} of {table.origin[2]}"
        remedy = "Repair the row, or name its first column in the header; or set separator."
        rest = [len(cells) for _, cells in rows[row:]]
        if len(cells) > width and row < SAMPLE:
            remedy = (
                f"Repair the row, or set separator. If it is the header, set skip_rows to "
                f"{line - 1}; if the header lacks a name, set skip_rows to {rows[0][0]} and "
                "list all in names."
            )
        elif row > 1 and len(rest) <= FOOTER and width not in rest:
            remedy = f"Repair it, or, if it is below the last row, set skip_footer to {len(rest)}."
        table.refuse(got, f"{width} cells, as the header has", remedy)


def _first(text: str) -> str:
    """Return the beginning of a text, which holds more than the first rows."""
    return "".join(islice(io.StringIO(text, newline=""), 10 * SAMPLE))


def _check_no_blank_lines(text: str, separator: str, table: Table) -> None:
    """Refuse a blank line after the header of a table of one column."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    below_header = False
    for cells in reader:
        if below_header and not cells:
            got = f"a blank line at line {reader.line_num} of {table.origin[2]}"
            remedy = (
                'Write "" if a cell is empty there, or drop the line. If the header is further '
                "down, set skip_rows."
            )
            table.refuse(got, 'a value, or "" where unknown', remedy)
        below_header = below_header or bool(cells)
