"""The layouts of a batch's tokens: padded, time-major, jagged or packed."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.lengths import Lengths
from ragged_torch.arrays import asarray

LAYOUTS = ("padded", "time_major", "jagged", "packed")  # in the order of `Layout` in rows.hpp


def to_padded(x: Tensor, layout: str, lengths: Lengths) -> Tensor:
    """Return tokens of any layout as `(batch, time, features)`; padding may hold anything."""
    if layout == "padded":
        return x
    if layout == "time_major":
        return x.transpose(0, 1)
    positions = _positions(layout, lengths, x)
    if not len(x):
        return x.new_zeros(*positions.shape, *x.shape[1:])
    return x[positions.clamp(max=len(x) - 1)]


def from_padded(x: Tensor, layout: str, lengths: Lengths, capacity: int) -> Tensor:
    """Undo `to_padded`.

    Args:
        x: `(batch, time, features)`.
        layout: that of the result.
        lengths: of the rows.
        capacity: number of tokens of the result; those beyond the rows are 0.
    """
    if layout == "padded":
        return x
    if layout == "time_major":
        return x.transpose(0, 1)
    tokens = x.flatten(0, 1).index_select(0, token_positions("padded", lengths, x))
    empty = x.new_zeros(capacity, *x.shape[2:])
    return empty.index_copy(0, token_positions(layout, lengths, x), tokens)


def _positions(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Return the index among all tokens of each step `(batch, time)`."""
    count, width = asarray(lengths.host, like=like), lengths.width
    steps = torch.arange(width, device=like.device)
    rows = torch.arange(len(count), device=like.device)[:, None]
    if layout == "padded":
        return rows * width + steps
    if layout == "time_major":
        return rows + steps * len(count)
    if layout == "jagged":
        return (count.cumsum(0) - count)[:, None] + steps
    active = (count[:, None] > steps).sum(0)
    return rows + active.cumsum(0) - active


def token_positions(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Return the indices of the tokens, row after row, in a layout."""
    valid = (
        torch.arange(lengths.width, device=like.device) < asarray(lengths.host, like=like)[:, None]
    )
    return _positions(layout, lengths, like)[valid]
