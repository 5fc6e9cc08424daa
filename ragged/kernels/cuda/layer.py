"""What a layer computes around the kernels, over a backend's array namespace.

The kernels walk the steps. What does not depend on the steps before is one large product over all
tokens, which runs at the device's full rate: those with x before the kernel, and the gradients of
x, weights and biases after it. Nothing here reads a value on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ragged.errors import OptionError, ShapeError
from ragged.kernels.cuda.plans import GATES

Array = Any

MOST_PLACES = 2**31

X_GATES = {"GRU": (2, 0, 1)}  # with which gate each sum takes x, where not in order; of `cells.hpp`


class Tables(NamedTuple):
    """Where tokens stand: at `row_base[row] + step_base[step]`, all int32.

    Args:
        row_base: `(batch,)`.
        step_base: `(width,)`.
        order: `(batch,)`: the rows, longest first.
        valid: `(places,)`: whether a place holds a token.
    """

    row_base: Array
    step_base: Array
    order: Array
    valid: Array


class Gradients(NamedTuple):
    """The gradients of a layer's inputs, beside those of its states; x's may be None."""

    x: Array
    weight_ih: Array
    weight_hh: Array
    bias_ih: Array
    bias_hh: Array


def make_tables(
    xp: Any, layout: str, lengths: Array, width: int, places: int, device: Any = None
) -> Tables:
    """Make the tables of a layout, on the device of the lengths.

    Args:
        xp: the array namespace.
        layout: "padded", "time_major", "jagged" or "packed"; packed lengths go down.
        lengths: `(batch,)` int32, each from 0 to the width.
        width: the longest that a row may be.
        places: how many an array of tokens has.
        device: of the lengths; None where the namespace finds it.

    Raises:
        OptionError: another layout.
        ShapeError: more places than an int32 counts.

    >>> import array_api_compat.numpy as xp
    >>> make_tables(xp, "jagged", xp.asarray([2, 3], dtype=xp.int32), 3, 5).row_base
    array([0, 2], dtype=int32)
    """
    if places >= MOST_PLACES:
        expected, remedy = f"fewer than {MOST_PLACES}", "Give fewer rows at once."
        raise ShapeError.of("make_tables", "places", places, expected, remedy)
    batch = lengths.shape[0]
    rows = xp.arange(batch, dtype=xp.int32, device=device)
    steps = xp.arange(width, dtype=xp.int32, device=device)
    ends = xp.cumulative_sum(lengths, dtype=xp.int32)
    if layout == "padded":
        rows, valid = rows * width, steps[None, :] < lengths[:, None]
    elif layout == "time_major":
        steps, valid = steps * batch, steps[:, None] < lengths[None, :]
    elif layout == "jagged":
        rows, valid = ends - lengths, _first(xp, places, lengths, device)
    elif layout == "packed":
        reached = steps[:, None] < lengths[None, :]
        alive = xp.sum(xp.astype(reached, xp.int32), axis=1, dtype=xp.int32)
        steps = xp.cumulative_sum(alive, dtype=xp.int32) - alive
        valid = _first(xp, places, lengths, device)
    else:
        expected = "padded, time_major, jagged or packed"
        raise OptionError.of("make_tables", "layout", repr(layout), expected, "Name one of them.")
    order = xp.astype(xp.argsort(lengths, descending=True, stable=True), xp.int32)
    return Tables(rows, steps, order, xp.reshape(valid, (-1,)))


def bound_lengths(
    xp: Any, layout: str, lengths: Array, width: int, places: int
) -> tuple[Array, Array]:
    """Bound lengths that nobody has checked, so that no kernel leaves its arrays.

    To check them on the host would wait for the device.

    Args:
        xp, layout, width, places: as in `make_tables`.
        lengths: `(batch,)` int32.

    Returns:
        The lengths, 0 where they cannot be; and where that is. Where rows lie end to end, one
        wrong length displaces all rows.

    >>> import array_api_compat.numpy as xp
    >>> bound_lengths(xp, "padded", xp.asarray([2, 9, -1], dtype=xp.int32), 3, 9)
    (array([2, 0, 0], dtype=int32), array([False,  True,  True]))
    """
    wrong = (lengths < 0) | (lengths > width)
    if layout in ("jagged", "packed"):
        ends = xp.cumulative_sum(lengths, dtype=xp.int32)
        overflow = xp.any(ends > places) | xp.any(ends[1:] < ends[:-1])  # they may wrap around
        unsorted = xp.any(lengths[1:] > lengths[:-1]) if layout == "packed" else overflow
        wrong = wrong | xp.any(wrong) | overflow | unsorted
    return xp.where(wrong, xp.zeros_like(lengths), lengths), wrong


def multiply_x(xp: Any, x: Array, weight_ih: Array, bias_ih: Array) -> Array:
    """Return what the sums take of x `(places, inputs)`; what comes of padding is never read."""
    return x @ xp.matrix_transpose(weight_ih) + bias_ih[None, :]


def differentiate(
    xp: Any,
    cell: str,
    x: Array,
    weight_ih: Array,
    dsums: Array,
    h_before: Array,
    valid: Array,
    *,
    wants_x: bool = True,
) -> Gradients:
    """Return the gradients that follow from those of the sums, which the kernel has found.

    Args:
        xp: the array namespace.
        cell: one of `GATES`.
        x: `(places, inputs)`; anything at padding.
        weight_ih: `(gates * hidden, inputs)`.
        dsums: `(places, sums * hidden)`, 0 at padding.
        h_before: `(places, hidden)`, 0 at padding.
        valid: `(places,)`: whether a place holds a token.
        wants_x: whether the gradient of x is wanted; else it is None.
    """
    hidden = h_before.shape[1]
    height = GATES[cell] * hidden
    of_x = _in_torch_order(xp, cell, dsums[:, :height], hidden)
    of_h = dsums[:, dsums.shape[1] - height :]
    inputs = xp.where(valid[:, None], x, xp.zeros_like(x))
    return Gradients(
        x=of_x @ weight_ih if wants_x else None,
        weight_ih=xp.matrix_transpose(of_x) @ inputs,
        weight_hh=xp.matrix_transpose(of_h) @ h_before,
        bias_ih=xp.sum(of_x, axis=0),
        bias_hh=xp.sum(of_h, axis=0),
    )


def _first(xp: Any, places: int, lengths: Array, device: Any) -> Array:
    """Mark the first places, where tokens lie end to end."""
    return xp.arange(places, dtype=xp.int32, device=device) < xp.sum(lengths, dtype=xp.int32)


def _in_torch_order(xp: Any, cell: str, sums: Array, hidden: int) -> Array:
    if cell not in X_GATES:
        return sums
    blocks = [sums[:, k * hidden : (k + 1) * hidden] for k in range(GATES[cell])]
    gates = X_GATES[cell]
    return xp.concat([blocks[gates.index(gate)] for gate in range(GATES[cell])], axis=1)
