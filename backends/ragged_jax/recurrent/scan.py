"""Masked scans over the whole width, in JAX alone: for every cell, dtype and device.

`run_direction` is the layer's definition, and `jvp_direction` its derivative along given tangents;
`vjp_direction`, the backward derivative, is its transpose. Nothing is sorted, flipped or gathered,
so that rows on several devices do not move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ragged_jax.precision import float32_products
from ragged_jax.recurrent import jagged
from ragged_jax.recurrent.cells import CELLS
from ragged_jax.sharding import partition_rows, vary_alike

State = tuple[Array, Array]  # h and c, the latter of no features where a cell has none
Weights = dict[str, Array]
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KNOWN = 11  # operands that both derivatives begin with; the last is what is kept


@partial(jax.jit, static_argnames=("mode", "layout", "width", "start"))
@float32_products
def run_layer(
    weights: list[Weights],
    x: Array,
    lengths: Array,
    resets: Array,
    state: State,
    *,
    mode: str,
    layout: str,
    width: int,
    start: str = "zeros",
) -> tuple[Array, State]:
    """Run one layer in all its directions; jagged rows are no longer than `width`."""

    def run(weights: Weights, x: Array, *others: Array, reverse: bool) -> tuple[Array, ...]:
        def run_padded(lengths: Array, resets: Array, x: Array, *state: Array) -> Any:
            return run_direction(
                weights, x, lengths, resets, *state, mode=mode, reverse=reverse, start=start
            )

        lengths, resets, *state = others
        operands = lengths, resets, x, *state
        return _in_padded(run_padded, operands, (0,), (0,), layout, width)

    return run_directions(run, weights, x, lengths, resets, state)


@float32_products
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
            run(weight, x, lengths, resets, *(part[k] for part in state), reverse=k == 1)
            for k, weight in enumerate(weights)
        ]
        y, h, c = zip(*(output[:3] for output in outputs), strict=True)
        return jnp.concatenate(y, -1), (jnp.stack(h), jnp.stack(c))

    return partition_rows(run_all)(*vary_alike((weights, x, lengths, resets, state)))


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

    `resets (batch, time)`, of width 0 where there are none, marks the steps before which the state
    is reset, to zeros or the initial state, as `start` names. With `keep`, the values that the cell
    keeps of all steps follow, 0 at padding. A reversed row keeps its state through its padding
    first, so that nothing needs to be flipped.
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
        new_state = (jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))
        return new_state, (new_h, kept)[: 2 if keep else 1]

    inputs = jax.tree.map(_swap, (from_x, valid, fresh))
    (h, c), steps = lax.scan(step, initial, inputs, reverse=reverse)
    y, *kept = (jnp.where(valid, _swap(each), 0) for each in steps)
    return *(array.astype(dtype_outside) for array in (y, h, c)), *kept


def jvp_direction(
    lengths: Array,
    resets: Array,
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
    y: Array,
    kept: Array,
    *tangents: Array | None,
    mode: str,
    reverse: bool,
    start: str = "zeros",
) -> tuple[Array, ...]:
    """Return the tangents of y, h and c, linear in those of x, h0, c0, weights and biases.

    None stands for a tangent of zeros. `y` and `kept` are results of `run_direction`; y may have no
    features where the cell keeps what it is made of.
    """
    cell, valid, dtype_outside = CELLS[mode], _valid(lengths, x.shape[1]), x.dtype
    y = y_of(mode, y, kept)
    x, h0, c0, weight_ih, weight_hh, y = (
        array.astype(kept.dtype)
        for array in (jnp.where(valid, x, 0), h0, c0, weight_ih, weight_hh, y)
    )
    of_x, of_h0, of_c0, of_weight_ih, of_weight_hh, of_bias_ih, of_bias_hh = (
        None if array is None else array.astype(kept.dtype) for array in tangents
    )
    fresh = _fresh(lengths, resets, x.shape[1], reverse=reverse)
    before = partial(_before, lengths, fresh, reverse=reverse, start=start)
    h_before = before(y, h0)
    c = kept[..., kept.shape[-1] - c0.shape[-1] :]  # c is kept last, where there is one
    partials = cell.partials(kept, y, h_before, before(c, c0))

    # The tangents that do not depend on the one of h are hoisted: all steps at once.
    from_x = [] if of_x is None else [jnp.where(valid, of_x, 0) @ weight_ih.T]
    from_x += [] if of_weight_ih is None else [x @ of_weight_ih.T]
    from_x += [] if of_bias_ih is None else [of_bias_ih[None, None]]
    from_h = [] if of_weight_hh is None else [h_before @ of_weight_hh.T]
    from_h += [] if of_bias_hh is None else [of_bias_hh[None, None]]
    zeros = jnp.zeros((*y.shape[:2], len(weight_ih)), kept.dtype)
    if cell.adds_products:
        from_x, from_h = [*from_x, *from_h], []
    hoisted = sum(from_x, zeros), sum(from_h, zeros) if from_h else None

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
    return tuple(array.astype(dtype_outside) for array in (jnp.where(valid, _swap(of_y), 0), h, c))


def vjp_direction(
    *operands: Array, mode: str, reverse: bool, start: str = "zeros"
) -> tuple[Array, ...]:
    """Return the gradients of x, h0, c0, weights and biases, from those of y, h and c."""
    known, gradients = operands[:KNOWN], operands[KNOWN:]
    jvp = partial(jvp_direction, *known, mode=mode, reverse=reverse, start=start)
    return jax.linear_transpose(jvp, *known[2:9])(gradients)


def y_of(mode: str, y: Array, kept: Array) -> Array:
    """Return y as the forward pass gave it, if need be from what it has kept."""
    return y if y.shape[-1] else CELLS[mode].h(kept)


def computed_in(dtype: Any) -> Any:
    """The dtype that a layer computes in: half precision in float32."""
    return jnp.dtype("float64" if dtype == "float64" else "float32")


def kept_in(dtype: Any) -> Any:
    """The dtype of the bits that a forward pass keeps.

    They are of numbers, but kernels leave a part unwritten, where `jax.debug_nans` may find NaN.
    """
    return jnp.dtype(f"uint{8 * computed_in(dtype).itemsize}")


def _add_bias(products: Array, bias: Array | None) -> Array:
    return products if bias is None else products + lax.expand_dims(bias, range(products.ndim - 1))


def _valid(lengths: Array, width: int) -> Array:
    """Mark the valid steps, `(batch, width, 1)`."""
    return (jnp.arange(width, dtype=lengths.dtype)[None] < lengths[:, None])[..., None]


def _fresh(lengths: Array, resets: Array, width: int, *, reverse: bool) -> Array | None:
    """Mark the steps `(batch, width, 1)` that are read from a reset state; None = none.

    A reversed row reaches a reset after the step that the reset precedes.
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
        jnp.where(fresh, fresh_state if start == "initial" else 0, old)
        for fresh_state, old in zip(initial, state, strict=True)
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
    """Return the state before each step of a row; 0 at padding."""
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


