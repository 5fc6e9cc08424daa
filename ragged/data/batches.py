"""Batches: rows padded to few shapes, in an order that a resumed run sees again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.data.dataset import Dataset, Row
from ragged.errors import OptionError, refusal
from ragged.lengths import Lengths
from ragged.masks import ALIGNMENTS


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded arrays with their lengths; padding is 0.

    Args:
        past: `(batch, encoder_time, past_features)`, aligned as `encoder_alignment` says.
        future: `(batch, decoder_time, future_features)`, left aligned.
        target: `(batch, decoder_time, targets)`, left aligned.
        encoder_lengths: valid steps of `past`; 0 for a row that only fills the batch.
        decoder_lengths: valid steps of `future` and `target`; 0 likewise.
        rows: `(batch,)` int64, each row's place in the dataset; -1 for a filling row.
        encoder_alignment: "left" or "right".
    """

    past: np.ndarray
    future: np.ndarray
    target: np.ndarray
    encoder_lengths: Lengths
    decoder_lengths: Lengths
    rows: np.ndarray
    encoder_alignment: str = "left"


def quantise(width: int, shapes: int = 2) -> int:
    """Round a width up so that few widths occur: `shapes` of them between powers of two.

    With 2 shapes the widths are 1 and 1.5 times a power of two: at most a half is added, and an
    epoch compiles few programs. With 4 at most a quarter is added.

    Args:
        width: in steps, 0 or more.
        shapes: widths for each doubling, 1 or more; fewer compile fewer programs and pad more.

    Raises:
        OptionError: a negative width, or no shapes.

    >>> [quantise(width) for width in (0, 7, 9, 33, 512, 513)]
    [0, 8, 12, 48, 512, 768]
    """
    _check_at_least("quantise", "width", width, 0)
    _check_at_least("quantise", "shapes", shapes, 1)
    if width == 0:
        return 0
    power: int = 1 << (width.bit_length() - 1)
    step = max(1, power // shapes)
    return min(-(-width // step) * step, 2 * power)


def collate(
    rows: Sequence[Row],
    *,
    batch_size: int,
    dtype: Any = np.float32,
    alignment: str = "left",
    shapes: int = 2,
    indices: Sequence[int] | np.ndarray | None = None,
) -> Batch:
    """Pad rows into a batch of a fixed size.

    The widths are those of the longest rows, rounded up by `quantise`. Missing rows are filled
    with rows of length 0, so that every batch has `batch_size` rows.

    Args:
        rows: 1 to `batch_size` of them.
        batch_size: rows of the batch.
        dtype: of the arrays, float32 or float64.
        alignment: "left" or "right": where the context goes; the horizon is always left.
        shapes: as in `quantise`.
        indices: each row's place in the dataset; 0, 1, 2, ... if not given.

    Raises:
        OptionError: an unknown alignment or dtype, no rows, more rows than `batch_size`, indices
            of another number than the rows.

    >>> from ragged.data.sources import Event
    >>> event = Event("0", np.arange(3.0), {})
    >>> row = Row(np.ones((1, 2)), np.ones((2, 1)), np.ones((2, 1)), event, split=1)
    >>> batch = collate([row], batch_size=2)
    >>> batch.future.shape, batch.decoder_lengths, batch.rows.tolist()
    ((2, 2, 1), Lengths([2, 0], width=2), [0, -1])
    """
    _check_collate(rows, batch_size, dtype, alignment, indices)
    encoder = _lengths([len(row.past) for row in rows], batch_size, shapes)
    decoder = _lengths([len(row.future) for row in rows], batch_size, shapes)
    places = np.full(batch_size, -1, dtype=np.int64)
    places[: len(rows)] = np.arange(len(rows)) if indices is None else indices
    return Batch(
        past=_pad([row.past for row in rows], encoder, dtype, alignment),
        future=_pad([row.future for row in rows], decoder, dtype, "left"),
        target=_pad([row.target for row in rows], decoder, dtype, "left"),
        encoder_lengths=encoder,
        decoder_lengths=decoder,
        rows=places,
        encoder_alignment=alignment,
    )


def batch_order(
    lengths: np.ndarray, batch_size: int, *, seed: int | None, epoch: int = 0, pool: int = 8
) -> list[np.ndarray]:
    """Say which rows form which batch: a pure function of the arguments, each row exactly once.

    Without a seed the rows keep their order. With one they are shuffled, sorted by length within
    pools of `pool` batches so that a batch holds rows of similar length, and the batches are
    shuffled again.

    Args:
        lengths: `(rows,)` the length to sort by.
        batch_size: rows of a batch; the one left over is smaller.
        seed: 0 or more, or None for the given order.
        epoch: 0 or more; each has its own order.
        pool: how many batches are sorted together; 1 shuffles most, more wastes less.

    Returns:
        For each batch the places of its rows, int64.

    Raises:
        OptionError: a batch size or pool below 1, a negative seed or epoch.

    >>> [batch.tolist() for batch in batch_order(np.array([3, 1, 2]), 2, seed=None)]
    [[0, 1], [2]]
    """
    _check_at_least("batches", "batch_size", batch_size, 1)
    _check_at_least("batches", "pool", pool, 1)
    _check_at_least("batches", "epoch", epoch, 0)
    count = len(lengths)
    if seed is None:
        return _chunks(np.arange(count, dtype=np.int64), batch_size)
    _check_at_least("batches", "shuffle_seed", seed, 0)
    generator = np.random.default_rng([seed, epoch])
    chunks: list[np.ndarray] = []
    for members in _chunks(generator.permutation(count).astype(np.int64), pool * batch_size):
        ordered = members[np.argsort(lengths[members], kind="stable")]
        chunks.extend(_chunks(ordered, batch_size))
    return [chunks[place] for place in generator.permutation(len(chunks))]


def batches(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    epoch: int = 0,
    dtype: Any = np.float32,
    alignment: str | None = None,
    shapes: int = 2,
    pool: int = 8,
) -> Iterator[Batch]:
    """Yield one epoch of batches, each row exactly once.

    Args:
        dataset: the rows.
        batch_size: rows of every batch; the one left over is filled with rows of length 0.
        shuffle_seed: 0 or more, or None for the dataset's order.
        epoch: with the seed it decides the order, so that a resumed run sees the same one.
        dtype: of the arrays, float32 or float64.
        alignment: of the encoder; the dataset's if not given, and "left" if it has none.
        shapes: as in `quantise`.
        pool: as in `batch_order`.

    Raises:
        OptionError: an option that `batch_order` or `collate` refuses.
    """
    side = alignment or dataset.encoder_alignment or "left"
    order = batch_order(
        dataset.lengths[:, 1], batch_size, seed=shuffle_seed, epoch=epoch, pool=pool
    )
    for places in order:
        yield collate(
            [dataset[int(place)] for place in places],
            batch_size=batch_size,
            dtype=dtype,
            alignment=side,
            shapes=shapes,
            indices=places,
        )


def _chunks(places: np.ndarray, size: int) -> list[np.ndarray]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _lengths(lengths: list[int], batch_size: int, shapes: int) -> Lengths:
    filled = lengths + [0] * (batch_size - len(lengths))
    return Lengths(filled, width=quantise(max(lengths), shapes))


def _pad(parts: list[np.ndarray], lengths: Lengths, dtype: Any, alignment: str) -> np.ndarray:
    padded = np.zeros((len(lengths), lengths.width, parts[0].shape[1]), dtype=dtype)
    for row, values in enumerate(parts):
        start = lengths.width - len(values) if alignment == "right" else 0
        padded[row, start : start + len(values)] = values
    return padded


def _check_at_least(function: str, argument: str, value: int, least: int) -> None:
    if value < least:
        expected = f"{least} or more"
        raise OptionError(refusal(function, argument, str(value), expected, "Raise it."))


def _check_collate(
    rows: Sequence[Row], batch_size: int, dtype: Any, alignment: str, indices: Any
) -> None:
    if alignment not in ALIGNMENTS:
        expected = "'left' or 'right'"
        raise OptionError(
            refusal("collate", "alignment", repr(alignment), expected, "Name one of the two.")
        )
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise OptionError(
            refusal("collate", "dtype", str(np.dtype(dtype)), "float32 or float64", "Name one.")
        )
    if not 1 <= len(rows) <= batch_size:
        got = f"{len(rows)} rows"
        remedy = "Give fewer rows or a larger batch_size." if rows else "Give a row."
        raise OptionError(refusal("collate", "rows", got, f"1 to {batch_size}", remedy))
    if indices is not None and len(indices) != len(rows):
        got, remedy = f"{len(indices)} indices", "Give one index for each row."
        raise OptionError(refusal("collate", "indices", got, str(len(rows)), remedy))
