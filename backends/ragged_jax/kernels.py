"""The LSTM's own kernels on a CPU: one custom call a layer and direction, forward and backward.

They read the lengths as the program runs, so that one program serves every batch of a shape. The
reverse derivative is a kernel too; all further ones are those of the masked scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ragged import kernels
from ragged.lengths import Lengths
from ragged_jax.scans import run_direction

State = tuple[Array, Array]
Weights = dict[str, Array]
SOURCE = Path(__file__).with_suffix(".cpp")


def has_kernels(dtype: Any) -> bool:
    """Whether there are kernels for a dtype."""
    return _load(_computed_in(dtype)) is not None


@jax.jit
def run_layer(
    weights: list[Weights], x: Array, lengths: Array, state: State
) -> tuple[Array, State]:
    """Run one layer in all its directions; half precision is computed in float32."""
    dtype, counts = _computed_in(x.dtype), lengths.astype(jnp.int32)
    ys, hs, cs = [], [], []
    for direction, own in enumerate(weights):
        zeros = jnp.zeros(own["weight_ih"].shape[0])
        inputs = (
            *(x, state[0][direction], state[1][direction], own["weight_ih"], own["weight_hh"]),
            *(own.get("bias_ih", zeros), own.get("bias_hh", zeros)),
        )
        y, h, c = _layer(direction == 1, counts, *(array.astype(dtype) for array in inputs))
        ys.append(y.astype(x.dtype))
        hs.append(h.astype(x.dtype))
        cs.append(c.astype(x.dtype))
    return jnp.concatenate(ys, -1), (jnp.stack(hs), jnp.stack(cs))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(reverse: bool, lengths: Array, *inputs: Array) -> tuple[Array, ...]:
    """Return y, h, c of x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh."""
    return _forward(reverse, False, lengths, *inputs)[:3]


def _keep(reverse: bool, lengths: Array, *inputs: Array) -> tuple[tuple[Array, ...], Any]:
    y, h, c, gates, cells = _forward(reverse, True, lengths, *inputs)
    return (y, h, c), (lengths, inputs, (y, gates, cells))


def _differentiate(reverse: bool, kept: Any, gradients: Any) -> tuple[Array | None, ...]:
    return None, *_backward(reverse, *kept, gradients)


_layer.defvjp(_keep, _differentiate)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _forward(reverse: bool, keep: bool, lengths: Array, *inputs: Array) -> tuple[Array, ...]:
    """Return y, h, c, gates and cells; the last two have room for full rows, touched as needed."""
    x, h0, c0, weight_ih = inputs[:4]
    batch, width, hidden = *x.shape[:2], h0.shape[1]
    tokens = batch * width if keep else 0
    shapes = (batch, width, hidden), h0.shape, c0.shape, (tokens, 4 * hidden), (tokens, hidden)
    return _call("lstm_forward", shapes, (*inputs, lengths), weight_ih.dtype, reverse)


@_forward.defjvp
def _move_forward(reverse: bool, keep: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    lengths, *inputs = primals
    found = _forward(reverse, keep, *primals)
    _, moved = jax.jvp(partial(_scan, reverse, lengths), inputs, list(tangents[1:]))
    # `_backward` does not look at how what is kept moves: its own derivative starts from inputs.
    return found, (*moved, jnp.zeros_like(found[3]), jnp.zeros_like(found[4]))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(
    reverse: bool, lengths: Array, inputs: Any, kept: Any, gradients: Any
) -> tuple[Array, ...]:
    """Return the gradients of all inputs, from those of y, h and c."""
    shapes = [array.shape for array in inputs[:6]]
    arrays = (*inputs[:5], *kept, *gradients, lengths)
    found = _call("lstm_backward", shapes, arrays, inputs[0].dtype, reverse)
    return (*found, found[-1])  # either bias


@_backward.defjvp
def _move_backward(reverse: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    lengths, inputs, _, gradients = primals

    def pull(inputs: Any, gradients: Any) -> tuple[Array, ...]:
        return jax.vjp(partial(_scan, reverse, lengths), *inputs)[1](gradients)

    _, moved = jax.jvp(pull, (inputs, gradients), (tangents[1], tangents[3]))
    return _backward(reverse, *primals), moved


def _scan(reverse: bool, lengths: Array, *inputs: Array) -> tuple[Array, ...]:
    """Do the same as `_forward` with what JAX can differentiate."""
    x, h0, c0, *values = inputs
    weights = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values, strict=True))
    counts = Lengths.unchecked(lengths, x.shape[1])
    return run_direction(weights, x, counts, h0, c0, reverse=reverse)


def _call(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    arrays: tuple[Array, ...],
    dtype: Any,
    reverse: bool,
) -> tuple[Array, ...]:
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    target = f"{name}_{_load(jnp.dtype(dtype))}"
    return tuple(
        jax.ffi.ffi_call(target, results, vmap_method="sequential")(*arrays, reverse=reverse)
    )


def _computed_in(dtype: Any) -> Any:
    return jnp.dtype("float64" if dtype == "float64" else "float32")


@cache
def _load(dtype: Any) -> str | None:
    """Make a dtype's kernels known to XLA; their library's name, or None if there are none.

    XLA knows them by that name too, for a program that it has kept may call another version's.
    """
    library = kernels.load(SOURCE, str(dtype), include=(jax.ffi.include_dir(),))
    if library is None:
        return None
    version = Path(library._name).stem
    for name in kernels.FUNCTIONS:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"{name}_{version}", handler, platform="cpu")
    return version
