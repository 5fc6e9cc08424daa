"""Arrays: JAX arrays to and from the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from flax import nnx

from ragged.lengths import Lengths

name = "jax"
framework = "jax"

__all__ = ["asarray", "devices", "framework", "is_traced", "name", "owns", "to_numpy", "xp"]


def owns(value: object) -> bool:
    """Whether `value` is an array of JAX or a module of flax."""
    return isinstance(value, (jax.Array, nnx.Module))


def is_traced(array: jax.Array) -> bool:
    """Whether a JAX transformation traces the array."""
    return isinstance(array, jax.core.Tracer)


def asarray(array: Any, *, dtype: str | None = None, like: jax.Array | None = None) -> jax.Array:
    """Make an array on the device of `like`; 64 bits only where JAX has them enabled."""
    if not isinstance(array, jax.Array):
        host = np.asarray(array)
        if host.dtype == np.float64 and not isinstance(array, np.ndarray):
            host = host.astype(np.float32)  # as on the torch backend
        array = xp.asarray(host.astype(jax.dtypes.canonicalize_dtype(host.dtype)))
    array = array if dtype is None else array.astype(dtype)
    if like is None or is_traced(like) or is_traced(array) or array.sharding == like.sharding:
        return array
    return jax.device_put(array, next(iter(like.devices())))


def to_numpy(array: jax.Array) -> np.ndarray:
    """Copy an array to the host; bfloat16, which NumPy lacks, becomes float32."""
    return np.asarray(array.astype(xp.float32) if array.dtype == xp.bfloat16 else array)


def devices() -> tuple[str, ...]:
    """Name the devices at hand, the preferred one first."""
    found = {"cuda" if d.platform == "gpu" else d.platform for d in jax.devices()}
    return ("cuda", "cpu") if "cuda" in found else ("cpu",)


def _flatten(lengths: Lengths) -> tuple[tuple[Any], tuple[int, str, bool]]:
    leaf = lengths._traced if lengths.is_traced else lengths.host.astype(np.int32)
    return (leaf,), (lengths.width, lengths.policy, lengths.is_full)


def _unflatten(static: tuple[int, str, bool], leaves: tuple[Any]) -> Lengths:
    width, policy, is_full = static
    if isinstance(leaves[0], np.ndarray):
        return Lengths(leaves[0], width, policy)
    return Lengths.traced(leaves[0], width, policy, is_full)


jax.tree_util.register_pytree_node(Lengths, _flatten, _unflatten)
