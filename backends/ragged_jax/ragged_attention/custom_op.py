"""Attention as an operator of JAX's programs: see `primitives`.

Which implementation runs it is chosen from the list of `dispatch` when a program is lowered: our
kernels in a program for one CPU, where there are any; else plain operations, which XLA compiles for
every device, partitions over many, and keeps in exported files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jax import Array
from jax.extend.core import Primitive

from ragged.attend.call import AttentionCall
from ragged.implementations import choose
from ragged_jax.primitives import (
    Mapped,
    abstract_results,
    bind_backward,
    bind_tangent,
    define_operator,
    inner_shapes,
    jvp_by_plain,
    sum_gradients,
)
from ragged_jax.ragged_attention import plain
from ragged_jax.ragged_attention.dispatch import IMPLEMENTATIONS

# Their operands:
#     forward   lengths of q and of k, words of the seed; q, k, v
#     tangent   the same, and lse of the forward pass; the tangents that are not 0
#     backward  the same, and lse; the gradient of the result
forward_p = Primitive("attention_forward")
tangent_p = Primitive("attention_tangent")
backward_p = Primitive("attention_backward")
FIXED = 3  # operands without derivatives
INPUTS = 6  # operands that all begin with
KNOWN = 7  # those of tangents that are no tangents


def attention_op(*operands: Array, call: AttentionCall) -> Array:
    """Return the result, of the forward pass's operands."""
    (out,) = forward_p.bind(*operands, mapped=(), keep=False, call=call)
    return out


def _choose(
    primitive: Primitive,
    shapes: Sequence[Sequence[int]],
    device: str,
    surrounding: str | None,
    *,
    call: AttentionCall,
    **told: Any,
) -> Callable[..., Any]:
    """Give the pass that runs a primitive where it is lowered for."""
    where = call._replace(device=device, surrounding=surrounding)
    passes = choose(IMPLEMENTATIONS, where).run
    return partial(passes[primitive.name], options=call.options, **told)


def _plain(primitive: Primitive, *, call: AttentionCall, **told: Any) -> Callable[..., Any]:
    return partial(plain.PASSES[primitive.name], options=call.options, **told)


def _abstract_forward(*operands: Any, mapped: Mapped, keep: bool, **options: Any) -> list[Any]:
    q, k, v = inner_shapes(operands, mapped)[FIXED:INPUTS]
    heads = q[-2:-1] if len(v) == len(k) else ()
    shapes = [(*q[:-2], *heads, v[-1]), q[:-1]][: 2 if keep else 1]
    return abstract_results(operands, mapped, shapes, operands[FIXED].dtype, like=FIXED)


def _abstract_tangent(*operands: Any, mapped: Mapped, **options: Any) -> list[Any]:
    return _abstract_forward(
        *operands[:INPUTS], mapped=tuple(level[:INPUTS] for level in mapped), keep=False
    )


def _abstract_backward(*operands: Any, mapped: Mapped, **options: Any) -> list[Any]:
    shapes = inner_shapes(operands, mapped)[FIXED:INPUTS]
    return abstract_results(operands, mapped, shapes, operands[FIXED].dtype, like=FIXED)


def _jvp_forward(
    operands: Sequence[Array], tangents: Sequence[Any], *, keep: bool, **options: Any
) -> tuple[Any, Any]:
    """Differentiate: what moves by the operator of tangents, which has a transpose."""
    if keep:
        return jvp_by_plain(forward_p, _plain, FIXED, operands, tangents, keep=True, **options)
    out, lse = forward_p.bind(*operands, keep=True, **options)
    known = (*operands, lse)
    moved = bind_tangent(tangent_p, known, tangents, inputs=INPUTS, fixed=FIXED, **options)
    return (out,), moved


def _transpose(
    gradients: Sequence[Any], *operands: Any, mapped: Mapped, moving: Sequence[bool], **options: Any
) -> list[Array | None]:
    """Turn the gradient of the result into those of the tangents that the operator took."""
    of_inputs = bind_backward(backward_p, gradients, operands, mapped, known=KNOWN, **options)
    return sum_gradients(of_inputs, operands, mapped, moving, known=KNOWN)


define_operator(
    {forward_p: _abstract_forward, tangent_p: _abstract_tangent, backward_p: _abstract_backward},
    _choose,
    _plain,
    jvp=_jvp_forward,
    transpose=_transpose,
    fixed=FIXED,
    static=("call", "keep", "moving"),
)
