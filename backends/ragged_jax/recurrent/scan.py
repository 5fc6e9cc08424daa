"""Masked scans over the whole width, in JAX alone: for every cell, dtype and device.

`run_direction` is the layer's definition, and `jvp_direction` its derivative along given tangents;
`vjp_direction`, the derivative backwards, is that one's transpose. Nothing is sorted, flipped or
gathered, so that rows that lie on several devices stay where they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ragged.recurrent.dispatch import LayerCall
from ragged_jax.recurrent import jagged
from ragged_jax.recurrent.cells import CELLS
from ragged_jax.recurrent.sharding import keep_rows_apart, vary_alike

State = tuple[Array, Array]  # h and c, the latter of no features where a cell has none
Weights = dict[str, Array]
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KNOWN = 9  # operands that both derivatives begin with


@partial(jax.jit, static_argnames=("call", "start"))
def run_layer(
    weights: list[Weights],
    x: Array,
    lengths: Array,
    resets: Array,
    state: State,
    *,
    call: LayerCall,
    start: str = "zeros",
) -> tuple[Array, State]:
    """Run one layer in all its directions; jagged rows are no longer than `call.width`."""

    def run(weights: Weights, x: Array, *others: Array, reverse: bool) -> tuple[Array, ...]:
        def run_padded(lengths: Array, resets: Array, x: Array, *state: Array) -> Any:
            return run_direction(
                weights, x, lengths, resets, *state, mode=call.mode, reverse=reverse, start=start
            )

        lengths, resets, *state = others
        operands = lengths, resets, x, *state
        return _in_padded(run_padded, operands, (0,), (0,), call.layout, call.width)

    return run_directions(run, weights, x, lengths, resets, state)


def run_directions(
    run: Callable[..., Sequence[Array]],
    weights: list[Weights],
    x: Array,
    lengths: Array,
    resets: Array,
    state: State,
) -> tuple[Array, State]:
    """Run every direction by `run(weights, x, lengths, resets, h0, c0, reverse=...)`."""

    def run_all(
        weights: list[Weights], x: Array, lengths: Array, resets: Array, state: State
    ) -> tuple[Array, State]:
        outputs = [
            run(each, x, lengths, resets, *(part[k] for part in state), reverse=k == 1)
            for k, each in enumerate(weights)
        ]
        y, h, c = zip(*(each[:3] for each in outputs), strict=True)
        return jnp.concatenate(y, -1), (jnp.stack(h), jnp.stack(c))

    return keep_rows_apart(run_all)(*vary_alike((weights, x, lengths, resets, state)))


def run_direction(
    weights: Weights,
    x: Array,
    lengths: Array,
    resets: Array,
    h0: Array,
    c0: Array,
    *,
    mode: str,
    reverse: bool,
    start: str = "zeros",
    keep: bool = False,
) -> tuple[Array, ...]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    `resets (batch, time)`, or of no steps where there are none, marks the steps before which the
    state starts anew, from zeros or the initial state as `start` says. With `keep`, what the cell
    keeps of all steps follows, 0 at padding. A row that is read from its end waits through its
    padding first, so that nothing needs to be turned around.
    """
    cell, valid, dtype = CELLS[mode], _valid(lengths, x.shape[1]), computed_in(x.dtype)
    weight = {name: value.astype(dtype) for name, value in weights.items()}
    x, dtype_outside = jnp.where(valid, x, 0).astype(dtype), x.dtype  # NaN would spread to weights
    bias_ih, bias_hh = weight.get("bias_ih"), weight.get("bias_hh")
    if cell.adds_products and bias_ih is not None and bias_hh is not None:
        bias_ih, bias_hh = bias_ih + bias_hh, None
    from_x = _add_bias(x @ weight["weight_ih"].T, bias_ih)  # hoisted: all steps in one product
    initial = (h0.astype(dtype), c0.astype(dtype))
    fresh = _fresh(lengths, resets, x.shape[1], reverse=reverse)

    def step(state: State, inputs: tuple[Any, ...]) -> tuple[State, tuple[Array, ...]]:
        from_x, valid, fresh = inputs
        h, c = _start_anew(fresh, state, initial, start)
        from_h = _add_bias(h @ weight["weight_hh"].T, bias_hh)
        new_h, new_c, kept = cell.fwd(from_x, from_h, h, c)
        if "weight_hr" in weight:
            new_h = new_h @ weight["weight_hr"].T
        held = (jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))
        return held, (new_h, kept)[: 2 if keep else 1]

    inputs = jax.tree.map(_swap, (from_x, valid, fresh))
    (h, c), steps = lax.scan(step, initial, inputs, reverse=reverse)
    y, *kept = (jnp.where(valid, _swap(each), 0) for each in steps)
    return *(each.astype(dtype_outside) for each in (y, h, c)), *kept


