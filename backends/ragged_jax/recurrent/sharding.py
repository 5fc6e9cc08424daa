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


def partition_rows(
    run: Callable[..., tuple[Array, tuple[Array, Array]]],
) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    """Let XLA partition a layer on a mesh of explicit axes; y and state are sharded as x's rows."""

    def run_partitioned(
        weights: Any, x: Array, lengths: Array, resets: Array, state: Any
    ) -> tuple[Array, tuple[Array, Array]]:
        sharding: Any = jax.typeof(x).sharding
        kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
        axes = tuple(axis for axis, kind in kinds if kind is AxisType.Explicit)
        if not axes:
            return run(weights, x, lengths, resets, state)
        rows = sharding.spec[0]
        named_sharding = partial(NamedSharding, sharding.mesh)
        of_state = named_sharding(PartitionSpec(None, rows, None))
        out = (named_sharding(PartitionSpec(rows, None, None)), (of_state, of_state))
        run_in_parts = jax.sharding.auto_axes(run, axes=axes, out_sharding=out)
        return run_in_parts(weights, x, lengths, resets, state)

    return run_partitioned
