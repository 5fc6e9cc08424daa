"""Rows with resets of the state: their pieces run as separate rows, concatenated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ragged.errors import DerivativeError
from ragged.lengths import Lengths
from ragged.recurrent.resets import Pieces, cut_rows
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import asarray, is_traced, to_numpy
from ragged_torch.recurrent.layouts import token_positions
from ragged_torch.recurrent.run import run_layers


def run_recurrent(
    shape: RecurrentShape,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: tuple[Tensor, ...] | None,
    between_layers: Callable[[Tensor], Tensor] | None,
    resets: Tensor | None = None,
    start: str = "zeros",
    *,
    layout: str = "padded",
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a checked layer; with resets, see `run_with_resets`."""
    call = parameters, x, lengths, state, between_layers
    if resets is None:
        return run_layers(shape, *call, layout=layout)
    to_initial = start == "initial"
    return run_with_resets(shape, *call, resets=resets, to_initial=to_initial, layout=layout)


@torch.compiler.disable  # where rows are cut follows from values
def run_with_resets(
    shape: RecurrentShape,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: tuple[Tensor, ...] | None,
    between_layers: Callable[[Tensor], Tensor] | None,
    *,
    resets: Tensor,
    to_initial: bool,
    layout: str = "padded",
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a checked layer whose state is reset before some tokens; the cost is that of its tokens.

    Args:
        shape, parameters, x, lengths, state, between_layers, layout: as in `run_layers`.
        resets: boolean, in the shape of the tokens of x, True where the state is reset; padding is
            not read.
        to_initial: whether to the row's initial state; else to zeros.

    Raises:
        DerivativeError: resets are traced or mapped, so that their values cannot be read.
    """
    reset_values = _read_resets(shape.cell.name, resets)
    positions = token_positions(layout, lengths, x)
    pieces = cut_rows(lengths.host, reset_values.reshape(-1)[to_numpy(positions)])
    if state is None:
        state = tuple(x.new_zeros(size) for size in shape.state_shapes(len(lengths)))
    starts = tuple(_starts(part, pieces, shape, to_initial) for part in state)
    widest = int(pieces.lengths.max(initial=0))
    y, ends = run_layers(
        shape,
        parameters,
        x.reshape(-1, x.shape[-1]).index_select(0, positions),
        Lengths(pieces.lengths, widest, lengths.policy),
        starts,
        between_layers,
        layout="jagged",
    )
    empty = y.new_zeros(x.shape[:-1].numel(), y.shape[-1])
    y = empty.index_copy(0, positions, y).reshape(*x.shape[:-1], y.shape[-1])
    return y, tuple(_ends(part, pieces, shape) for part in ends)


def _read_resets(function: str, resets: Tensor) -> np.ndarray:
    if is_traced(resets):
        got, expected = "held by a transformation", "values, as rows are cut by them"
        remedy = "Close over resets instead of mapping or tracing them."
        raise DerivativeError.of(function, "resets", got, expected, remedy)
    return to_numpy(resets)


def _directions(shape: RecurrentShape) -> list[bool]:
    """Whether each state `(layers * directions, ...)` is of the reverse direction."""
    return [direction != "" for _ in range(shape.num_layers) for direction in shape.directions]


def _starts(state: Tensor, pieces: Pieces, shape: RecurrentShape, to_initial: bool) -> Tensor:
    """The state `(layers * directions, pieces, size)` that each piece starts from."""
    state = state.index_select(1, asarray(pieces.rows, like=state))
    if to_initial:
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
