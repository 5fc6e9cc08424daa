"""Parameters by canonical name: an nnx module's paths, joined by dots, are the canonical ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.errors import OptionError
from ragged.ops.interpolation import interpolation_matrix
from ragged.recurrent.init import Shape
from ragged_jax.arrays import is_traced, to_numpy


class Streams:
    """A generator for `ragged.recurrent.init` that draws from flax's streams, traced or not.

    Args:
        rngs: flax's streams, of which it takes "params".
        layer: the name of the layer that it is for.
    """

    def __init__(self, rngs: nnx.Rngs, layer: str) -> None:
        if not isinstance(rngs, nnx.Rngs):
            got = f"a {type(rngs).__name__}"
            remedy = "Give nnx.Rngs(0), or a seed."
            raise OptionError.of(layer, "rngs", got, "flax.nnx.Rngs", remedy)
        self.rngs = rngs

    def uniform(self, low: float, high: float, size: Shape) -> Array:
        """Draw float32 from U(low, high)."""
        return jax.random.uniform(self.rngs.params(), size, jnp.float32, low, high)


def named(params: nnx.State) -> dict[str, Any]:
    """Name the leaves of a state of parameters."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(params)}


def get_parameters(module: nnx.Module) -> dict[str, np.ndarray]:
    """Copy a module's parameters to the host."""
    leaves = named(nnx.state(module, nnx.Param))
    return {name: to_numpy(leaf[...]).copy() for name, leaf in leaves.items()}


def set_parameters(module: nnx.Module, parameters: Mapping[str, np.ndarray]) -> None:
    """Write checked parameters into a module, in its own dtype and device."""
    params = nnx.state(module, nnx.Param)
    for name, leaf in named(params).items():
        old = leaf[...]
        value = np.asarray(parameters[name]).astype(old.dtype)
        leaf[...] = jax.device_put(value, old.sharding)
    nnx.update(module, params)


def spread(parameter: Array, like: Array) -> Array:
    """Expand a parameter to the axes of `like`; num_copies, if it has them, stay its first axis.

    The gradient of half precision is summed over all tokens in float32.
    """
    if parameter.ndim == 1:  # for jax_numpy_rank_promotion="raise"
        spread = jnp.expand_dims(parameter, tuple(range(like.ndim - 1)))
    else:
        spread = parameter.reshape(len(parameter), *(1 for _ in like.shape[2:]), -1)
    if parameter.dtype.itemsize >= 4:
        return spread
    return jnp.broadcast_to(spread.astype(jnp.float32), like.shape).astype(parameter.dtype)


def stretch_matrix(scale: Array, like: Array) -> Array:
    """Give the matrix that interpolates the features of `like`, times `2 * sigmoid(scale)`."""
    matrix = jnp.asarray(interpolation_matrix(like.shape[-1], scale.shape[-1]), like.dtype)
    opened = 2 * jax.nn.sigmoid(scale)[..., None, :]
    return jnp.broadcast_to(matrix, (*opened.shape[:-2], *matrix.shape)) * opened


def to(module: nnx.Module, *, device: str, dtype: str) -> nnx.Module:
    """Move a module to a device and a floating dtype, in place.

    Raises:
        OptionError: float64 where JAX has 64 bits disabled; nothing global is changed here.
    """
    check_dtype(dtype)
    target = find_device(device)

    def move(leaf: Any) -> Any:
        return jax.device_put(_cast(leaf, dtype), target)

    nnx.update(module, jax.tree.map(move, nnx.state(module, nnx.Param)))
    return module


def _cast(array: Array, dtype: str) -> Any:
    """Cast an array, on the host where it has values: JAX compiles a program for each shape."""
    if array.dtype == dtype or is_traced(array):
        return array.astype(dtype)
    with np.errstate(over="ignore"):  # values beyond the range become infinite
        return np.asarray(array).astype(dtype)


def find_device(name: str) -> jax.Device:
    """Find the first device of a kind, "cpu" or "cuda"."""
    return jax.devices("gpu" if name == "cuda" else name)[0]


def check_dtype(dtype: str) -> None:
    """Refuse float64 where JAX would silently compute in float32."""
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        got = "'float64' while JAX has 64 bits disabled"
        remedy = "Start the process with JAX_ENABLE_X64=1."
        raise OptionError.of("to", "dtype", got, "float32, or JAX with 64 bits", remedy)
