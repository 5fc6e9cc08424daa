"""Datasets: rows ready for a model, not padded, computed when they are accessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from ragged.data.buckets import Bucket, make_buckets
from ragged.data.sample import NormalizedSeries, Sample
from ragged.data.sources import Series
from ragged.errors import ShapeError


class SeriesRows(Sequence[Sample]):
    """Rows that are sliced out of series when they are accessed.

    Args:
        series: the events.
        cuts: `(rows, 4)` int64: the index of a row's series, and its start, split and stop there.
        shifts: `(rows, targets)` added to a row's targets, observed and to be forecast alike.
    """

    def __init__(
        self, series: Sequence[NormalizedSeries], cuts: np.ndarray, shifts: np.ndarray | None = None
    ) -> None:
        self.series, self.cuts, self.shifts = series, cuts, shifts

    def __len__(self) -> int:
        return len(self.cuts)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        event, start, split, stop = self.cuts[index].tolist()
        row = self.series[event].row(start, split, stop)
        return row if self.shifts is None else _shifted(row, self.shifts[index])

    @property
    def lengths(self) -> np.ndarray:
        """Encoder and decoder length of each row, `(rows, 2)`, without computing rows."""
        return np.diff(self.cuts[:, 1:], axis=1)


@dataclass(frozen=True, eq=False)
class RaggedDataset:
    """Rows in a fixed order; `len` and indexing give rows, `torch.utils.data.DataLoader` takes it.

    Args:
        rows: the rows.
        encoder_alignment: "left" or "right", where the context of a row goes when it is padded;
            None leaves it to `batches`.
        decoder_alignment: the same for the horizon.

    Example:
        >>> from ragged.data import collate
        >>> past, future, target = ([np.ones((n, 2)) for n in lengths] for lengths in [(3, 5)] * 3)
        >>> dataset = RaggedDataset.from_arrays(past, future, target)
        >>> dataset.lengths.tolist(), collate(dataset[:]).past.shape
        ([[3, 3], [5, 5]], (2, 6, 2))
    """

    rows: Sequence[Sample]
    encoder_alignment: str | None = None
    decoder_alignment: str | None = None

    @classmethod
    def from_arrays(
        cls,
        past: Sequence[np.ndarray],
        future: Sequence[np.ndarray],
        target: Sequence[np.ndarray],
        static: Sequence[np.ndarray] | None = None,
    ) -> RaggedDataset:
        """Create a dataset of rows that are already cut and normalised.

        Args:
            past: for each row `(context, past_features)`.
            future: for each row `(horizon, future_features)`.
            target: for each row `(horizon, targets)`; NaN where it is unknown.
            static: for each row `(static_features,)`, or None.

        Raises:
            ShapeError: lists of different numbers of arrays, arrays of other dimensions or of
                different numbers of features, a target of another length than its future.
        """
        sides = {"past": past, "future": future, "target": target}
        sides |= {} if static is None else {"static": static}
        arrays = {name: [np.asarray(array) for array in side] for name, side in sides.items()}
        _check_arrays(arrays)
        statics = arrays.get("static", [None] * len(past))
        rows = zip(*(arrays[name] for name in ("past", "future", "target")), statics, strict=True)
        return cls([_row(str(index), *row) for index, row in enumerate(rows)])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Encoder and decoder length of each row, `(rows, 2)` int64."""
        if isinstance(self.rows, SeriesRows):
            return self.rows.lengths
        pairs = [(len(row.past), len(row.future)) for row in self.rows]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def buckets(self, batch_size: int, most: int) -> list[Bucket]:
        """Return the rows in buckets of similar lengths, computed once; see `make_buckets`."""
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


def _shifted(row: Sample, shift: np.ndarray) -> Sample:
    """Add `shift (targets,)` to the targets, which are last in the past."""
    past = row.past.copy()
    past[:, -len(shift) :] += shift
    return replace(row, past=past, target=row.target + shift)


def _row(
    name: str, past: np.ndarray, future: np.ndarray, target: np.ndarray, static: np.ndarray | None
) -> Sample:
    time = np.arange(float(len(past) + len(future)))
    return Sample(past, future, target, Series(name, time, {}), len(past), static)


def _check_arrays(arrays: dict[str, list[np.ndarray]]) -> None:
    num_rows = len(arrays["past"])
    for name, row_arrays in arrays.items():
        if len(row_arrays) != num_rows:
            expected = f"{num_rows}, as `past` has"
            raise _refuse(name, f"{len(row_arrays)} arrays", expected, "Give one for each row.")
        dimensions = 1 if name == "static" else 2
        for row, array in enumerate(row_arrays):
            got = f"of shape {array.shape} in row {row}"
            if array.ndim != dimensions:
                expected = "(features,)" if name == "static" else "(time, features)"
                remedy = "Reshape it; one feature is array[:, None]."
                raise _refuse(name, got, expected, remedy)
            if array.shape[-1] != row_arrays[0].shape[-1]:
                expected = f"{row_arrays[0].shape[-1]} features, as row 0 has"
                raise _refuse(name, got, expected, "Give every row the same features.")
            if name == "target" and len(array) != len(arrays["future"][row]):
                expected = f"{len(arrays['future'][row])} steps, as `future` has"
                raise _refuse(name, got, expected, "Give a target for each step of the horizon.")


def _refuse(argument: str, got: str, expected: str, remedy: str) -> ShapeError:
    return ShapeError.of("RaggedDataset.from_arrays", argument, got, expected, remedy)
