"""The layer as an operator of JAX's programs: one rule for each of JAX's transformations.

One direction of a layer is a primitive, and so are its two derivatives. Which implementation runs
them is chosen from the list of `dispatch` when a program is lowered, by where it will run: our
kernels in a program for one CPU or GPU, where there are any; else masked scans, which XLA compiles
for every device, partitions over many, and keeps in exported files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad

from ragged.implementations import choose
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import LayerCall
from ragged_jax.primitives import (
    Mapped,
    abstract_results,
    bind_backward,
    bind_tangent,
    define_operator,
    inner_shapes,
    sum_gradients,
)
from ragged_jax.recurrent import scan
from ragged_jax.recurrent.dispatch import IMPLEMENTATIONS
from ragged_jax.recurrent.scan import KNOWN, WEIGHTS, State, Weights

# Their operands. `call` says of which cell they are. `kept` is what a forward pass keeps for the
# others of the same implementation: it is for that one to say what it holds, and no derivative
# depends on it.
#     forward   lengths, resets, x, h0, c0, weights and biases
#     tangent   all of these, y, kept; the tangents that are not 0
#     backward  all of these, y, kept; the gradients of y, h and c
# Of a cell that keeps what h is made of, y has no features there, and need not stay in memory.
forward_p = Primitive("recurrent_forward")
tangent_p = Primitive("recurrent_tangent")
backward_p = Primitive("recurrent_backward")
INPUTS = 9  # operands that all begin with
FIXED = 2  # of them: lengths and resets have no derivatives


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
    """Run one layer in all its directions; `call` says all that is known before it is lowered."""
    run = partial(run_direction, call=call, start=start)
    return scan.run_directions(run, weights, x, lengths, resets, state)


def run_direction(
    weights: Weights,
    x: Array,
    lengths: Array,
    resets: Array,
    h0: Array,
    c0: Array,
    *,
    reverse: bool,
    call: LayerCall,
    start: str,
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    zeros = jnp.zeros_like(weights["weight_ih"][:, 0])
    inputs = (lengths, resets, x, h0, c0, *(weights.get(name, zeros) for name in WEIGHTS))
    options: Any = {"reverse": reverse, "call": call, "start": start}
    y, h, c = forward_p.bind(*inputs, mapped=(), keep=False, **options)
    return y, h, c


def _choose(
    primitive: Primitive,
    shapes: Sequence[Sequence[int]],
    device: str,
    surrounding: str | None,
    *,
    call: LayerCall,
    **options: Any,
) -> Callable[..., Any]:
    """Give the pass that runs a primitive where it is lowered for."""
    where = _with_rows(call, shapes)._replace(device=device, surrounding=surrounding)
    passes = choose(IMPLEMENTATIONS, where).run
    if surrounding is not None and "cpu" in device:
        # The forward pass may be another program's, on one CPU, whose kernels keep what they like.
        passes = scan.PASSES_OF_INPUTS
    return partial(passes[primitive.name], **_told(call), **options)


def _plain(primitive: Primitive, *, call: LayerCall, **options: Any) -> Callable[..., Any]:
    return partial(scan.PASSES_OF_INPUTS[primitive.name], **_told(call), **options)


def _told(call: LayerCall) -> dict[str, Any]:
    """What a pass is told of a call."""
    return {"mode": call.mode, "layout": call.layout, "width": call.width}


def _with_rows(call: LayerCall, shapes: Sequence[Sequence[int]]) -> LayerCall:
    """Add to a call how many rows there are, and how wide they are."""
    (rows,), _, x, *_ = shapes
    return call._replace(rows=rows, width=x[1] if call.layout == "padded" else call.width)


def _abstract_forward(
    *inputs: Any, call: LayerCall, mapped: Mapped, keep: bool, **options: Any
) -> list[Any]:
    x, h0, c0 = inner_shapes(inputs, mapped)[FIXED : FIXED + 3]
    outputs = _results(inputs, mapped, [(*x[:-1], h0[1]), h0, c0], inputs[FIXED].dtype)
    if not keep:
        return outputs
    kept = (*x[:-1], CELLS[call.mode].kept * h0[1])
    return outputs + _results(inputs, mapped, [kept], scan.kept_in(inputs[FIXED].dtype))


def _abstract_tangent(*operands: Any, mapped: Mapped, **options: Any) -> list[Any]:
    x, h0, c0 = inner_shapes(operands, mapped)[FIXED : FIXED + 3]
    return _results(operands, mapped, [(*x[:-1], h0[1]), h0, c0], operands[FIXED].dtype)


def _abstract_backward(*operands: Any, mapped: Mapped, wants_x: bool, **options: Any) -> list[Any]:
    inputs = inner_shapes(operands, mapped)[FIXED + (not wants_x) : INPUTS]
    return _results(operands, mapped, inputs, operands[FIXED].dtype)


def _results(
    operands: Sequence[Any], mapped: Mapped, shapes: Sequence[tuple[int, ...]], dtype: Any
) -> list[Any]:
    return abstract_results(operands, mapped, shapes, dtype, like=FIXED)


def _jvp_forward(
    inputs: Sequence[Array], tangents: Sequence[Any], *, keep: bool, **options: Any
) -> tuple[Any, Any]:
    """Differentiate the layer: what moves by the operator of tangents, which has a transpose."""
    y, h, c, kept = forward_p.bind(*inputs, keep=True, **options)
    known = (*inputs, y[..., :0] if CELLS[options["call"].mode].keeps_h else y, kept)
    moved = bind_tangent(tangent_p, known, tangents, inputs=INPUTS, fixed=FIXED, **options)
    if not keep:
        return (y, h, c), moved
    return (y, h, c, kept), (*moved, ad.Zero(jax.typeof(kept).to_tangent_aval()))


def _transpose(
    gradients: Sequence[Any], *operands: Any, mapped: Mapped, moving: Sequence[bool], **options: Any
) -> list[Array | None]:
    """Turn the gradients of y, h and c into those of the tangents that the operator took."""
    of_inputs = bind_backward(
        backward_p, gradients, operands, mapped, known=KNOWN, wants_x=moving[0], **options
    )
    if not moving[0]:
        of_inputs = [None, *of_inputs]
    return sum_gradients(of_inputs, operands, mapped, moving, known=KNOWN)


define_operator(
    {forward_p: _abstract_forward, tangent_p: _abstract_tangent, backward_p: _abstract_backward},
    _choose,
    _plain,
    jvp=_jvp_forward,
    transpose=_transpose,
    fixed=FIXED,
    static=("reverse", "start", "call", "keep", "moving", "wants_x"),
)
