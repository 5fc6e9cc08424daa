"""How the tokens of a batch lie: padded, time-major, jagged or packed."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.lengths import Lengths
from ragged_torch.arrays import asarray

LAYOUTS = ("padded", "time_major", "jagged", "packed")  # in the order of `Layout` in rows.hpp


def to_padded(x: Tensor, layout: str, lengths: Lengths) -> Tensor:
    """Give `(batch, time, features)` of tokens that lie otherwise; padding may hold anything."""
    if layout == "padded":
        return x
    if layout == "time_major":
        return x.transpose(0, 1)
    places = _places(layout, lengths, x)
    if not len(x):
        return x.new_zeros(*places.shape, *x.shape[1:])
    return x[places.clamp(max=len(x) - 1)]


def from_padded(x: Tensor, layout: str, lengths: Lengths, places: int) -> Tensor:
    """Undo `to_padded`.

    Args:
        x: `(batch, time, features)`.
        layout: what to lay the tokens out as.
        lengths: of the rows.
        places: tokens that there is room for; those beyond the rows' own are 0.
    """
    if layout == "padded":
        return x
    if layout == "time_major":
        return x.transpose(0, 1)
    tokens = x.flatten(0, 1).index_select(0, token_places("padded", lengths, x))
    empty = x.new_zeros(places, *x.shape[2:])
    return empty.index_copy(0, token_places(layout, lengths, x), tokens)


def _places(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Where each step `(batch, time)` of rows stands among all tokens."""
    count, width = asarray(lengths.host, like=like), lengths.width
    steps = torch.arange(width, device=like.device)
    rows = torch.arange(len(count), device=like.device)[:, None]
    if layout == "padded":
        return rows * width + steps
    if layout == "time_major":
        return rows + steps * len(count)
    if layout == "jagged":
        return (count.cumsum(0) - count)[:, None] + steps
    alive = (count[:, None] > steps).sum(0)
    return rows + alive.cumsum(0) - alive


def token_places(layout: str, lengths: Lengths, like: Tensor) -> Tensor:
    """Where the tokens, row after row, stand among all places of a layout."""
    valid = (
        torch.arange(lengths.width, device=like.device) < asarray(lengths.host, like=like)[:, None]
    )
    return _places(layout, lengths, like)[valid]