@float32_products
def _forward(*operands: Array, keep: bool, **options: Any) -> tuple[Array, ...]:
    def run(lengths: Array, resets: Array, x: Array, h0: Array, c0: Array, *values: Array) -> Any:
        weights = dict(zip(WEIGHTS, values, strict=True))
        return run_direction(weights, x, lengths, resets, h0, c0, keep=keep, **pass_options)

    pass_options, layout = _take_layout(options)
    return _in_padded(run, operands, (0,), (0, 3) if keep else (0,), *layout)


@float32_products
def _tangent(*operands: Array, moving: Sequence[bool], **options: Any) -> tuple[Array, ...]:
    def run(*operands: Array) -> tuple[Array, ...]:
        remaining = iter(operands[KNOWN:])
        tangents = [next(remaining) if moves else None for moves in moving]
        return jvp_direction(*operands[:KNOWN], *tangents, **pass_options)

    pass_options, layout = _take_layout(options)
    return _in_padded(run, operands, (0, 7, 8, 9) if moving[0] else (0, 7, 8), (0,), *layout)


@float32_products
def _backward(*operands: Array, wants_x: bool, **options: Any) -> tuple[Array, ...]:
    def run(*operands: Array) -> tuple[Array, ...]:
        return vjp_direction(*operands, **pass_options)[0 if wants_x else 1 :]

    pass_options, layout = _take_layout(options)
    return _in_padded(run, operands, (0, 7, 8, 9), (0,) if wants_x else (), *layout)


def _from_inputs(derivative: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Let a derivative read the layer's inputs alone: it runs forward again for y and `kept`."""

    def run(lengths: Array, resets: Array, *operands: Array, **options: Any) -> tuple[Array, ...]:
        inputs, others = operands[:7], operands[9:]
        told = {key: options[key] for key in options.keys() - {"moving", "wants_x"}}
        y, _, _, kept = _forward(lengths, resets, *inputs, keep=True, **told)
        return derivative(lengths, resets, *inputs, y, kept, *others, **options)

    return run


def _to_bits(forward: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Let a forward pass keep bits."""

    def run(*operands: Array, **options: Any) -> tuple[Array, ...]:
        *outputs, last = forward(*operands, **options)
        if options["keep"]:
            last = lax.bitcast_convert_type(last, kept_in(last.dtype))
        return *outputs, last

    return run


def _from_bits(derivative: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Let a derivative read what `_to_bits` has kept."""

    def run(*operands: Array, **options: Any) -> tuple[Array, ...]:
        x, bits = operands[2], operands[KNOWN - 1]
        kept = lax.bitcast_convert_type(bits, computed_in(x.dtype))
        return derivative(*operands[: KNOWN - 1], kept, *operands[KNOWN:], **options)

    return run


def _take_layout(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, int]]:
    pass_options = dict(options)
    return pass_options, (pass_options.pop("layout"), pass_options.pop("width"))


def _in_padded(
    run: Callable[..., tuple[Array, ...]],
    operands: Sequence[Array],
    token_operands: Sequence[int],
    token_results: Sequence[int],
    layout: str,
    width: int,
) -> tuple[Array, ...]:
    """Run a pass over padded rows on rows of any layout.

    Args:
        run: the pass.
        operands: lengths, resets and all others.
        token_operands: which of the others have one value a token.
        token_results: which results have.
        layout: "padded" or "jagged".
        width: of the padded rows.
    """
    lengths, resets, *others = operands
    if layout == "padded":
        return run(*operands)
    positions, capacity = jagged.positions(lengths, width), others[0].shape[0]
    for k in token_operands:
        others[k] = jagged.to_padded(others[k], positions)
    resets = jagged.to_padded(resets, positions) if resets.shape[-1] else resets[None]
    results = list(run(lengths, resets, *others))
    for k in token_results:
        results[k] = jagged.from_padded(results[k], lengths, positions, capacity)
    return tuple(results)


PASSES: dict[str, Callable[..., tuple[Array, ...]]] = {  # by the operator's primitives
    "recurrent_forward": _to_bits(_forward),
    "recurrent_tangent": _from_bits(_tangent),
    "recurrent_backward": _from_bits(_backward),
}
# Behind another's forward pass, whose `kept` is its own, and for derivatives of a higher order.
PASSES_OF_INPUTS = {
    "recurrent_forward": _to_bits(_forward),
    "recurrent_tangent": _from_inputs(_tangent),
    "recurrent_backward": _from_inputs(_backward),
}
