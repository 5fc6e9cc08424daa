"""Batches shared out among devices: equal rows each, and tokens as even as they go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ragged.lengths import Lengths

Batch = Any  # of ragged.data, whose kind the parts are of


def shard_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch by tokens into parts of one shape.

    Rows are dealt out longest first, each to the part that has the fewest tokens so far and room
    left. Every part gets as many rows, rows of length 0 among them, so that one program serves all.

    Args:
        batch: what all devices share.
        parts: how many devices; 1 gives the batch itself.

    Returns:
        The parts; their rows together are those of the batch, each once.

    >>> from ragged.data import Series, Sample, collate
    >>> event = Series("0", np.arange(2.0), {})
    >>> def row(steps): return Sample(*np.ones((3, steps, 1)), event=event, split=1)
    >>> batch = collate([row(steps) for steps in (9, 2, 3, 4)], batch_size=4)
    >>> [part.decoder_lengths.host.tolist() for part in shard_batch(batch, 2)]
    [[9, 2], [4, 3]]
    """
    if parts == 1:
        return [batch]
    tokens = batch.encoder_lengths.host + batch.decoder_lengths.host
    room = -(-len(tokens) // parts)
    dealt: list[list[int]] = [[] for _ in range(parts)]
    loads = np.zeros(parts)
    for row in np.argsort(-tokens, kind="stable"):
        open_ = [part for part in range(parts) if len(dealt[part]) < room]
        lightest = min(open_, key=lambda part: (loads[part], part))
        dealt[lightest].append(int(row))
        loads[lightest] += tokens[row]
    return [_take(batch, rows, room) for rows in dealt]


def _take(batch: Batch, rows: list[int], room: int) -> Batch:
    """Some rows of a batch, filled up with rows of length 0."""
    missing = room - len(rows)

    def pick(array: np.ndarray, fill: float = 0) -> np.ndarray:
        filler = np.full((missing, *array.shape[1:]), fill, array.dtype)
        return np.concatenate([array[rows], filler])

    def lengths(whole: Lengths) -> Lengths:
        return Lengths(pick(whole.host), whole.width, whole.policy)

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
    )
