"""Batches: rows padded to few shapes, in a reproducible order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ragged.checks import as_size
from ragged.data.buckets import likely_tokens, quantise
from ragged.data.dataset import RaggedDataset
from ragged.data.sample import Sample
from ragged.errors import OptionError
from ragged.lengths import Lengths
from ragged.ops.masks import ALIGNMENTS
from ragged.ops.tokens import token_capacity


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded arrays with their lengths; padding is 0.

    Args:
        past: `(batch, encoder_time, past_features)`, on the side `encoder_alignment`.
        future: `(batch, decoder_time, future_features)`, on the side `decoder_alignment`.
        target: `(batch, decoder_time, targets)`, likewise; NaN at valid steps where it is unknown.
        encoder_lengths: valid steps of `past`; 0 for a row that only fills the batch.
        decoder_lengths: valid steps of `future` and `target`; 0 likewise.
        rows: `(batch,)` int64, each row's index in the dataset; -1 for a filling row.
        encoder_alignment: "left" or "right".
        decoder_alignment: "left" or "right".
        static: `(batch, static_features)`, or None without any.
        loss_lengths: `(batch,)` int64, how many steps of each row the loss counts; None = its
            `decoder_lengths`. See `without_loss_masking`.
        most_tokens: how many valid steps either side of a batch may have that is to share its
            program; at least as many as its own.

    Example:
        >>> from ragged.data.sources import Series
        >>> event = Series("0", np.arange(4.0), {})
        >>> rows = [Sample(*np.ones((3, steps, 1)), event=event, split=1) for steps in (3, 1)]
        >>> batch = collate(rows)
        >>> batch.decoder_lengths.host.tolist(), batch.count
        ([3, 1], 4)
    """

    past: np.ndarray
    future: np.ndarray
    target: np.ndarray
    encoder_lengths: Lengths
    decoder_lengths: Lengths
    rows: np.ndarray
    encoder_alignment: str = "left"
    decoder_alignment: str = "left"
    static: np.ndarray | None = None
    loss_lengths: np.ndarray | None = None
    most_tokens: tuple[int, int] = (0, 0)

    @property
    def token_capacity(self) -> tuple[int, ...]:
        """How many tokens a program that is compiled for it has room for, on each side."""
        sides = self.encoder_lengths, self.decoder_lengths
        tokens = np.maximum([side.tokens for side in sides], self.most_tokens)
        return token_capacity(tokens.tolist(), [side.batch * side.width for side in sides])

    @cached_property
    def count(self) -> int:
        """The number of target elements that the loss counts: those that are unknown are not."""
        lengths = self.decoder_lengths.host if self.loss_lengths is None else self.loss_lengths
        counted = np.arange(self.target.shape[1]) < lengths[:, None]
        if self.decoder_alignment == "right":
            counted = counted[:, ::-1]
        return int((counted[..., None] & ~np.isnan(self.target)).sum())


def without_loss_masking(batch: Batch) -> Batch:
    """Count padding in the loss too: every row as long as the longest of the batch.

    At padding target and forecast are 0, so that every loss is 0 there: the mean is the plain one
    over a rectangle. How far the batch is padded beyond its longest row does not matter, and rows
    that only fill it are left out.

    Args:
        batch: of any dataset.

    >>> from ragged.data.sources import Series
    >>> event = Series("0", np.arange(4.0), {})
    >>> rows = [Sample(*np.ones((3, steps, 1)), event=event, split=1) for steps in (3, 1)]
    >>> batch = collate(rows, batch_size=3)
    >>> batch.count, without_loss_masking(batch).count
    (4, 6)
    """
    lengths = batch.decoder_lengths.host
    return replace(batch, loss_lengths=np.where(lengths > 0, lengths.max(), 0))


