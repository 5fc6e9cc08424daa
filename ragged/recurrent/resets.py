"""Rows cut where their state is reset: the pieces between are run as rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

START_STATES = ("zeros", "initial")


class Pieces(NamedTuple):
    """The pieces of a batch, row by row, in time order.

    Args:
        rows: the row of each piece.
        lengths: the steps of each piece; a row of length 0 is one piece of length 0.
        is_first: whether it is the first of its row.
        is_last: whether it is the last of its row.
        goes_on: whether it is the first of its row, without a reset before its first step.
    """

    rows: np.ndarray
    lengths: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    goes_on: np.ndarray

    def enters(self, *, reverse: bool) -> np.ndarray:
        """Whether a piece starts from its row's state."""
        return self.is_last if reverse else self.goes_on

    def leaves(self, *, reverse: bool) -> np.ndarray:
        """Return the piece of each row that gives the row's final state."""
        return np.flatnonzero(self.is_first if reverse else self.is_last)


def cut_rows(lengths: np.ndarray, resets: np.ndarray) -> Pieces:
    """Cut rows before each reset.

    Args:
        lengths: `(batch,)`, of the rows.
        resets: `(tokens,)` boolean, row after row; True where the state starts anew before a step.

    >>> pieces = cut_rows(np.array([3, 0, 2]), np.array([False, True, False, True, False]))
    >>> pieces.rows.tolist(), pieces.lengths.tolist(), pieces.goes_on.tolist()
    ([0, 0, 1, 2], [1, 2, 0, 2], [True, False, True, False])
    """
    ends = np.cumsum(lengths)
    row_starts = (ends - lengths)[lengths > 0]
    is_start = resets.astype(bool)
    is_start[row_starts] = True
    starts = np.flatnonzero(is_start)
    empty = np.flatnonzero(lengths == 0)
    rows = np.concatenate([np.searchsorted(ends, starts, side="right"), empty])
    order = np.argsort(rows, kind="stable")
    sizes = np.concatenate([np.diff(np.append(starts, len(resets))), np.zeros_like(empty)])
    is_reset = np.concatenate([resets[starts], np.zeros(len(empty), bool)])[order]
    rows = rows[order]
    changes = rows[1:] != rows[:-1]
    is_first, is_last = np.append(True, changes), np.append(changes, True)
    is_first, is_last = is_first[: len(rows)], is_last[: len(rows)]
    return Pieces(rows, sizes[order].astype(np.int64), is_first, is_last, is_first & ~is_reset)
