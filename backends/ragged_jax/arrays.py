"""Arrays: JAX arrays to and from the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ragged.checks import device_error, dtype_error
from ragged.lengths import Lengths

name = "jax"
framework = "jax"
FLOATING = tuple(map(xp.dtype, (xp.float16, xp.bfloat16, xp.float32, xp.float64)))

__all__ = [
    "arange_like",
    "asarray",
    "devices",
    "framework",
    "gather_steps",
    "has_values",
    "is_compiling",
    "is_traced",
    "name",
    "owns",
    "promote_arrays",
    "to_numpy",
    "xp",
]


def owns(value: object) -> bool:
    """Whether `value` is an array of JAX or a module of flax."""
    if isinstance(value, jax.Array):
        return isinstance(value.dtype, np.dtype)  # unlike a random key's
    return isinstance(value, nnx.Module)


def is_traced(array: jax.Array) -> bool:
    """Whether a JAX transformation traces the array."""
    return isinstance(array, jax.core.Tracer)


def has_values(array: jax.Array) -> bool:
    """Whether the array's values can be read."""
    return not is_traced(array)


def is_compiling() -> bool:
    """Whether a compiler records this call: never, JAX traces arguments alone."""
    return False


def asarray(array: Any, *, dtype: str | None = None, like: jax.Array | None = None) -> jax.Array:
    """Make an array on the device of `like`; 64 bits only where JAX has them enabled."""
    if not isinstance(array, jax.Array):
        host = np.asarray(array)
        target_dtype = jax.dtypes.canonicalize_dtype(host.dtype)
        if host.dtype == np.float64 and not isinstance(array, np.ndarray):
            target_dtype = np.dtype(np.float32)  # as on the torch backend
        with np.errstate(over="ignore"):  # values beyond the range become infinite
            array = jax.device_put(host.astype(target_dtype))  # `jnp.asarray` compiles a program
    array = array if dtype is None else array.astype(dtype)
    if like is None or is_traced(like) or is_traced(array):
        return array
    sharding = like.sharding
    if array.sharding.device_set == sharding.device_set:
        return array
    if isinstance(sharding, NamedSharding):  # replicated, so that sharded rows do not move
        return jax.device_put(array, NamedSharding(sharding.mesh, PartitionSpec()))
    return array if len(sharding.device_set) > 1 else jax.device_put(array, sharding)


def arange_like(width: int, *, like: jax.Array | None = None) -> jax.Array:
    """Return 0, 1, ..., `width` - 1 on the devices of `like`."""
    return asarray(xp.arange(width), like=like)


def gather_steps(x: jax.Array, index: jax.Array) -> jax.Array:
    """Take the steps `index (batch, steps)` of each row, on the devices where the rows are."""
    index = index.reshape(*index.shape, *(1 for _ in x.shape[2:]))
    return xp.take_along_axis(x, index, axis=1, mode="promise_in_bounds")


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
    """Name the available devices, the preferred one first."""
    platforms = {"cuda" if d.platform == "gpu" else d.platform for d in jax.devices()}
    return ("cuda", "cpu") if "cuda" in platforms else ("cpu",)


def find_gpu() -> jax.Device | None:
    """Find the first CUDA device of this process; None where it has none."""
    try:
        return jax.local_devices(backend="cuda")[0]
    except RuntimeError:  # a JAX without CUDA
        return None


def _flatten(lengths: Lengths) -> tuple[tuple[Any], tuple[int, str]]:
    return (lengths.leaf,), (lengths.width, lengths.policy)


def _unflatten(static: tuple[int, str], leaves: tuple[Any]) -> Lengths:
    return Lengths.unchecked(leaves[0], *static)


jax.tree_util.register_pytree_node(Lengths, _flatten, _unflatten)