def collate(
    rows: Sequence[Sample],
    *,
    batch_size: int | None = None,
    dtype: Any = np.float32,
    encoder_alignment: str = "left",
    decoder_alignment: str = "left",
    shapes: int = 2,
    indices: Sequence[int] | np.ndarray | None = None,
    widths: Sequence[int] | None = None,
) -> Batch:
    """Pad rows into a batch of a fixed size.

    The widths are those given, or those of the longest rows, rounded up by `quantise`. Missing
    rows are filled with rows of length 0, so that every batch has `batch_size` rows.

    It serves as the `collate_fn` of a `torch.utils.data.DataLoader`.

    Args:
        rows: 1 to `batch_size` of them.
        batch_size: rows of the batch; as many as were given by default.
        dtype: of the arrays, float32 or float64.
        encoder_alignment: "left" or "right", where the context goes.
        decoder_alignment: the same for the horizon.
        shapes: as in `quantise`.
        indices: each row's index in the dataset; 0, 1, 2, ... if not given.
        widths: of the encoder's and the decoder's arrays, so that batches share a program.

    Raises:
        LengthsError: a row longer than its side of `widths`.
        OptionError: an unknown alignment or dtype, no rows, more rows than `batch_size`, indices
            of another number than the rows.

    >>> from ragged.data.sources import Series
    >>> event = Series("0", np.arange(3.0), {})
    >>> row = Sample(np.ones((1, 2)), np.ones((2, 1)), np.ones((2, 1)), event, split=1)
    >>> batch = collate([row], batch_size=2)
    >>> batch.future.shape, batch.decoder_lengths, batch.rows.tolist()
    ((2, 2, 1), Lengths([2, 0], width=2), [0, -1])
    """
    batch_size = len(rows) if batch_size is None else batch_size
    for argument, alignment in (
        ("encoder_alignment", encoder_alignment),
        ("decoder_alignment", decoder_alignment),
    ):
        if alignment not in ALIGNMENTS:
            got, expected = repr(alignment), "'left' or 'right'"
            raise OptionError.of("collate", argument, got, expected, "Name one of the two.")
    _check_collate(rows, batch_size, dtype, indices)
    encoder_width, decoder_width = (None, None) if widths is None else widths
    encoder = _padded_lengths([len(row.past) for row in rows], batch_size, shapes, encoder_width)
    decoder = _padded_lengths([len(row.future) for row in rows], batch_size, shapes, decoder_width)
    row_indices = np.full(batch_size, -1, dtype=np.int64)
    row_indices[: len(rows)] = np.arange(len(rows)) if indices is None else indices
    return Batch(
        past=_pad([row.past for row in rows], encoder, dtype, encoder_alignment),
        future=_pad([row.future for row in rows], decoder, dtype, decoder_alignment),
        target=_pad([row.target for row in rows], decoder, dtype, decoder_alignment),
        encoder_lengths=encoder,
        decoder_lengths=decoder,
        rows=row_indices,
        encoder_alignment=encoder_alignment,
        decoder_alignment=decoder_alignment,
        static=_stack([row.static for row in rows], batch_size, dtype),
    )


def batch_order(
    buckets: Sequence[np.ndarray], batch_size: int, *, seed: int, epoch: int = 0
) -> list[tuple[int, np.ndarray]]:
    """Assign rows to batches: a pure function of the arguments, each row exactly once.

    The rows are shuffled within their buckets and split into batches, and the batches of all
    buckets are shuffled.

    Args:
        buckets: for each bucket the indices of its rows.
        batch_size: rows of a batch; a bucket's last one may be smaller.
        seed: 0 or more.
        epoch: 0 or more; each has its own order.

    Returns:
        For each batch its bucket, and the indices of its rows.

    Raises:
        OptionError: a batch size below 1, a negative seed or epoch.

    >>> rows = [np.array([1, 4]), np.array([3, 2, 0])]
    >>> sorted((bucket, len(rows)) for bucket, rows in batch_order(rows, 2, seed=0))
    [(0, 2), (1, 1), (1, 2)]
    """
    as_size("batches", "batch_size", batch_size, minimum=1, maximum=None)
    as_size("batches", "epoch", epoch, minimum=0, maximum=None)
    as_size("batches", "shuffle_seed", seed, minimum=0, maximum=None)
    generator = np.random.default_rng([seed, epoch])
    order = [
        (index, rows)
        for index, members in enumerate(buckets)
        for rows in _chunks(generator.permutation(members), batch_size)
    ]
    return [order[index] for index in generator.permutation(len(order))]


