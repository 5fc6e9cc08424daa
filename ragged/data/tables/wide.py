"""Wide tables: each column is a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragged.data.tables.table import Table
from ragged.errors import OptionError

REST = "rest"  # all columns without a role


def narrow(
    table: Table, columns: Sequence[str] | str, target: str, others: Sequence[str]
) -> list[Table]:
    """Return a table for each column of a wide one, in which it is called as the target.

    A series begins with its first known cell.

    Args:
        table: the wide one.
        columns: those that are series; `REST` is all with a name but the others.
        target: the name that they get.
        others: the columns that all series share.

    Raises:
        DataError: a missing column, or no column left.
    """
    if columns == REST:
        columns = [name for name in table.header if name and name not in others]
    if not columns:
        expected = "columns that are series"
        table.refuse("without other columns", expected, "List them in series.")
    return [_series(table, column, target, others) for column in columns]


def check_wide(columns: Sequence[str] | str, target: Sequence[str], roles: Sequence[str]) -> None:
    """Refuse one text that is not `REST`, a column with a role, and several targets.

    Raises:
        OptionError: such columns.
    """
    if isinstance(columns, str) and columns != REST:
        got, expected = repr(columns), f"a list of columns, or {REST}"
        raise OptionError.of("Tables", "series", got, expected, f"Write ['{columns}'].")
    both = [] if columns == REST else [name for name in columns if name in roles]
    if both:
        got, expected = f"with '{both[0]}', which has another role", "columns without one"
        raise OptionError.of("Tables", "series", got, expected, "Name each column once.")
    if columns and len(target) != 1:
        got, expected = f"given with the targets {list(target)}", "one name for the cells of all"
        raise OptionError.of("Tables", "series", got, expected, "Write target: [value], say.")


def _series(table: Table, column: str, target: str, others: Sequence[str]) -> Table:
    """Return the rows of one series."""
    unknown = table.unknown(column)
    first = 0 if unknown.all() else int(np.argmin(unknown))
    kept = [name for name in dict.fromkeys(others) if name in table.header]
    header = [*kept, target]
    columns = [table.columns[list(table.header).index(name)] for name in [*kept, column]]
    part = replace(
        table,
        name=column,
        header=header,
        columns=columns,
        named=(*table.named, column),
        renamed={target: column},
    )
    return part.take(np.arange(first, len(part))) if first else part
