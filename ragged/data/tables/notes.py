"""What was sorted, merged, split or left out on reading, told to the user."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 5  # names in a note


@dataclass
class Notes:
    """Counts of what happened to the rows of tables.

    Args:
        others: files of a folder that are no tables.
        sheets: of an Excel file, beside the first.
        numbered: tables whose header lacks the name of a first column, of numbers of rows.
        empty_rows: rows without a time and a value.
        unsorted: the series whose rows were sorted.
        merged: rows that were made one with others of the same time.
        unknown: the series whose target is never known.
        other_labels: for each column of words the labels that are not told apart.
        parts: how many series were cut at gaps, into how many parts.
        form: in which dates were read, where it is not the usual one.
        likely: the column of time, and the time_format with which its numbers may be dates.
        added: the columns that were added.
    """

    others: list[str] = field(default_factory=list)
    sheets: list[str] = field(default_factory=list)
    numbered: list[str] = field(default_factory=list)
    empty_rows: int = 0
    unsorted: list[str] = field(default_factory=list)
    merged: int = 0
    unknown: list[str] = field(default_factory=list)
    other_labels: defaultdict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    parts: tuple[int, int] = (0, 0)
    form: str | None = None
    likely: tuple[str, str | None] = ("", None)
    added: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """One sentence for each thing that happened."""
        split, parts = self.parts
        column, form = self.likely
        facts = {
            f"left out of the folder, no tables: {some(self.others)}": self.others,
            f"read of the first sheet alone, not of {some(self.sheets)}": self.sheets,
            "the first column, which the header does not name, was taken for numbers of rows, as R "
            f"writes them, in: {some(self.numbered)}": self.numbered,
            f"empty rows, left out: {self.empty_rows}": self.empty_rows,
            f"rows were sorted by time in: {some(self.unsorted)}": self.unsorted,
            f"rows merged with others of the same time: {self.merged}": self.merged,
            f"left out, the target is never known: {some(self.unknown)}": self.unknown,
            f"gaps in time made {parts} events of {split}": parts > split,
            f"dates were read as {self.form}": self.form,
            f"'{column}' is read as numbers: with time_format: {form} they are dates, which have a "
            "calendar and a season": form,
            f"columns were added: {', '.join(self.added)}": self.added,
        }
        return [*(text for text, holds in facts.items() if holds), *self.unknown_labels]

    @property
    def unknown_labels(self) -> list[str]:
        """One sentence for each column with labels that are not told apart."""
        return [
            f"cells of '{column}' with a label that is not told apart, taken as none of them: "
            f"{labels.total()} ({some(labels)})"
            for column, labels in self.other_labels.items()
            if labels
        ]


def some(names: Iterable[str]) -> str:
    """List a few names, and how many there are besides.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    rest = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + rest