def jvp_direction(
    lengths: Array,
    resets: Array,
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    y: Array,
    kept: Array,
    *tangents: Array | None,
    mode: str,
    reverse: bool,
    start: str = "zeros",
) -> tuple[Array, ...]:
    """Return the tangents of y, h and c, linear in those of x, h0, c0, weights and biases.

    None stands for a tangent of zeros. `y` and `kept` are what `run_direction` gave.
    """
    cell, valid, dtype_outside = CELLS[mode], _valid(lengths, x.shape[1]), x.dtype
    x, h0, c0, weight_ih, weight_hh, y = (
        each.astype(kept.dtype)
        for each in (jnp.where(valid, x, 0), h0, c0, weight_ih, weight_hh, y)
    )
    of_x, of_h0, of_c0, of_weight_ih, of_weight_hh, of_bias_ih, of_bias_hh = (
        None if each is None else each.astype(kept.dtype) for each in tangents
    )
    fresh = _fresh(lengths, resets, x.shape[1], reverse=reverse)
    before = partial(_before, lengths, fresh, reverse=reverse, start=start)
    h_before = before(y, h0)
    c = kept[..., kept.shape[-1] - c0.shape[-1] :]  # the last that is kept, where there is one
    partials = cell.partials(kept, y, h_before, before(c, c0))

    # What moves the products with x and with h beside h itself is hoisted: all steps at once.
    from_x = [] if of_x is None else [jnp.where(valid, of_x, 0) @ weight_ih.T]
    from_x += [] if of_weight_ih is None else [x @ of_weight_ih.T]
    from_x += [] if of_bias_ih is None else [of_bias_ih[None, None]]
    from_h = [] if of_weight_hh is None else [h_before @ of_weight_hh.T]
    from_h += [] if of_bias_hh is None else [of_bias_hh[None, None]]
    zeros = jnp.zeros((*y.shape[:2], len(weight_ih)), kept.dtype)
    if cell.adds_products:
        from_x, from_h = [*from_x, *from_h], []
    hoisted = _total(from_x, zeros), _total(from_h, zeros) if from_h else None

    initial = (
        jnp.zeros_like(h0) if of_h0 is None else of_h0,
        jnp.zeros_like(c0) if of_c0 is None else of_c0,
    )

    def step(state: State, inputs: tuple[Any, ...]) -> tuple[State, Array]:
        (from_x, from_h), partials, valid, fresh = inputs
        h, c = _start_anew(fresh, state, initial, start)
        product = h @ weight_hh.T
        from_h = product if from_h is None else product + from_h
        new_h, new_c = cell.jvp(partials, from_x, from_h, h, c)
        return (jnp.where(valid, new_h, h), jnp.where(valid, new_c, c)), new_h

    inputs = jax.tree.map(_swap, (hoisted, partials, valid, fresh))
    (h, c), of_y = lax.scan(step, initial, inputs, reverse=reverse)
    return tuple(each.astype(dtype_outside) for each in (jnp.where(valid, _swap(of_y), 0), h, c))


def vjp_direction(
    *operands: Array, mode: str, reverse: bool, start: str = "zeros"
) -> tuple[Array, ...]:
    """Return the gradients of x, h0, c0, weights and biases, from those of y, h and c."""
    known, gradients = operands[:KNOWN], operands[KNOWN:]
    inputs = known[2:7]
    bias = inputs[-1][:, 0]
    jvp = partial(jvp_direction, *known, mode=mode, reverse=reverse, start=start)
    return jax.linear_transpose(jvp, *inputs, bias, bias)(gradients)


def computed_in(dtype: Any) -> Any:
    """The dtype that a layer computes in: half precision in float32."""
    return jnp.dtype("float64" if dtype == "float64" else "float32")


def _add_bias(products: Array, bias: Array | None) -> Array:
    return products if bias is None else products + lax.expand_dims(bias, range(products.ndim - 1))


def _total(terms: Sequence[Array], zeros: Array) -> Array:
    return reduce(operator.add, terms, zeros)


def _valid(lengths: Array, width: int) -> Array:
    """Mark the steps `(batch, width, 1)` that rows have."""
    return (jnp.arange(width, dtype=lengths.dtype)[None] < lengths[:, None])[..., None]


