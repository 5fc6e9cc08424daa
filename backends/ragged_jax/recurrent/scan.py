"""Masked scans over the whole width, in JAX alone: for every dtype and device.

`run_direction` is the layer's definition, and `move_direction` its derivative along given tangents;
`pull_direction`, the derivative backwards, is that one's transpose. Nothing is sorted, flipped or
gathered, so that rows that lie on several devices stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ragged_jax.recurrent.sharding import keep_rows_apart, vary_alike

State = tuple[Array, Array]
Weights = dict[str, Array]
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KNOWN = 9  # operands that both derivatives begin with


@jax.jit
def run_layer(
    weights: list[Weights], x: Array, lengths: Array, state: State
) -> tuple[Array, State]:
    """Run one layer in all its directions."""
    return run_directions(run_direction, weights, x, lengths, state)


def run_directions(
    run: Callable[..., Sequence[Array]],
    weights: list[Weights],
    x: Array,
    lengths: Array,
    state: State,
) -> tuple[Array, State]:
    """Run every direction by `run(weights, x, lengths, h0, c0, reverse=...)`."""

    def run_all(
        weights: list[Weights], x: Array, lengths: Array, state: State
    ) -> tuple[Array, State]:
        found = [
            run(own, x, lengths, state[0][direction], state[1][direction], reverse=direction == 1)
            for direction, own in enumerate(weights)
        ]
        y, h, c = zip(*(each[:3] for each in found), strict=True)
        return jnp.concatenate(y, -1), (jnp.stack(h), jnp.stack(c))

    return keep_rows_apart(run_all)(*vary_alike((weights, x, lengths, state)))


def run_direction(
    weights: Weights,
    x: Array,
    lengths: Array,
    h0: Array,
    c0: Array,
    *,
    reverse: bool,
    keep: bool = False,
) -> tuple[Array, ...]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    With `keep`, its opened gates and its c of all steps follow, 0 at padding. A row that is read
    from its end waits through its padding first, so that nothing needs to be turned around.
    """
    valid, dtype = _valid(lengths, x.shape[1]), computed_in(x.dtype)
    weight = {name: value.astype(dtype) for name, value in weights.items()}
    x, given = jnp.where(valid, x, 0).astype(dtype), x.dtype  # NaN would poison the weights
    gates = x @ weight["weight_ih"].T  # hoisted: all steps in one product
    if "bias_ih" in weight:
        gates = gates + (weight["bias_ih"] + weight["bias_hh"])[None, None]

    def step(carry: State, inputs: tuple[Array, Array]) -> tuple[State, tuple[Array, ...]]:
        h, c = carry
        gates, valid = inputs
        i, f, g, o = jnp.split(gates + h @ weight["weight_hh"].T, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        new_c = f * c + i * g
        new_h = o * jnp.tanh(new_c)
        if "weight_hr" in weight:
            new_h = new_h @ weight["weight_hr"].T
        held = (jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))
        return held, (new_h, jnp.concatenate([i, f, g, o], -1), new_c)[: 3 if keep else 1]

    start = (h0.astype(dtype), c0.astype(dtype))
    (h, c), found = lax.scan(step, start, (_swap(gates), _swap(valid)), reverse=reverse)
    y, *kept = (jnp.where(valid, _swap(each), 0) for each in found)
    return y.astype(given), h.astype(given), c.astype(given), *kept


