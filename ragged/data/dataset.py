"""Rows ready for a model, before they are padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ragged.data.buckets import Bucket, make_buckets
from ragged.data.sources import Event


@dataclass(frozen=True, eq=False)
class Row:
    """One sequence: its context and its horizon, normalised float64, unpadded.

    Args:
        past: `(context, past_features)`.
        future: `(horizon, future_features)`.
        target: `(horizon, targets)`; NaN where it is unknown, in forecasts only.
        event: where the row comes from.
        split: the step of the event at which the horizon starts.
    """

    past: np.ndarray
    future: np.ndarray
    target: np.ndarray
    event: Event
    split: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows in a fixed order; `len` and indexing give rows.

    Args:
        rows: the rows.
        encoder_alignment: "left" or "right", where the context of a row goes when it is padded;
            None leaves it to whoever makes the batches.
    """

    rows: Sequence[Row]
    encoder_alignment: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Encoder and decoder length of each row, `(rows, 2)` int64."""
        pairs = [(len(row.past), len(row.future)) for row in self.rows]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def buckets(self, batch_size: int, most: int) -> list[Bucket]:
        """The rows in buckets of similar lengths, made once; see `make_buckets`."""
        if (batch_size, most) not in self._buckets:
            self._buckets[batch_size, most] = make_buckets(self.lengths, batch_size, most)
        return self._buckets[batch_size, most]

    @cached_property
    def _buckets(self) -> dict[tuple[int, int], list[Bucket]]:
        return {}

    @property
    def tokens(self) -> int:
        """The number of valid steps, encoder and decoder together."""
        return int(self.lengths.sum())
