"""Run the layer on two devices in every way that JAX has: the same numbers, where the rows lie.

XLA_FLAGS=--xla_force_host_platform_device_count=2 JAX_ENABLE_X64=1 \\
    python -m tests.recurrent.jax_devices
"""

from __future__ import annotations

import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ragged
from tests.recurrent.jax_layers import LENGTHS, assert_equal, like, make_inputs, total

PARAMETERS, X, STATE = make_inputs(bidirectional=False)
COUNTS = jnp.asarray(LENGTHS)
SPECS = (P(), P("rows"), P(None, "rows"), P("rows"))
ARRAYS = (PARAMETERS, X, STATE, COUNTS)
WRT = (0, 1, 2)


@cache
def expected() -> Any:
    """The loss and its gradients on one device."""
    return jax.jit(jax.value_and_grad(total("never"), WRT))(*ARRAYS)


def meshes(kind: AxisType) -> Any:
    return jax.make_mesh((2,), ("rows",), axis_types=(kind,))


def placed(mesh: Any) -> list[Any]:
    pairs = zip(ARRAYS, SPECS, strict=True)
    return [jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in pairs]


def is_split(array: jax.Array, axis: int) -> bool:
    return array.addressable_shards[0].data.shape[axis] * 2 == array.shape[axis]


def check_arrays_on_both(kind: AxisType, policy: str) -> None:
    parameters, x, state, counts = placed(meshes(kind))
    y, (h, c) = ragged.lstm(parameters, x, ragged.Lengths(LENGTHS, 5, policy))
    assert all((is_split(y, 0), is_split(h, 1), is_split(c, 1))), (kind, policy)
    run = jax.jit(jax.value_and_grad(total(policy), WRT))
    found = run(parameters, x, state, counts)
    assert_equal(found, expected(), f"{kind}, {policy}")
    assert is_split(found[1][1], 0), (kind, policy)
    program = run.lower(parameters, x, state, counts).compile().as_text()
    assert not re.findall("all-gather|lstm_forward", program), (kind, policy)


def check_eager_gradient(kind: AxisType) -> None:
    *arrays, _ = placed(meshes(kind))
    with jax.set_mesh(arrays[1].sharding.mesh):
        found = jax.value_and_grad(lambda *a: total("auto")(*a), WRT)(*arrays)
    assert_equal(found, expected(), f"eager, {kind}")


def check_shard_map(check_vma: bool) -> None:
    spread = partial(jax.shard_map, mesh=meshes(AxisType.Auto), check_vma=check_vma)

    def summed(*arrays: Any) -> jax.Array:
        return jax.lax.psum(total("auto")(*arrays), "rows")

    around = jax.jit(jax.value_and_grad(spread(summed, in_specs=SPECS, out_specs=P()), WRT))
    assert_equal(around(*ARRAYS), expected(), "gradient of shard_map")
    assert "lstm_forward" in around.lower(*ARRAYS).compile().as_text()  # each device its kernel
    if not check_vma:
        return
    tangents = like(ARRAYS[:3])
    moved = jax.jvp(lambda *a: around(*a, COUNTS)[0], ARRAYS[:3], tangents)[1]
    assert_equal(moved, jnp.vdot(*map(flat, (expected()[1], tangents))), "tangent of shard_map")
    # a gradient by what all devices share is summed over them
    inside = spread(jax.grad(total("auto"), WRT), in_specs=SPECS, out_specs=SPECS[:3])
    assert_equal(jax.jit(inside)(*ARRAYS), expected()[1], "gradient in shard_map")


def flat(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.nan_to_num(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def check_pmap() -> None:
    each = jax.pmap(jax.grad(total("auto")), in_axes=(None, 0, 0, 0))
    x, counts = X.reshape(2, 2, *X.shape[1:]), COUNTS.reshape(2, 2)
    state = [jnp.moveaxis(part.reshape(1, 2, 2, -1), 1, 0) for part in STATE]
    found = jax.tree.map(lambda leaf: leaf.sum(0), each(PARAMETERS, x, tuple(state), counts))
    assert_equal(found, expected()[1][0], "pmap")


if __name__ == "__main__":
    ragged.set_backend("jax")
    check_arrays_on_both(AxisType.Auto, "auto")
    check_arrays_on_both(AxisType.Explicit, "auto")
    check_arrays_on_both(AxisType.Explicit, "never")
    check_eager_gradient(AxisType.Explicit)
    check_shard_map(check_vma=True)
    check_shard_map(check_vma=False)
    check_pmap()
