"""The layouts of a batch's tokens: padded, time-major, jagged or packed."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged_torch.arrays import name

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
    return x[positions.clamp(0, len(x) - 1)]  # traced lengths may be wrong: what runs them says so


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
    if 0 in x.shape[:2]:
        return x.new_zeros(capacity, *x.shape[2:])
    row, step, is_token = _rows_and_steps(layout, lengths, x, capacity)
    return torch.where(is_token[:, None], x[row, step], 0.0)


def _rows_and_steps(
    layout: str, lengths: Lengths, like: Tensor, capacity: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the row and the step of each place, jagged or packed, and whether it holds a token."""
    count, place = _counts(lengths, like), torch.arange(capacity, device=like.device)
    if layout == "packed":
        step, row = find_parts(count_active(count, lengths.width), place)
    else:
        row, step = find_parts(count, place)
    return row, step.clamp(max=lengths.width - 1), place < count.sum()


def find_parts(sizes: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return in which of parts that lie end to end a place is, and where in the part."""
    ends = sizes.cumsum(0)
    part = torch.searchsorted(ends, place, right=True).clamp(max=len(sizes) - 1)
    return part, place - (ends - sizes)[part]


def count_active(count: Tensor, width: int) -> Tensor:
    """Return how many rows have each step."""
    return (count[:, None] > torch.arange(width, device=count.device)).sum(0)


def _positions(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Return the index among all tokens of each step `(batch, time)`."""
    count, width = _counts(lengths, like), lengths.width
    steps = torch.arange(width, device=like.device)
    rows = torch.arange(len(count), device=like.device)[:, None]
    if layout == "padded":
        return rows * width + steps
    if layout == "time_major":
        return rows + steps * len(count)
    if layout == "jagged":
        return (count.cumsum(0) - count)[:, None] + steps
    active = count_active(count, width)
    return rows + active.cumsum(0) - active


def token_positions(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Return the indices of the tokens, row after row, in a layout."""
    count, tokens = _counts(lengths, like), lengths.tokens
    rows = torch.arange(len(count), device=like.device)
    # Their number is known: otherwise a device is waited for.
    row = rows.repeat_interleave(count, output_size=tokens)
    step = torch.arange(tokens, device=like.device) - (count.cumsum(0) - count)[row]
    return _positions(layout, lengths, like)[row, step]


def _counts(lengths: Lengths, like: Tensor) -> Tensor:
    """The lengths on the device of `like`; those that a transformation holds stay in its hands."""
    return lengths.to(load_backend(name), like).long()