def _fresh(lengths: Array, resets: Array, width: int, *, reverse: bool) -> Array | None:
    """Mark the steps `(batch, width, 1)` that are read from a state that starts anew; None = none.

    A row that is read from its end comes to a reset after the step that it stands before.
    """
    if resets.shape[1] != width:
        return None
    fresh = resets[..., None] & _valid(lengths, width)
    if not reverse:
        return fresh
    return jnp.concatenate([fresh[:, 1:], jnp.zeros_like(fresh[:, :1])], 1)


def _start_anew(fresh: Array | None, state: State, initial: State, start: str) -> State:
    if fresh is None:
        return state
    h, c = (
        jnp.where(fresh, each if start == "initial" else 0, old)
        for each, old in zip(initial, state, strict=True)
    )
    return h, c


def _before(
    lengths: Array,
    fresh: Array | None,
    values: Array,
    initial: Array,
    *,
    reverse: bool,
    start: str,
) -> Array:
    """Give each step of a row the state that it was read from; 0 at padding."""
    width = values.shape[1]
    initial = initial[:, None]
    if reverse:
        shifted = jnp.concatenate([values, initial], 1)[:, 1:]
        first = (lengths - 1)[:, None]
    else:
        shifted = jnp.concatenate([initial, values], 1)[:, :-1]
        first = jnp.zeros_like(lengths)[:, None]
    is_first = (jnp.arange(width, dtype=lengths.dtype)[None] == first)[..., None]
    before = jnp.where(is_first, initial, shifted)
    if fresh is not None:
        before = jnp.where(fresh, initial if start == "initial" else 0, before)
    return jnp.where(_valid(lengths, width), before, 0)


def _swap(array: Array) -> Array:
    return jnp.swapaxes(array, 0, 1)


def _forward(*operands: Array, keep: bool, **options: Any) -> tuple[Array, ...]:
    def run(lengths: Array, resets: Array, x: Array, h0: Array, c0: Array, *values: Array) -> Any:
        weights = dict(zip(WEIGHTS, values, strict=True))
        return run_direction(weights, x, lengths, resets, h0, c0, keep=keep, **told)

    told, layout = _take_layout(options)
    return _in_padded(run, operands, (0,), (0, 3) if keep else (0,), *layout)


def _tangent(*operands: Array, moving: Sequence[bool], **options: Any) -> tuple[Array, ...]:
    def run(*operands: Array) -> tuple[Array, ...]:
        remaining = iter(operands[KNOWN:])
        tangents = [next(remaining) if moves else None for moves in moving]
        return jvp_direction(*operands[:KNOWN], *tangents, **told)

    told, layout = _take_layout(options)
    return _in_padded(run, operands, (0, 5, 6, 7) if moving[0] else (0, 5, 6), (0,), *layout)


def _backward(*operands: Array, wants_x: bool, **options: Any) -> tuple[Array, ...]:
    def run(*operands: Array) -> tuple[Array, ...]:
        return vjp_direction(*operands, **told)[0 if wants_x else 1 :]

    told, layout = _take_layout(options)
    return _in_padded(run, operands, (0, 5, 6, 7), (0,) if wants_x else (), *layout)


def _take_layout(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, int]]:
    told = dict(options)
    return told, (told.pop("layout"), told.pop("width"))


def _in_padded(
    run: Callable[..., tuple[Array, ...]],
    operands: Sequence[Array],
    taken: Sequence[int],
    given: Sequence[int],
    layout: str,
    width: int,
) -> tuple[Array, ...]:
    """Run a pass over padded rows on rows of any layout.

    Args:
        run: the pass.
        operands: lengths, resets and all others.
        taken: which of the others hold a value of each token.
        given: which results do.
        layout: "padded" or "jagged".
        width: of the padded rows.
    """
    lengths, resets, *others = operands
    if layout == "padded":
        return run(*operands)
    places, capacity = jagged.places(lengths, width), others[0].shape[0]
    for k in taken:
        others[k] = jagged.to_padded(others[k], places)
    if resets.shape[-1]:
        resets = jagged.to_padded(resets, places)
    results = list(run(lengths, resets, *others))
    for k in given:
        results[k] = jagged.from_padded(results[k], lengths, places, capacity)
    return tuple(results)


PASSES: dict[str, Callable[..., tuple[Array, ...]]] = {  # by the operator's primitives
    "recurrent_forward": _forward,
    "recurrent_tangent": _tangent,
    "recurrent_backward": _backward,
}
