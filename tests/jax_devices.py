"""Run the layer on two devices in every way that JAX has: the same numbers, where the rows lie.

XLA_FLAGS=--xla_force_host_platform_device_count=2 JAX_ENABLE_X64=1 python jax_devices.py
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax_layers import LENGTHS, assert_equal, like, make_inputs, total

import ragged

PARAMETERS, X, STATE = make_inputs()
COUNTS = jnp.asarray(LENGTHS)
SPECS = (P(), P("rows"), P(None, "rows"), P("rows"))
ARRAYS = (PARAMETERS, X, STATE, COUNTS)
WRT = (0, 1, 2)
EXPECTED = jax.jit(jax.value_and_grad(total("never"), WRT))(*ARRAYS)


def meshes(kind: AxisType) -> Any:
    return jax.make_mesh((2,), ("rows",), axis_types=(kind,))


def placed(mesh: Any) -> list[Any]:
    pairs = zip(ARRAYS, SPECS, strict=True)
    return [jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in pairs]


def is_split(array: jax.Array, axis: int) -> bool:
    return array.addressable_shards[0].data.shape[axis] * 2 == array.shape[axis]


def check_arrays_that_lie_on_both(kind: AxisType, policy: str) -> None:
    parameters, x, state, counts = placed(meshes(kind))
    y, (h, c) = ragged.lstm(parameters, x, ragged.Lengths(LENGTHS, 5, policy))
    assert all((is_split(y, 0), is_split(h, 1), is_split(c, 1))), (kind, policy)
    run = jax.jit(jax.value_and_grad(total(policy), WRT))
    found = run(parameters, x, state, counts)
    assert_equal(found, EXPECTED, f"{kind}, {policy}")
    assert is_split(found[1][1], 0), (kind, policy)
    program = run.lower(parameters, x, state, counts).compile().as_text()
    assert not {"all-gather", "lstm_forward"} & set(re.findall(r"[\w-]+", program)), (kind, policy)
    if policy == "auto":
        with jax.set_mesh(x.sharding.mesh):
            eager = jax.value_and_grad(lambda p, x, s: total(policy)(p, x, s), WRT)
            assert_equal(eager(parameters, x, state), EXPECTED, f"eager, {kind}, {policy}")


def check_shard_map(check_vma: bool) -> None:
    spread = partial(jax.shard_map, mesh=meshes(AxisType.Auto), check_vma=check_vma)

    def summed(*arrays: Any) -> jax.Array:
        return jax.lax.psum(total("auto")(*arrays), "rows")

    around = jax.jit(jax.value_and_grad(spread(summed, in_specs=SPECS, out_specs=P()), WRT))
    assert_equal(around(*ARRAYS), EXPECTED, "gradient of shard_map")
    assert "lstm_forward" in around.lower(*ARRAYS).compile().as_text()  # each device its kernel
    tangents = like(ARRAYS[:3])
    moved = jax.jvp(
        lambda *a: spread(summed, in_specs=SPECS, out_specs=P())(*a, COUNTS), ARRAYS[:3], tangents
    )
    expected = jax.jvp(lambda *a: total("never")(*a, COUNTS), ARRAYS[:3], tangents)
    assert_equal(moved, expected, "tangent of shard_map")
    if check_vma:  # a gradient by what all devices share is summed over them
        inside = spread(jax.grad(total("auto"), WRT), in_specs=SPECS, out_specs=SPECS[:3])
        assert_equal(jax.jit(inside)(*ARRAYS), EXPECTED[1], "gradient in shard_map")


def check_pmap() -> None:
    each = jax.pmap(jax.grad(total("auto")), in_axes=(None, 0, 0, 0))
    halves = (
        X.reshape(2, 2, *X.shape[1:]),
        jnp.moveaxis(STATE[0].reshape(2, 2, 2, -1), 1, 0),
        jnp.moveaxis(STATE[1].reshape(2, 2, 2, -1), 1, 0),
    )
    found = each(PARAMETERS, halves[0], halves[1:], COUNTS.reshape(2, 2))
    assert_equal(jax.tree.map(lambda leaf: leaf.sum(0), found), EXPECTED[1][0], "pmap")


for policy in ("auto", "never"):
    check_arrays_that_lie_on_both(AxisType.Auto, policy)
    check_arrays_that_lie_on_both(AxisType.Explicit, policy)
check_shard_map(True)
check_shard_map(False)
check_pmap()
