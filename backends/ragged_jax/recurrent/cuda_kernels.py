"""Kernels of our own on a GPU: one custom call a direction and pass, which XLA launches.

They take and give what `scan` and `cpp` do. No GPU has run them yet; the tests run them by threads
of the host.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ragged.errors import KernelError
from ragged.kernels.cuda import cubins, layer, plans
from ragged.kernels.cuda.plans import SUMS, Gpu, Plan, plan_launch
from ragged.kernels.recipe import FUNCTIONS
from ragged.recurrent.cells import CELLS
from ragged_jax import custom_calls
from ragged_jax.arrays import find_gpu
from ragged_jax.custom_calls import load_library
from ragged_jax.precision import float32_products
from ragged_jax.recurrent.scan import computed_in, kept_in, y_of

SOURCE = Path(cubins.FOLDER) / "jax.cpp"


class Target(NamedTuple):
    """The GPUs that a program is for.

    Args:
        gpu: what a kernel is compiled for.
        processors: how many blocks run at once.
        calls: the names of the custom calls, by pass.
        library: which has them.
        name: of the first of these GPUs.
    """

    gpu: Gpu
    processors: int
    calls: Mapping[str, str]
    library: ctypes.CDLL
    name: str = ""


@cache
def find_target() -> Target | None:
    """Find the GPUs of this process; None where kernels cannot be launched."""
    if (device := find_gpu()) is None:
        return None
    # The library launches any kernel; a cell and a dtype only name one that is kept.
    library = load_library(SOURCE, "LSTM", "float32")
    if library is None:
        return None
    major, minor = map(int, device.compute_capability.split("."))
    calls = register(library, "CUDA")
    return Target(Gpu.of((major, minor)), device.core_count, calls, library, device.device_kind)


def register(library: ctypes.CDLL, platform: str) -> dict[str, str]:
    """Make the custom calls of a library known to XLA, by names of that library."""
    version = custom_calls.register(library, FUNCTIONS, platform, prefix="cuda_")
    calls = (f"{function}_{version}" for function in FUNCTIONS)
    return dict(zip(plans.PASSES, calls, strict=True))


@float32_products
def run_direction(
    lengths: Array,
    resets: Array,
    x: Array,
    h0: Array,
    c0: Array,
    *weights: Array,
    keep: bool,
    target: Target | None = None,
    **options: Any,
) -> tuple[Array, ...]:
    """Return what `scan.run_direction` does; a target of None is the GPUs of this process."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    lengths, h0 = _bound(lengths, x, h0, options)
    flat, places = _flat(x), math.prod(x.shape[:-1])
    of_x = layer.multiply_x(jnp, flat, weight_ih, bias_ih)
    kept_features = CELLS[options["mode"]].kept * h0.shape[1]
    of_kept = jax.ShapeDtypeStruct((places if keep else 0, kept_features), kept_in(x.dtype))
    shapes = [jax.ShapeDtypeStruct((places, h0.shape[1]), x.dtype), h0, c0, of_kept]
    arrays = (of_x, h0, c0, weight_hh, bias_hh)
    y, h, c, kept = _call("Forward", shapes, arrays, lengths, resets, x, target, **options)
    tokens = x.shape[:-1]
    kept = kept.reshape(*tokens, kept_features) if keep else kept
    return y.reshape(*tokens, h0.shape[1]), h, c, *([kept] if keep else [])


