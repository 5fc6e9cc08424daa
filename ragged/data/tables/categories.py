"""Columns of words: the numbers of their labels, or a column of 0 and 1 for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ragged.data.sources import Columns, Roles
from ragged.data.tables.table import Table
from ragged.errors import DataError

MAX_LABELS = 10_000  # of a column whose labels are embedded
MAX_COLUMNS = 50  # of 0 and 1 that one column of words becomes
AUTO = "auto"  # all columns of words

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Categories:
    """The columns of words, and the labels that are told apart in each.

    Args:
        embedded: of columns that become the numbers of their labels: 1 is the first one's, and 0
            that of every label that is not among them.
        one_hot: of columns that become a column of 0 and 1 for each label.
    """

    embedded: Labels = field(default_factory=dict)
    one_hot: Labels = field(default_factory=dict)

    def labels_of(self, column: str) -> Sequence[str] | None:
        """Return the labels of a column; None of one that holds numbers."""
        return self.embedded.get(column, self.one_hot.get(column))

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of what columns become.

        >>> Categories({"kind": ["a"]}, {"area": ["x", "y"]}).names(["rain", "kind", "area"])
        ('rain', 'kind', 'area=x', 'area=y')
        """
        return tuple(
            name
            for column in columns
            for name in (
                [f"{column}={label}" for label in self.one_hot[column]]
                if column in self.one_hot
                else [column]
            )
        )

    def columns(self, column: str, cells: Sequence[str | None]) -> Columns:
        """Return what a column of words becomes; NaN where it is unknown.

        >>> Categories({"kind": ["a", "b"]}).columns("kind", ["b", None, "c"])
        {'kind': array([ 2., nan,  0.])}
        >>> Categories({}, {"kind": ["a", "b"]}).columns("kind", ["b", None, "c"])
        {'kind=a': array([ 0., nan,  0.]), 'kind=b': array([ 1., nan,  0.])}
        """
        labels = self.labels_of(column) or ()
        numbers = {label: number for number, label in enumerate(labels, start=1)}
        values = np.array(
            [np.nan if cell is None else numbers.get(cell, 0) for cell in cells], dtype=np.float64
        )
        if column in self.embedded:
            return {column: values}
        unknown = np.isnan(values)
        return {
            f"{column}={label}": np.where(unknown, np.nan, values == number)
            for label, number in numbers.items()
        }

    def shown(self, column: str, value: float) -> str:
        """Return a value of a column for a message: its label, or the number."""
        labels, number = self.embedded.get(column), int(value)
        if labels is None:
            return f"{value:.15g}"
        return repr(labels[number - 1]) if number else "an unknown label"


@dataclass(frozen=True)
class CategoryOptions:
    """What a user says of columns of words.

    Args:
        categories: the columns whose labels are embedded, with the labels or without; None is open.
        labels: those that become columns of 0 and 1; `AUTO` is all other columns of words, and None
            is open.
    """

    categories: Labels | Sequence[str] | None = None
    labels: Labels | str | None = None

    @property
    def given(self) -> Categories | None:
        """The columns and labels if they do not depend on the data, else None.

        Where one of the two options is given, the other is about no column; where none is, the
        columns of words that the data have are embedded.
        """
        categories, labels = self.categories, self.labels
        if categories is None and labels is None:
            return None
        embedded, one_hot = categories or {}, labels or {}
        if isinstance(embedded, Mapping) and isinstance(one_hot, Mapping):
            return Categories(embedded, one_hot)
        return None

    def find(self, tables: Sequence[Table], roles: Roles) -> Categories:
        """Return the columns and labels, where they are open those of the data.

        Args:
            tables: all tables of a source.
            roles: the columns; a target is always a number.

        Raises:
            DataError: a missing column; more labels than a column may have.
        """
        is_open = self.categories is None and self.labels is None
        embedded = _words(tables, roles, ()) if is_open else self.categories or ()
        one_hot = _words(tables, roles, embedded) if self.labels == AUTO else self.labels or ()
        return Categories(
            _found(embedded, tables, MAX_LABELS, "categories"),
            _found(one_hot, tables, MAX_COLUMNS, "labels"),
        )


def count_others(cells: Sequence[str | None], labels: Sequence[str]) -> Counter[str]:
    """Count the labels that are not among those told apart."""
    known = {None, *labels}
    return Counter(cell for cell in cells if cell is not None and cell not in known)


def _words(tables: Sequence[Table], roles: Roles, others: Labels | Sequence[str]) -> list[str]:
    """Return the columns of words, without others."""
    columns = [name for name in (*roles.known, *roles.past, *roles.static) if name not in others]
    return [column for column in columns if any(table.has_labels(column) for table in tables)]


def _found(
    columns: Labels | Sequence[str], tables: Sequence[Table], most: int, option: str
) -> Labels:
    """Return the labels of columns, as given or those of the data, in the order of the alphabet."""
    if isinstance(columns, Mapping):
        return columns
    found = {}
    for column in columns:
        labels = {cell for table in tables for cell in table.categories(column) if cell is not None}
        if len(labels) > most:
            got, expected = f"a column of {len(labels)} labels", f"at most {most}"
            remedy = f"List those to tell apart in {option}: {{{column}: [...]}}, or leave it out."
            raise DataError.of("Tables", column, got, expected, remedy)
        found[column] = sorted(labels)
    return found