def move_direction(
    lengths: Array,
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    y: Array,
    gates: Array,
    cells: Array,
    *tangents: Array | None,
    reverse: bool,
) -> tuple[Array, ...]:
    """Return the tangents of y, h and c, linear in those of x, h0, c0, weights and biases.

    None stands for a tangent of zeros. `y`, `gates` and `cells` are what `run_direction` gave.
    """
    valid, given = _valid(lengths, x.shape[1]), x.dtype
    x, h0, c0, weight_ih, weight_hh, y = (
        each.astype(gates.dtype)
        for each in (jnp.where(valid, x, 0), h0, c0, weight_ih, weight_hh, y)
    )
    of_x, of_h, of_c, of_weight_ih, of_weight_hh, *of_biases = (
        None if each is None else each.astype(gates.dtype) for each in tangents
    )
    before = partial(_before, lengths, reverse=reverse)
    moved = [] if of_x is None else [jnp.where(valid, of_x, 0) @ weight_ih.T]
    moved += [] if of_weight_ih is None else [x @ of_weight_ih.T]
    moved += [] if of_weight_hh is None else [before(y, h0) @ of_weight_hh.T]
    moved += [bias[None, None] for bias in of_biases if bias is not None]
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    tanh_c = jnp.tanh(cells)
    slopes = (
        g * i * (1 - i),
        before(cells, c0) * f * (1 - f),
        i * (1 - g * g),
        tanh_c * o * (1 - o),
    )
    known = (jnp.concatenate(slopes, -1), o * (1 - tanh_c * tanh_c), f, valid)

    def step(carry: State, inputs: tuple[Array, ...]) -> tuple[State, Array]:
        of_h, of_c = carry
        moved, slopes, by_c, forget, valid = inputs
        i, f, g, o = jnp.split(slopes * (moved + of_h @ weight_hh.T), 4, axis=-1)
        new_c = forget * of_c + i + f + g
        new_h = o + by_c * new_c
        return (jnp.where(valid, new_h, of_h), jnp.where(valid, new_c, of_c)), new_h

    start = (
        jnp.zeros_like(h0) if of_h is None else of_h,
        jnp.zeros_like(c0) if of_c is None else of_c,
    )
    steps = (sum(moved, jnp.zeros_like(gates)), *known)
    (h, c), found = lax.scan(step, start, tuple(map(_swap, steps)), reverse=reverse)
    return tuple(each.astype(given) for each in (jnp.where(valid, _swap(found), 0), h, c))


def pull_direction(*known: Array, reverse: bool) -> tuple[Array, ...]:
    """Return the gradients of x, h0, c0, weights and bias, from those of y, h and c."""
    *known, of_y, of_h, of_c = known  # type: ignore[assignment]
    x, h0, c0, weight_ih, weight_hh = known[1:6]
    move = partial(move_direction, *known, reverse=reverse)
    inputs = (x, h0, c0, weight_ih, weight_hh, weight_hh[:, 0])
    pull = jax.linear_transpose(lambda *tangents: move(*tangents, None), *inputs)
    return pull((of_y, of_h, of_c))


def computed_in(dtype: Any) -> Any:
    """The dtype that a layer computes in: half precision in float32."""
    return jnp.dtype("float64" if dtype == "float64" else "float32")


def _valid(lengths: Array, width: int) -> Array:
    """Mark the steps `(batch, width, 1)` that rows have."""
    return (jnp.arange(width, dtype=lengths.dtype)[None] < lengths[:, None])[..., None]


def _before(lengths: Array, values: Array, initial: Array, *, reverse: bool) -> Array:
    """Give each step of a row what the step read before it has, or the initial state; else 0."""
    width = values.shape[1]
    initial = initial[:, None]
    if reverse:
        found = jnp.concatenate([values, initial], 1)[:, 1:]
        first = (lengths - 1)[:, None]
    else:
        found = jnp.concatenate([initial, values], 1)[:, :-1]
        first = jnp.zeros_like(lengths)[:, None]
    is_first = (jnp.arange(width, dtype=lengths.dtype)[None] == first)[..., None]
    found = jnp.where(is_first, initial, found)
    return jnp.where(_valid(lengths, width), found, 0)


def _swap(array: Array) -> Array:
    return jnp.swapaxes(array, 0, 1)


def _scan_forward(*inputs: Array, reverse: bool, keep: bool) -> tuple[Array, ...]:
    lengths, x, h0, c0, *values = inputs
    weights = dict(zip(WEIGHTS, values, strict=True))
    return run_direction(weights, x, lengths, h0, c0, reverse=reverse, keep=keep)


def _scan_tangent(*operands: Array, reverse: bool, moving: Sequence[bool]) -> tuple[Array, ...]:
    given = iter(operands[KNOWN:])
    tangents = [next(given) if moves else None for moves in moving]
    return move_direction(*operands[:KNOWN], *tangents, reverse=reverse)


def _scan_backward(*operands: Array, reverse: bool, wants_x: bool) -> tuple[Array, ...]:
    return pull_direction(*operands, reverse=reverse)[0 if wants_x else 1 :]


PASSES: dict[str, Callable[..., tuple[Array, ...]]] = {  # by the operator's primitives
    "lstm_forward": _scan_forward,
    "lstm_tangent": _scan_tangent,
    "lstm_backward": _scan_backward,
}
