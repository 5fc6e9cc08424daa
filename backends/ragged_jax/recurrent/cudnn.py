"""CuDNN's LSTM on a GPU, by `jax.experimental.rnn`: full batches of steps, lengths on the device.

It takes no row of length 0 and hands out no gates. Such a row computes one step of zeros here,
which nobody gets, and a backward pass runs forward again. No GPU has run it: the tests play cuDNN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import NO_PROJECTION, LayerCall, policy_reason
from ragged_jax.arrays import find_gpu
from ragged_jax.precision import allows_tf32
from ragged_jax.recurrent import scan

CUDNN = "cudnn"
Pass = Callable[..., tuple[Array, ...]]


def cudnn_reason(call: LayerCall) -> str | None:
    """Say why JAX's binding of cuDNN does not take a call, whatever a trial says."""
    if call.device != "cuda":
        return "it runs on a GPU alone"
    if call.surrounding is not None:
        return call.surrounding
    if call.mode != "LSTM" or call.dtype != "float32":
        return "JAX binds cuDNN's LSTM in float32 alone"
    if call.proj_size:
        return NO_PROJECTION
    if call.layout != "padded":
        return "it takes padded rows alone"
    if not (call.rows and call.width):
        return "there is no step, which cuDNN refuses"
    if (reason := policy_reason(call, ("auto",))) is not None:
        return reason
    return _binding_error()


@cache
def find_device() -> str | None:
    """Return the name of this process's first GPU; None without one."""
    device = find_gpu()
    return None if device is None else str(device.device_kind)


@cache
def _binding_error() -> str | None:
    """Say why cuDNN cannot be called in this process; None = it can."""
    if find_device() is None:
        return "this process has no GPU"
    shapes = (1, 1, 1), (1, 1), (1, 1), (4, 1), (4, 1), (4,), (4,)
    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    try:
        jax.eval_shape(_lstm, jax.ShapeDtypeStruct((1,), jnp.int32), *arrays)
    except Exception as error:  # whatever this version's binding raises
        return f"JAX's binding of cuDNN does not work here: {error}"
    return None


def run_direction(
    lengths: Array, resets: Array, *inputs: Array, keep: bool, **options: Any
) -> tuple[Array, ...]:
    """Return what `scan.run_direction` does; what it keeps nothing reads.

    Its bits are those of NaN, which whoever read it would give.
    """
    outputs = sequential_vmap(partial(_run, reverse=options["reverse"]))(lengths, *inputs)
    if not keep:
        return outputs
    kept_features = CELLS[options["mode"]].kept * inputs[1].shape[1]
    shape, dtype = (*inputs[0].shape[:2], kept_features), scan.kept_in(inputs[0].dtype)
    return *outputs, jnp.full(shape, jnp.iinfo(dtype).max, dtype)


def vjp_direction(
    lengths: Array, resets: Array, *others: Array, wants_x: bool, **options: Any
) -> tuple[Array, ...]:
    """Return what `scan.vjp_direction` does."""
    run = sequential_vmap(partial(_differentiate, reverse=options["reverse"]))
    gradients: tuple[Array, ...] = run(lengths, *others[:7], *others[9:])
    return gradients[0 if wants_x else 1 :]


def _unless_reset(name: str, run: Pass) -> Pass:
    """Run a pass by cuDNN, or by the scan where states are reset inside of rows."""

    def choose(lengths: Array, resets: Array, *operands: Array, **options: Any) -> Any:
        chosen = scan.PASSES[name] if resets.shape[-1] else run
        return chosen(lengths, resets, *operands, **options)

    return choose


PASSES: dict[str, Pass] = {  # `scan` has the other
    "recurrent_forward": _unless_reset("recurrent_forward", run_direction),
    "recurrent_backward": _unless_reset("recurrent_backward", vjp_direction),
}


def _differentiate(lengths: Array, *operands: Array, reverse: bool) -> tuple[Array, ...]:
    """Return the gradients of x, h0, c0, weights and biases, from those of y, h and c."""
    inputs, gradients = operands[:7], operands[7:]
    _, transpose = jax.vjp(lambda *each: _run(lengths, *each, reverse=reverse), *inputs)
    results: tuple[Array, ...] = transpose(tuple(gradients))
    return results


def _run(
    lengths: Array, x: Array, h0: Array, c0: Array, *weights: Array, reverse: bool
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction; a row whose length is wrong gives NaN, as no row does."""
    count, width = lengths[:, None], x.shape[1]
    is_wrong, is_empty = (count < 0) | (count > width), count == 0
    steps = jnp.arange(width, dtype=lengths.dtype)[None]
    valid = (steps < count)[..., None]
    order = jnp.where(steps < count, count - 1 - steps, steps)[..., None]
    turn = partial(jnp.take_along_axis, indices=order, axis=1) if reverse else lambda each: each
    states = (jnp.where(is_empty, 0, each) for each in (h0, c0))
    taken = jnp.clip(lengths, 1, width).astype(jnp.int32)
    y, h, c = _lstm(taken, turn(jnp.where(valid, x, 0)), *states, *weights)
    h, c = jnp.where(is_empty, h0, h), jnp.where(is_empty, c0, c)
    h, c = (jnp.where(is_wrong, jnp.nan, each) for each in (h, c))
    return jnp.where(valid, turn(y), 0), h, c


def _lstm(
    lengths: Array,
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array,
    bias_hh: Array,
) -> tuple[Array, Array, Array]:
    from jax.experimental import rnn  # whose import registers what a CPU has no use for

    weights = jnp.concatenate([each.ravel() for each in (weight_ih, weight_hh, bias_ih, bias_hh)])
    sizes = x.shape[2], h0.shape[1], 1, 0.0, False
    precision = lax.Precision.HIGH if allows_tf32() else lax.Precision.HIGHEST
    y, h, c = rnn.lstm(x, h0[None], c0[None], weights, lengths, *sizes, precision)
    return y, h[0], c[0]
