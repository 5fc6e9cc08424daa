"""The devices that train together: rows of a batch dealt out over a mesh of one axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ragged.errors import OptionError
from ragged.lengths import Lengths
from ragged.training.distributed import shard_batch
from ragged_jax.parameters import find_device

AXIS = "rows"


class ProcessGroup:
    """The devices that share each batch.

    Args:
        device: "cpu" or "cuda".
        count: how many of them.

    Raises:
        OptionError: there are fewer.
    """

    def __init__(self, device: str, count: int = 1) -> None:
        self.rank, self.count = 0, count
        self.device = find_device(device)
        found = jax.local_devices(backend=self.device.platform)
        if not 1 <= count <= len(found):
            expected = f"1 to {len(found)}, the {device} devices that JAX sees"
            remedy = "Lower it, or let JAX see more (JAX_NUM_CPU_DEVICES on a CPU)."
            raise OptionError.of("TrainingStep", "devices", str(count), expected, remedy)
        self.mesh = Mesh(np.array(found[:count]), (AXIS,))
        whole, rows = PartitionSpec(), PartitionSpec(AXIS)
        self._specs = whole, rows
        self._everywhere = NamedSharding(self.mesh, whole) if count > 1 else self.device
        self._dealt = NamedSharding(self.mesh, rows) if count > 1 else self.device

    def replicate(self, tree: Any) -> Any:
        """Put arrays on every device, pinned there, lest a step is compiled twice."""
        return jax.device_put(tree, self._everywhere)

    def unreplicate(self, array: jax.Array) -> jax.Array:
        """Copy a replicated array to the first device alone."""
        return jax.device_put(array, self.device, may_alias=False)

    def any_reduce(self, flag: bool) -> bool:
        """Whether the flag is set in any process: there is one."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """Give all processes what the first one has."""
        return value

    def shard_batch(self, batch: Any, dtype: str, target_dtype: str) -> tuple[Any, ...]:
        """What a model and its loss are called with: each device's rows on it.

        Both sides with their lengths, static values, the target, and the loss's own lengths if any.
        """
        parts = shard_batch(batch, self.count)

        def put(name: str, dtype: str) -> Any:
            joined = np.concatenate([getattr(part, name) for part in parts])
            return jax.device_put(np.asarray(joined, dtype), self._dealt)

        def lengths(name: str) -> Lengths:
            return self._joined([getattr(part, name) for part in parts])

        sides = put("past", dtype), put("future", dtype)
        static = {} if batch.static is None else {"static": put("static", dtype)}
        arrays = (*sides, lengths("encoder_lengths"), lengths("decoder_lengths"))
        counted = None if batch.loss_lengths is None else put("loss_lengths", "int32")
        return arrays, static, put("target", target_dtype), counted

    def all_reduce(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Call `function(params, batch, key)` on each device's rows and add up what it returns."""
        if self.count == 1:
            return function
        whole, rows = self._specs

        def on_one(params: Any, batch: Any, key: Any) -> Any:
            own = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(AXIS))
            return jax.lax.psum(function(params, batch, own), AXIS)

        return partial(
            jax.shard_map,
            mesh=self.mesh,
            in_specs=(whole, rows, whole),
            out_specs=whole,
            check_vma=False,
        )(on_one)

    def _joined(self, parts: list[Lengths]) -> Lengths:
        """The lengths of all devices, each with its own."""
        if self.count == 1:
            return parts[0]
        first = parts[0]
        joined = np.concatenate([part.host for part in parts]).astype(np.int32)
        dealt = jax.device_put(joined, self._dealt)
        return Lengths.unchecked(dealt, first.width, first.policy)


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Give this process as the only one: JAX's devices are shared by one process."""
    yield ProcessGroup("cpu")
