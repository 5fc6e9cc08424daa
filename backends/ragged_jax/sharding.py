"""Sharded arrays, over whose rows a layer is partitioned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def vary_alike(arrays: Any) -> Any:
    """Let all arrays of a tree vary over the same axes of a `shard_map`, where that is checked.

    The gradient of a replicated array is then summed over the devices.
    """
    axes = frozenset[str]().union(*map(_varying, jax.tree.leaves(arrays)))

    def vary(array: Array) -> Array:
        missing = tuple(axes - _varying(array))
        return _vary(array, missing) if missing else array

    return jax.tree.map(vary, arrays)


def _varying(array: Array) -> frozenset[str]:
    aval: Any = jax.typeof(array)
    kind = getattr(aval, "manual_axis_type", None)  # before JAX 0.10, `vma`
    return kind.varying if kind is not None else getattr(aval, "vma", frozenset())


def _vary(array: Array, axes: tuple[str, ...]) -> Array:
    api: Any = lax
    return api.pcast(array, axes, to="varying") if hasattr(api, "pcast") else api.pvary(array, axes)


def run_in_parts(
    run: Callable[..., Any], x: Array, results: Callable[[Any], Any], *operands: Any
) -> Any:
    """Let XLA partition `run(*operands)` on a mesh of explicit axes.

    Args:
        run: takes the operands.
        x: the array by whose rows, its first axis, results are sharded.
        results: gives the results' specifications, of that of rows.
    """
    sharding: Any = jax.typeof(x).sharding
    kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
    axes = tuple(axis for axis, kind in kinds if kind is AxisType.Explicit)
    if not axes:
        return run(*operands)
    named = partial(NamedSharding, sharding.mesh)
    out = jax.tree.map(named, results(sharding.spec[0]), is_leaf=_is_spec)
    return jax.sharding.auto_axes(run, axes=axes, out_sharding=out)(*operands)


def _is_spec(value: object) -> bool:
    return isinstance(value, PartitionSpec)


def partition_rows(
    run: Callable[..., tuple[Array, tuple[Array, Array]]],
) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    """Let XLA partition a layer on a mesh of explicit axes; y and state are sharded as x's rows."""

    def results(rows: Any) -> Any:
        of_state = PartitionSpec(None, rows, None)
        return PartitionSpec(rows, None, None), (of_state, of_state)

    def run_partitioned(
        weights: Any, x: Array, lengths: Array, resets: Array, state: Any
    ) -> tuple[Array, tuple[Array, Array]]:
        y, final = run_in_parts(run, x, results, weights, x, lengths, resets, state)
        return y, final

    return run_partitioned
