"""Rows with resets of the state: their pieces run as separate rows, concatenated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ragged.lengths import Lengths
from ragged.recurrent.resets import Pieces, cut_rows
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import asarray, to_numpy
from ragged_torch.recurrent.layouts import token_positions
from ragged_torch.recurrent.stack import LayerInputs, State


def run_pieces(
    run: Callable[[LayerInputs], tuple[Tensor, State]], inputs: LayerInputs
) -> tuple[Tensor, State]:
    """Run a checked layer whose state is reset before some tokens; the cost is that of its tokens.

    Args:
        run: runs a layer without resets, over jagged rows.
        inputs: of the call, with resets whose values can be read.
    """
    shape, x, lengths, resets = inputs.shape, inputs.x, inputs.lengths, inputs.resets
    assert resets is not None
    positions = token_positions(inputs.layout, lengths, x)
    marks = to_numpy(resets.at).reshape(-1)[to_numpy(positions)]
    pieces = cut_rows(lengths.host, marks)
    h, c = (_starts(part, pieces, shape, resets.start) for part in inputs.state)
    widest = int(pieces.lengths.max(initial=0))
    cut = inputs._replace(
        x=x.reshape(-1, x.shape[-1]).index_select(0, positions),
        lengths=Lengths(pieces.lengths, widest, lengths.policy),
        state=(h, c),
        layout="jagged",
        resets=None,
    )
    y, (h, c) = run(cut)
    empty = y.new_zeros(x.shape[:-1].numel(), y.shape[-1])
    y = empty.index_copy(0, positions, y).reshape(*x.shape[:-1], y.shape[-1])
    return y, (_ends(h, pieces, shape), _ends(c, pieces, shape))


def _directions(shape: RecurrentShape) -> list[bool]:
    """Whether each state `(layers * directions, ...)` is of the reverse direction."""
    return [direction != "" for _ in range(shape.num_layers) for direction in shape.directions]


def _starts(state: Tensor, pieces: Pieces, shape: RecurrentShape, start: str) -> Tensor:
    """The state `(layers * directions, pieces, size)` that each piece starts from."""
    state = state.index_select(1, asarray(pieces.rows, like=state))
    if start == "initial":
        return state
    enters = np.stack([pieces.enters(reverse=reverse) for reverse in _directions(shape)])
    return torch.where(asarray(enters, like=state)[..., None], state, 0.0)


def _ends(state: Tensor, pieces: Pieces, shape: RecurrentShape) -> Tensor:
    """The state of each row after its last read step."""
    parts = [
        part.index_select(0, asarray(pieces.leaves(reverse=reverse), like=state))
        for part, reverse in zip(state, _directions(shape), strict=True)
    ]
    return torch.stack(parts)
