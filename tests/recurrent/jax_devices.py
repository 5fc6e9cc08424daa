"""Run layers and functions of rows on two devices: the same numbers, where the rows lie.

XLA_FLAGS=--xla_force_host_platform_device_count=2 JAX_ENABLE_X64=1 \\
    python -m tests.recurrent.jax_devices
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ragged
from tests.recurrent import jax_rows
from tests.recurrent.jax_layers import FUNCTIONS, LENGTHS, assert_equal, like, make_inputs, total

COUNTS = jnp.asarray(LENGTHS)
SPECS = (P(), P("rows"), P(None, "rows"), P("rows"))
WRT = (0, 1, 2)


def meshes(kind: AxisType) -> Any:
    return jax.make_mesh((2,), ("rows",), axis_types=(kind,))


def is_split(array: jax.Array, axis: int) -> bool:
    return array.addressable_shards[0].data.shape[axis] * 2 == array.shape[axis]


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.nan_to_num(leaf).ravel() for leaf in jax.tree.leaves(tree)])


class Layer:
    """A layer of a mode in one direction, and its loss and gradients on one device."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.arrays = (*make_inputs(mode), COUNTS)
        self.expected = jax.jit(jax.value_and_grad(self.total("never"), WRT))(*self.arrays)

    def total(self, policy: str) -> Any:
        return total(policy, self.mode)

    def spread(self, mesh: Any) -> list[Any]:
        pairs = zip(self.arrays, SPECS, strict=True)
        return [jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in pairs]

    def check_arrays_on_both(self, kind: AxisType, policy: str) -> None:
        parameters, x, state, counts = self.spread(meshes(kind))
        lengths = ragged.Lengths(LENGTHS, 5, policy)
        y, final = FUNCTIONS[self.mode](parameters, x, lengths, state)
        assert is_split(y, 0), (kind, policy)
        assert all(is_split(part, 1) for part in jax.tree.leaves(final)), (kind, policy)
        run = jax.jit(jax.value_and_grad(self.total(policy), WRT))
        program = run.lower(parameters, x, state, counts).compile()
        found = program(parameters, x, state, counts)
        assert_equal(found, self.expected, f"{kind}, {policy}")
        assert is_split(found[1][1], 0), (kind, policy)
        called = re.findall("all-gather|recurrent_forward", program.as_text())
        assert not called, (kind, policy)

    def check_eager_gradient(self, kind: AxisType) -> None:
        *arrays, _ = self.spread(meshes(kind))
        with jax.set_mesh(arrays[1].sharding.mesh):
            found = jax.value_and_grad(lambda *a: self.total("auto")(*a), WRT)(*arrays)
        assert_equal(found, self.expected, f"eager, {kind}")

    def check_what_ran_on_one(self) -> None:
        """The forward pass on one device, by kernels, and the backward pass on both."""
        value, pull = jax.vjp(jax.jit(self.total("auto")), *self.arrays[:3])
        spread = jax.device_put(jnp.ones_like(value), NamedSharding(meshes(AxisType.Auto), P()))
        assert_equal(pull(spread), self.expected[1], "a backward pass on both")

    def check_shard_map(self, check_vma: bool) -> None:
        spread = partial(jax.shard_map, mesh=meshes(AxisType.Auto), check_vma=check_vma)

        def summed(*arrays: Any) -> jax.Array:
            return jax.lax.psum(self.total("auto")(*arrays), "rows")

        around = jax.jit(jax.value_and_grad(spread(summed, in_specs=SPECS, out_specs=P()), WRT))
        program = around.lower(*self.arrays).compile()
        assert_equal(program(*self.arrays), self.expected, "gradient of shard_map")
        assert "recurrent_forward" in program.as_text()  # each device its kernel
        if not check_vma:
            return
        *arrays, counts = self.arrays
        tangents = like(tuple(arrays))
        moved = jax.jvp(lambda *a: around(*a, counts)[0], tuple(arrays), tangents)[1]
        expected = np.vdot(*map(flat, (self.expected[1], tangents)))
        assert_equal(moved, expected, "tangent of shard_map")
        # a gradient by what all devices share is summed over them
        inside = spread(jax.grad(self.total("auto"), WRT), in_specs=SPECS, out_specs=SPECS[:3])
        found = jax.jit(inside)(*self.arrays)
        assert_equal(found, self.expected[1], "gradient in shard_map")

    def check_pmap(self) -> None:
        parameters, x, state, counts = self.arrays
        each = jax.pmap(jax.grad(self.total("auto")), in_axes=(None, 0, 0, 0))
        halves = jax.tree.map(lambda part: jnp.moveaxis(part.reshape(1, 2, 2, -1), 1, 0), state)
        found = each(parameters, x.reshape(2, 2, *x.shape[1:]), halves, counts.reshape(2, 2))
        found = jax.tree.map(lambda leaf: leaf.sum(0), found)
        assert_equal(found, self.expected[1][0], "pmap")


if __name__ == "__main__":
    ragged.set_backend("jax")
    lstm, gru = Layer("LSTM"), Layer("GRU")
    lstm.check_arrays_on_both(AxisType.Auto, "auto")
    lstm.check_arrays_on_both(AxisType.Explicit, "never")
    for layer in (lstm, gru):
        layer.check_arrays_on_both(AxisType.Explicit, "auto")
        layer.check_eager_gradient(AxisType.Explicit)
        layer.check_what_ran_on_one()
        layer.check_shard_map(check_vma=True)
    lstm.check_shard_map(check_vma=False)
    lstm.check_pmap()
    with jax.enable_x64(False):
        for kind in (AxisType.Auto, AxisType.Explicit):
            jax_rows.check_functions(kind)
