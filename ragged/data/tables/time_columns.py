"""Time in several columns, such as year and month: they become one column of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time
from typing import Any

from ragged.data.tables.cells import label_of
from ragged.data.tables.table import Table

# Names of columns in English, and what `datetime.strptime` calls such cells.
NAMES = {
    **dict.fromkeys(("year", "yr", "yyyy"), "%Y"),
    **dict.fromkeys(("month", "mon", "mo", "mm"), "%m"),
    **dict.fromkeys(("day", "dd", "dom", "mday"), "%d"),
    **dict.fromkeys(("hour", "hr", "hh"), "%H"),
    **dict.fromkeys(("minute", "min"), "%M"),
    **dict.fromkeys(("second", "sec"), "%S"),
    **dict.fromkeys(("quarter", "qtr"), "Q"),
    **dict.fromkeys(("week", "isoweek"), "%V"),
    **dict.fromkeys(("doy", "yday", "dayofyear"), "%j"),
}
CLOCK = ("%H", "%M", "%S")
# Columns that make a time, in the order of their length.
DAYS = (("%Y", "%m", "%d"), ("%Y", "%j"))
WHOLE = (*DAYS, *((*day, *CLOCK[: n + 1]) for day in DAYS for n in range(3)))
WHOLE += (("%Y", "%m"), ("%Y", "Q"), ("%Y", "%V"))
LARGEST_HOUR = 24  # greater numbers are hours and minutes, as 2330
SHORT_YEAR = 2  # digits
COMPACT_DATE = r"\d{8}"  # 20240131


def joined_name(columns: Sequence[str]) -> str | None:
    """Return the name of the column that some become; None of none.

    >>> joined_name(["year", "month"])
    'year month'
    """
    return " ".join(columns) if columns else None


def with_joined(table: Table, columns: Sequence[str]) -> Table:
    """Return a table with a column more: the cells of some columns, with blanks between them.

    Whole numbers get two digits, so that 2020, 1 and 5 are "2020 01 05"; those of an hour column
    with numbers such as 2330 get four. A cell is empty where one of its parts is.

    A single column is left as it is.

    Raises:
        DataError: a missing column.
    """
    if len(columns) < 2:
        return table
    parts = [_texts(table, column, is_first=not n) for n, column in enumerate(columns)]
    joined = [None if None in row else " ".join(map(str, row)) for row in zip(*parts, strict=True)]
    import pandas

    series = pandas.Series(joined, dtype=object)
    header, cells = [*table.header, " ".join(columns)], [*table.columns, series]
    return replace(table, header=header, columns=cells)


def form_of(table: Table, columns: Sequence[str]) -> str | None:
    """Return the form of columns that were joined, if their names tell it.

    A year and a quarter, and a date beside an hour or a clock, are in a common form.

    Args:
        table: with the column that they became.
        columns: their names.

    Raises:
        DataError: a month and a day without their year, say, or numbers in columns of other names.
    """
    if len(columns) < 2:
        return None
    first = next(iter(table.series(" ".join(columns)).dropna()), "").split(" ")
    if len(first) != len(columns):
        return None
    found = [_meaning(column, cell) for column, cell in zip(columns, first, strict=True)]
    meanings = [meaning for meaning in found if meaning is not None]
    has_date = not all(map(str.isdecimal, first)) or re.fullmatch(COMPACT_DATE, first[0])
    if sorted(meanings) == ["%Y", "Q"] or (len(meanings) < len(columns) and has_date):
        return None
    if not any(sorted(meanings) == sorted(whole) for whole in WHOLE):
        _refuse(table, columns, first, meanings)
    return " ".join(_directive(*pair, meanings) for pair in zip(meanings, first, strict=True))


def _refuse(
    table: Table, columns: Sequence[str], first: Sequence[str], meanings: Sequence[str]
) -> None:
    """Refuse numbers whose names do not tell a date."""
    got = f"'{' '.join(first)}' in {' and '.join(map(repr, columns))}"
    expected = "columns that are called year and month, quarter, week or day, hour and so on"
    form = " ".join(meanings) if len(meanings) == len(columns) else "%Y %m"
    form = "%Y %j" if sorted(meanings) == ["%Y", "%d"] else form
    remedy = f"Name the other columns too, leave time out, or set time_format, as '{form}'."
    table.refuse(got, expected, remedy)


def _directive(meaning: str, cell: str, meanings: Sequence[str]) -> str:
    """Return what `datetime.strptime` calls a cell."""
    if meaning == "%Y":
        return "%G" if "%V" in meanings else "%y" if len(cell) <= SHORT_YEAR else "%Y"
    if meaning == "%m" and not cell.isdigit():
        return "%b" if len(cell) == len("Jan") else "%B"
    return "%H%M" if meaning == "%H" and len(cell) == len("2330") else meaning


def _meaning(column: str, cell: str) -> str | None:
    """Return what a column with such cells holds, if its name tells it, or one word of that.

    >>> [_meaning(name, "12") for name in ("YEAR", "order_month", "Hr.", "date", "dayOfYear")]
    ['%Y', '%m', '%H', None, '%j']
    >>> _meaning("month", "Dec"), _meaning("day", "2020-01-31")
    ('%m', None)
    """
    whole = re.sub(r"[\W_]", "", column).lower()
    words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", column).lower())
    found = {NAMES[word] for word in (whole, *words) if word in NAMES}
    meaning = NAMES.get(whole) or (found.pop() if len(found) == 1 else None)
    is_part = cell.isdecimal() or (meaning == "%m" and cell.isalpha()) or meaning == "Q"
    return meaning if is_part else None


def _texts(table: Table, column: str, *, is_first: bool) -> list[str | None]:
    """Return a part of the time as text, None where it is unknown."""
    cells = table.convert(column, lambda cell: None if table.is_unknown(cell) else _text(cell))
    numbers = [int(cell) for cell in cells if cell is not None and cell.isdecimal()]
    meaning = _meaning(column, "1")
    is_hour = meaning == "%H" or (meaning is None and not is_first)
    has_minutes = is_hour and max(numbers, default=0) > LARGEST_HOUR

    def shown(cell: str) -> str:
        if meaning == "Q":
            return f"Q{cell.upper().removeprefix('Q').lstrip('0')}"
        if not cell.isdecimal():
            return cell
        digits = cell.zfill(4 if has_minutes else 2)
        return f"{digits[:2]}:{digits[2:]}" if has_minutes and meaning is None else digits

    return [None if cell is None else shown(cell) for cell in cells]


def _text(cell: Any) -> str:
    """Return a cell as text: of a datetime at midnight, as Excel has days, the date."""
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(sep=" ")
    text = label_of(cell)
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text
