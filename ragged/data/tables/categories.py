"""Columns of words: one column of 0 and 1 for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ragged.data.sources import Columns, Roles
from ragged.data.tables.table import Table
from ragged.errors import DataError

MAX_LABELS = 50  # of a column; each becomes a column of a model's input

Labels = Mapping[str, Sequence[str]]


def find_labels(tables: Sequence[Table], roles: Roles) -> dict[str, list[str]]:
    """Return the labels of each column of words, in the order of the alphabet.

    Args:
        tables: all tables of a source.
        roles: the columns; a target is always a number.

    Raises:
        DataError: a missing column; more labels than `MAX_LABELS`.
    """
    columns = (*roles.known, *roles.past, *roles.static)
    return {
        column: _labels_of(column, tables)
        for column in columns
        if any(table.has_labels(column) for table in tables)
    }


def one_hot(cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Columns:
    """Return a column of 0 and 1 for each label; a label that is not among them is 0 in all.

    Args:
        cells: the label of each row, None where it is unknown.
        column: its name.
        labels: those that are told apart.

    >>> one_hot(["a", "b", None, "c"], "kind", ["a", "b"])
    {'kind=a': array([ 1.,  0., nan,  0.]), 'kind=b': array([ 0.,  1., nan,  0.])}
    """
    texts = np.array(cells, dtype=object)
    unknown = np.array([cell is None for cell in cells], dtype=bool)
    return {
        f"{column}={label}": np.where(unknown, np.nan, np.equal(texts, label).astype(np.float64))
        for label in labels
    }


def count_others(cells: Sequence[str | None], labels: Sequence[str]) -> Counter[str]:
    """Count the labels that are not among those told apart."""
    known = {None, *labels}
    return Counter(cell for cell in cells if cell is not None and cell not in known)


def with_labels(columns: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """Return the columns, those of words as one for each label.

    >>> with_labels(["rain", "kind"], {"kind": ["a", "b"]})
    ('rain', 'kind=a', 'kind=b')
    """
    return tuple(
        name
        for column in columns
        for name in (
            [f"{column}={label}" for label in labels[column]] if column in labels else [column]
        )
    )


def _labels_of(column: str, tables: Sequence[Table]) -> list[str]:
    labels = {cell for table in tables for cell in table.categories(column) if cell is not None}
    if len(labels) > MAX_LABELS:
        got, expected = f"a column of {len(labels)} labels", f"at most {MAX_LABELS}"
        remedy = f"List those to tell apart in labels: {{{column}: [...]}}, or leave it out."
        raise DataError.of("Tables", column, got, expected, remedy)
    return sorted(labels)
