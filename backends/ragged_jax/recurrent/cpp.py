"""The LSTM's own kernels on a CPU: one custom call a layer and direction, forward and backward.

They read the lengths as the program runs, so that one program serves every batch of a shape.
`operator` says where they run, and what JAX's transformations make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ragged import kernels
from ragged.kernels.recipe import FUNCTIONS, xla_interface
from ragged_jax.recurrent.scan import computed_in

SOURCE = kernels.HEADERS / "jax.cpp"


def has_kernels(dtype: Any) -> bool:
    """Whether there are kernels for a dtype."""
    return _load(computed_in(dtype)) is not None


def run_direction(
    lengths: Array, x: Array, h0: Array, c0: Array, *weights: Array, reverse: bool, keep: bool
) -> tuple[Array, ...]:
    """Return what `scans.run_direction` does."""
    (batch, width, _), hidden = x.shape, h0.shape[1]
    rows = batch if keep else 0
    shapes = [(batch, width, hidden), h0.shape, c0.shape]
    shapes += [(rows, width, 4 * hidden), (rows, width, hidden)]
    found = _call("lstm_forward", shapes, (x, h0, c0, *weights), lengths, reverse)
    results = [each.astype(x.dtype) for each in found[:3]]
    return *results, *(found[3:] if keep else ())


def pull_direction(
    lengths: Array, x: Array, *others: Array, reverse: bool, wants_x: bool
) -> tuple[Array, ...]:
    """Return what `scans.pull_direction` does; without x's gradient, if it is not wanted."""
    inputs = (x, *others[:4])
    weight = inputs[3]
    shapes = [array.shape for array in inputs[0 if wants_x else 1 :]]
    found = _call("lstm_backward", [*shapes, weight.shape[:1]], (x, *others), lengths, reverse)
    return tuple(each.astype(x.dtype) for each in found)


PASSES = {"lstm_forward": run_direction, "lstm_backward": pull_direction}  # `scan` has the others


def _call(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    arrays: Sequence[Array],
    lengths: Array,
    reverse: bool,
) -> Sequence[Array]:
    dtype = computed_in(arrays[0].dtype)
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    call = jax.ffi.ffi_call(f"{name}_{_load(dtype)}", results, vmap_method="sequential")
    inputs = (array.astype(dtype) for array in arrays)
    return call(*inputs, lengths.astype(jnp.int32), reverse=reverse)


@cache
def _load(dtype: Any) -> str | None:
    """Make a dtype's kernels known to XLA; their library's name, or None if there are none.

    XLA knows them by that name too, for a program that it has kept may call another version's.
    """
    include = jax.ffi.include_dir()
    library = kernels.load(SOURCE, str(dtype), (include,), xla_interface(Path(include)))
    if library is None:
        return None
    version = Path(library._name).stem
    for name in FUNCTIONS:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"{name}_{version}", handler, platform="cpu")
    return version