def batches(
    dataset: RaggedDataset,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    epoch: int = 0,
    dtype: Any = np.float32,
    encoder_alignment: str | None = None,
    decoder_alignment: str | None = None,
    shapes: int = 2,
    buckets: int = 4,
) -> Iterator[Batch]:
    """Yield one epoch of batches, each row exactly once.

    Args:
        dataset: the rows.
        batch_size: rows of every batch; the one left over is filled with rows of length 0.
        shuffle_seed: 0 or more, or None for the dataset's order, with widths by `shapes`.
        epoch: with the seed it decides the order, so that a resumed run sees the same one.
        dtype: of the arrays, float32 or float64.
        encoder_alignment: the dataset's if not given, and "left" if it has none.
        decoder_alignment: likewise.
        shapes: as in `quantise`.
        buckets: the most shapes of a shuffled epoch, 1 or more: a batch holds rows of similar
            length, padded to the longest of its bucket, and a bucket is one compiled program.
            With 1 rows of all lengths meet in a batch.

    Raises:
        OptionError: an option that `batch_order` or `collate` refuses, or no buckets.

    Example:
        >>> past, future = [np.ones((3, 2))] * 5, [np.ones((2, 1))] * 5
        >>> dataset = RaggedDataset.from_arrays(past, future, target=future)
        >>> [batch.rows.tolist() for batch in batches(dataset, 2)]
        [[0, 1], [2, 3], [4, -1]]
    """
    as_size("batches", "batch_size", batch_size, minimum=1, maximum=None)
    as_size("batches", "buckets", buckets, minimum=1, maximum=None)
    encoder_alignment = encoder_alignment or dataset.encoder_alignment or "left"
    decoder_alignment = decoder_alignment or dataset.decoder_alignment or "left"
    lengths, most = dataset.lengths, {}
    order: list[tuple[tuple[int, ...], np.ndarray]]
    if shuffle_seed is None:
        chunks = _chunks(np.arange(len(dataset), dtype=np.int64), batch_size)
        order = [(_widths(lengths[indices], shapes), indices) for indices in chunks]
    else:
        found = dataset.buckets(batch_size, buckets)
        most = {each.widths: likely_tokens(lengths[each.rows], batch_size) for each in found}
        rows = [bucket.rows for bucket in found]
        shuffled = batch_order(rows, batch_size, seed=shuffle_seed, epoch=epoch)
        order = [(found[bucket].widths, indices) for bucket, indices in shuffled]
    for widths, indices in order:
        most[widths] = np.maximum(most.get(widths, 0), lengths[indices].sum(axis=0))
    for widths, indices in order:
        batch = collate(
            [dataset[int(index)] for index in indices],
            batch_size=batch_size,
            dtype=dtype,
            encoder_alignment=encoder_alignment,
            decoder_alignment=decoder_alignment,
            indices=indices,
            widths=widths,
        )
        encoder, decoder = most[widths].tolist()
        yield replace(batch, most_tokens=(encoder, decoder))


def _widths(lengths: np.ndarray, shapes: int) -> tuple[int, ...]:
    return tuple(quantise(int(longest), shapes) for longest in lengths.max(axis=0))


def _chunks(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _padded_lengths(lengths: list[int], batch_size: int, shapes: int, width: int | None) -> Lengths:
    width = quantise(max(lengths), shapes) if width is None else width
    return Lengths(lengths + [0] * (batch_size - len(lengths)), width)


def _pad(arrays: list[np.ndarray], lengths: Lengths, dtype: Any, alignment: str) -> np.ndarray:
    padded = np.zeros((len(lengths), lengths.width, arrays[0].shape[1]), dtype=dtype)
    for row, values in enumerate(arrays):
        start = lengths.width - len(values) if alignment == "right" else 0
        padded[row, start : start + len(values)] = values
    return padded


def _stack(rows: list[np.ndarray | None], batch_size: int, dtype: Any) -> np.ndarray | None:
    present = [row for row in rows if row is not None]
    if not present:
        return None
    if len(present) < len(rows):
        got, expected = "with statics in some rows only", "statics in all rows or in none"
        raise OptionError.of("collate", "rows", got, expected, "Collate alike rows.")
    statics = np.zeros((batch_size, len(present[0])), dtype=dtype)
    statics[: len(present)] = present
    return statics


def _check_collate(rows: Sequence[Sample], batch_size: int, dtype: Any, indices: Any) -> None:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise OptionError.of("collate", "dtype", np.dtype(dtype), "float32 or float64", "Name one.")
    if not 1 <= len(rows) <= batch_size:
        remedy = "Give fewer rows or a larger batch_size." if rows else "Give a row."
        raise OptionError.of("collate", "rows", f"{len(rows)} rows", f"1 to {batch_size}", remedy)
    if indices is not None and len(indices) != len(rows):
        got, remedy = f"{len(indices)} indices", "Give one index for each row."
        raise OptionError.of("collate", "indices", got, str(len(rows)), remedy)
