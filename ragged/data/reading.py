"""Reading of tables of numbers by event, for the sources that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragged.data.sources import Columns
from ragged.data.tables.reader import read_table
from ragged.data.tables.rows import group_rows


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
    table = read_table(Path(path), function="read")
    rows = group_rows(table.labels(group))
    columns = {c: table.numbers(c, may_be_empty=c in may_be_empty) for c in required}
    return {name: {c: v[indices] for c, v in columns.items()} for name, indices in rows.items()}
