"""A recurrent layer's own kernels on a CPU: a custom call a layer and direction, each way.

They read the lengths as the program runs, so that one program serves every batch of a shape.
`custom_op` says where they run, and what JAX's transformations make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ragged import kernels
from ragged.kernels.recipe import CELLS as MODES
from ragged.kernels.recipe import SOURCES
from ragged.recurrent.cells import CELLS
from ragged_jax.custom_calls import load_kernels
from ragged_jax.recurrent.scan import computed_in, kept_in

SOURCE = kernels.HEADERS / SOURCES["LSTM"]
LAYOUTS = {"padded": np.int64(0), "jagged": np.int64(2)}  # of `rows.hpp`


def has_kernels(mode: str, dtype: Any) -> bool:
    """Whether there are kernels for a cell and a dtype."""
    return _load(mode, computed_in(dtype)) is not None


def run_direction(
    lengths: Array,
    resets: Array,
    x: Array,
    h0: Array,
    c0: Array,
    *weights: Array,
    keep: bool,
    **options: Any,
) -> tuple[Array, ...]:
    """Return what `scan.run_direction` does."""
    (*tokens, _), hidden = x.shape, h0.shape[1]
    kept_features = CELLS[options["mode"]].kept * hidden
    kept_shape = (*tokens, kept_features) if keep else (0, *tokens[1:], kept_features)
    results = _results([(*tokens, hidden), h0.shape, c0.shape], x.dtype)
    results += [jax.ShapeDtypeStruct(kept_shape, kept_in(x.dtype))]
    arrays = _cast((x, h0, c0, *weights))
    *outputs, kept = _call("recurrent_forward", results, arrays, lengths, resets, **options)
    return *(each.astype(x.dtype) for each in outputs), *([kept] if keep else [])


def vjp_direction(
    lengths: Array, resets: Array, x: Array, *others: Array, wants_x: bool, **options: Any
) -> tuple[Array, ...]:
    """Return what `scan.vjp_direction` does; without x's gradient, if it is not wanted."""
    inputs = (x, *others[:6])[0 if wants_x else 1 :]
    results = _results([array.shape for array in inputs], x.dtype)
    h0, c0, weight_ih, weight_hh, _, _, y, kept, *of_outputs = others
    arrays = [*_cast((x, h0, c0, weight_ih, weight_hh, y)), kept, *_cast(of_outputs)]
    gradients = _call("recurrent_backward", results, arrays, lengths, resets, **options)
    return tuple(each.astype(x.dtype) for each in gradients)


PASSES = {  # `scan` has the others
    "recurrent_forward": run_direction,
    "recurrent_backward": vjp_direction,
}


def _results(shapes: Sequence[tuple[int, ...]], dtype: Any) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, computed_in(dtype)) for shape in shapes]


def _cast(arrays: Sequence[Array]) -> list[Array]:
    return [array.astype(computed_in(array.dtype)) for array in arrays]


def _call(
    name: str,
    results: Sequence[jax.ShapeDtypeStruct],
    arrays: Sequence[Array],
    lengths: Array,
    resets: Array,
    *,
    mode: str,
    layout: str,
    width: int,
    reverse: bool,
    start: str,
) -> Sequence[Array]:
    width = arrays[0].shape[1] if layout == "padded" else width
    target = f"{name}_{_load(mode, arrays[0].dtype)}"
    call = jax.ffi.ffi_call(target, results, vmap_method="sequential")
    attributes: dict[str, Any] = {
        "cell": np.int64(MODES.index(mode)),
        "layout": LAYOUTS[layout],
        "width": np.int64(width),
        "reverse": reverse,
        "to_initial": start == "initial",
    }
    return call(*arrays, resets, lengths.astype(jnp.int32), **attributes)


@cache
def _load(mode: str, dtype: Any) -> str | None:
    """Make the kernels of a cell and a dtype known to XLA; their version, None without."""
    return load_kernels(SOURCE, mode, str(dtype))
