"""Arrays: JAX arrays to and from the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from flax import nnx

from ragged.arguments import device_error, dtype_error
from ragged.kernels import find_compiler
from ragged.lengths import Lengths, Stairs
from ragged.schedule import Costs, fix_stairs, is_native

name = "jax"
framework = "jax"
FLOATING = tuple(map(xp.dtype, (xp.float16, xp.bfloat16, xp.float32, xp.float64)))

__all__ = [
    "asarray",
    "devices",
    "framework",
    "is_recording",
    "is_traced",
    "lstm_costs",
    "name",
    "owns",
    "promote_arrays",
    "stairs_of",
    "to_numpy",
    "xp",
]


def owns(value: object) -> bool:
    """Whether `value` is an array of JAX or a module of flax."""
    return isinstance(value, (jax.Array, nnx.Module))


def is_traced(array: jax.Array) -> bool:
    """Whether a JAX transformation traces the array."""
    return isinstance(array, jax.core.Tracer)


def is_recording() -> bool:
    """Whether a compiler records this very call: never, JAX traces arguments alone."""
    return False


def asarray(array: Any, *, dtype: str | None = None, like: jax.Array | None = None) -> jax.Array:
    """Make an array on the device of `like`; 64 bits only where JAX has them enabled."""
    if not isinstance(array, jax.Array):
        host = np.asarray(array)
        wanted = jax.dtypes.canonicalize_dtype(host.dtype)
        if host.dtype == np.float64 and not isinstance(array, np.ndarray):
            wanted = np.dtype(np.float32)  # as on the torch backend
        with np.errstate(over="ignore"):  # what is beyond the range is infinite
            array = xp.asarray(host.astype(wanted))
    array = array if dtype is None else array.astype(dtype)
    if like is None or is_traced(like) or is_traced(array) or array.sharding == like.sharding:
        return array
    return jax.device_put(array, next(iter(like.devices())))


def to_numpy(array: jax.Array) -> np.ndarray:
    """Copy an array to the host; bfloat16, which NumPy lacks, becomes float32."""
    return np.asarray(array.astype(xp.float32) if array.dtype == xp.bfloat16 else array)


def promote_arrays(function: str, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Bring floating arrays on one device to one dtype, flax's promotion."""
    for argument, array in arrays.items():
        if array.dtype not in FLOATING:
            raise dtype_error(function, argument, array.dtype)
    committed = {argument: a for argument, a in arrays.items() if not is_traced(a) and a.committed}
    for argument, array in committed.items():
        like = next(iter(committed.values()))
        if array.sharding.device_set != like.sharding.device_set:
            raise device_error(function, argument, array.devices(), like.devices())
    dtype = xp.result_type(*arrays.values())
    return {
        argument: array if array.dtype == dtype and not array.weak_type else array.astype(dtype)
        for argument, array in arrays.items()
    }


def devices() -> tuple[str, ...]:
    """Name the devices at hand, the preferred one first."""
    found = {"cuda" if d.platform == "gpu" else d.platform for d in jax.devices()}
    return ("cuda", "cpu") if "cuda" in found else ("cpu",)


# Static beside the lengths themselves: width, policy, is_full, stairs.
_Static = tuple[int, str, bool, Stairs | None]

# A piece takes 0.4 s to compile, which `call` spreads over a thousand calls. Loops whose steps are
# read from the lengths leave a CPU no slower; a GPU would wait for the host at every step.
CPU_COSTS = Costs(call=400e-6, step=2e-6, rate=0.22e-9, thin=1.0, gates=130.0, pieces=None)
NATIVE = Costs(call=440e-6, step=0.0, rate=0.117e-9, thin=2.7, gates=83.0, pieces=1)
NATIVE_COSTS = replace(CPU_COSTS, native=NATIVE)


def lstm_costs(device: str) -> Costs:
    """What a layer costs here, for `ragged.schedule`."""
    if device != "cpu":
        return replace(CPU_COSTS, call=float("inf"))
    return CPU_COSTS if find_compiler() is None else NATIVE_COSTS


def stairs_of(lengths: Lengths) -> Stairs | None:
    """What a compiled program fixes of the schedule; None = nothing."""
    if lengths.is_traced or is_native(lengths):
        return lengths.stairs
    return fix_stairs(lengths, CPU_COSTS)


def _flatten(lengths: Lengths) -> tuple[tuple[Any], _Static]:
    stairs, like = stairs_of(lengths), lengths.typical
    leaf = lengths._traced if lengths.is_traced else lengths.host.astype(np.int32)
    # A batch that chance alone has filled shares the program of its shape.
    is_full = lengths.is_full and (like is None or like.is_full)
    return (leaf,), (lengths.width, lengths.policy, is_full, stairs)


def _unflatten(static: _Static, leaves: tuple[Any]) -> Lengths:
    width, policy, is_full, stairs = static
    if isinstance(leaves[0], np.ndarray):
        found = Lengths(leaves[0], width, policy)
        found.is_full, found.stairs = is_full, stairs  # nnx flattens again what it was given
        return found
    return Lengths.traced(leaves[0], width, policy, is_full, stairs)


jax.tree_util.register_pytree_node(Lengths, _flatten, _unflatten)
