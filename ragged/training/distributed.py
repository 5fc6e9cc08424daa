"""Batches sharded over devices: equal numbers of rows, and balanced tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ragged.lengths import Lengths

Batch = Any  # of ragged.data, as the shards


def shard_batch(batch: Batch, count: int) -> list[Batch]:
    """Split a batch by tokens into shards of one shape.

    Rows are assigned longest first, each to the shard with the fewest tokens that is not full.
    Shards are filled up with rows of length 0 to one number of rows, so that they share a program.

    Args:
        batch: of all devices.
        count: the number of devices; 1 returns the batch itself.

    Returns:
        The shards, with each row of the batch once.

    >>> from ragged.data import Series, Sample, collate
    >>> event = Series("0", np.arange(2.0), {})
    >>> def row(steps): return Sample(*np.ones((3, steps, 1)), event=event, split=1)
    >>> batch = collate([row(steps) for steps in (9, 2, 3, 4)], batch_size=4)
    >>> [shard.decoder_lengths.host.tolist() for shard in shard_batch(batch, 2)]
    [[9, 2], [4, 3]]
    """
    if count == 1:
        return [batch]
    tokens = batch.encoder_lengths.host + batch.decoder_lengths.host
    size = -(-len(tokens) // count)
    shards: list[list[int]] = [[] for _ in range(count)]
    loads = np.zeros(count)
    for row in np.argsort(-tokens, kind="stable"):
        open_shards = [shard for shard in range(count) if len(shards[shard]) < size]
        lightest = min(open_shards, key=lambda shard: (loads[shard], shard))
        shards[lightest].append(int(row))
        loads[lightest] += tokens[row]
    return [_take(batch, rows, size) for rows in shards]


def _take(batch: Batch, rows: list[int], size: int) -> Batch:
    """Select rows of a batch, and fill up with rows of length 0."""
    missing = size - len(rows)

    def pick(array: np.ndarray, fill: float = 0) -> np.ndarray:
        filler = np.full((missing, *array.shape[1:]), fill, array.dtype)
        return np.concatenate([array[rows], filler])

    def lengths(side_lengths: Lengths) -> Lengths:
        return Lengths(pick(side_lengths.host), side_lengths.width, side_lengths.policy)

    return replace(
        batch,
        past=pick(batch.past),
        future=pick(batch.future),
        target=pick(batch.target),
        encoder_lengths=lengths(batch.encoder_lengths),
        decoder_lengths=lengths(batch.decoder_lengths),
        rows=pick(batch.rows, fill=-1),
        static=None if batch.static is None else pick(batch.static),
        loss_lengths=None if batch.loss_lengths is None else pick(batch.loss_lengths),
        most_tokens=(0, 0),
    )