@float32_products
def vjp_direction(
    lengths: Array,
    resets: Array,
    x: Array,
    *others: Array,
    wants_x: bool,
    target: Target | None = None,
    **options: Any,
) -> tuple[Array, ...]:
    """Return what `scan.vjp_direction` does; without x's gradient, if it is not wanted."""
    h0, c0, weight_ih, weight_hh, _, _, y, kept, dy, dh, dc = others
    lengths, h0 = _bound(lengths, x, h0, options)
    places, hidden = math.prod(x.shape[:-1]), h0.shape[1]
    mode = options["mode"]
    sums = jax.ShapeDtypeStruct((places, SUMS[mode] * hidden), x.dtype)
    shapes = [sums, jax.ShapeDtypeStruct((places, hidden), x.dtype), h0, c0]
    y = y_of(mode, y, lax.bitcast_convert_type(kept, computed_in(x.dtype))).astype(x.dtype)
    arrays = (weight_hh, h0, c0, _flat(y), _flat(kept), _flat(dy), dh, dc)
    found = _call("Backward", shapes, arrays, lengths, resets, x, target, **options)
    dsums, h_before, dh0, dc0 = found
    valid = _tables(lengths, x, options).valid
    given = _flat(x), weight_ih, dsums, h_before, valid
    gradients = layer.differentiate(jnp, mode, *given, wants_x=wants_x)
    dx = [gradients.x.reshape(x.shape)] if wants_x else []
    return *dx, dh0, dc0, *gradients[1:]


PASSES: dict[str, Callable[..., tuple[Array, ...]]] = {  # `scan` has the others
    "recurrent_forward": run_direction,
    "recurrent_backward": vjp_direction,
}


def _call(
    direction: str,
    shapes: Sequence[Any],
    arrays: Sequence[Array],
    lengths: Array,
    resets: Array,
    x: Array,
    target: Target | None,
    *,
    mode: str,
    layout: str,
    width: int,
    reverse: bool,
    start: str,
) -> Sequence[Array]:
    target = target or find_target()
    assert target is not None, "the dispatch asks before"
    (batch, hidden), size = arrays[1].shape, (target.gpu, target.processors, str(x.dtype))
    plan, clusters = plan_launch(mode, direction, hidden, batch, *size)
    tables = _tables(lengths, x, {"layout": layout, "width": width})
    of_rows = tables.row_base, tables.step_base, lengths.astype(jnp.int32), tables.order
    results = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in shapes]
    call = jax.ffi.ffi_call(target.calls[direction], results, vmap_method="sequential")
    attributes: dict[str, Any] = {"kernel": _register(plan, target.library)}
    attributes |= {"clusters": np.int64(clusters), "reverse": reverse}
    return call(*of_rows, resets, *arrays, to_initial=start == "initial", **attributes)


def _register(plan: Plan, library: ctypes.CDLL) -> str:
    """Make a kernel known to the library; its name, which says what it is made of."""
    cubin = cubins.load(plan)
    if cubin is None:
        expected, remedy = "one that can be compiled", "Set RAGGED_KERNELS=0."
        raise KernelError.of("recurrent layer", "plan", plan, expected, remedy)
    name = f"{plan.cell}-{plan.direction}-{_digest(cubin)}"
    size = ctypes.c_int64(len(cubin))
    library.register_kernel(name.encode(), cubin, size, plan.cluster, plan.threads, plan.shared)
    return name


@cache
def _digest(cubin: bytes) -> str:
    return hashlib.sha256(cubin).hexdigest()[:16]


def _bound(lengths: Array, x: Array, h0: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    """Bound traced lengths, which nobody has checked: a row whose length is wrong gives NaN."""
    count, wrong = layer.bound_lengths(jnp, *_shape(lengths, x, options))
    return count, jnp.where(wrong[:, None], jnp.nan, h0)


def _tables(lengths: Array, x: Array, options: Mapping[str, Any]) -> layer.Tables:
    return layer.make_tables(jnp, *_shape(lengths, x, options))


def _shape(lengths: Array, x: Array, options: Mapping[str, Any]) -> tuple[str, Array, int, int]:
    layout, places = options["layout"], math.prod(x.shape[:-1])
    width = x.shape[1] if layout == "padded" else options["width"]
    return layout, lengths.astype(jnp.int32), width, places


def _flat(tokens: Array) -> Array:
    return tokens.reshape(math.prod(tokens.shape[:-1]), tokens.shape[-1])
