"""The devices that train together: rows of a batch sharded over a mesh of one axis."""

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
        available = jax.local_devices(backend=self.device.platform)
        if not 1 <= count <= len(available):
            expected = f"1 to {len(available)}, the {device} devices that JAX sees"
            remedy = "Lower it, or let JAX see more (JAX_NUM_CPU_DEVICES on a CPU)."
            raise OptionError.of("TrainingStep", "devices", str(count), expected, remedy)
        self.mesh = Mesh(np.array(available[:count]), (AXIS,))
        replicated, rows = PartitionSpec(), PartitionSpec(AXIS)
        self._specs = replicated, rows
        self._replicated = NamedSharding(self.mesh, replicated) if count > 1 else self.device
        self._sharded = NamedSharding(self.mesh, rows) if count > 1 else self.device

    def replicate(self, tree: Any) -> Any:
        """Commit arrays to every device, so that a step is not compiled twice."""
        return jax.device_put(tree, self._replicated)

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
        """Return the arguments of a model and its loss, each device's rows placed on it.

        Both sides with their lengths, static values, the target, and the loss's own lengths if any.
        All are copied by one call, which does not wait for them.
        """
        parts = shard_batch(batch, self.count)
        dtypes = {"past": dtype, "future": dtype, "static": dtype, "target": target_dtype}
        dtypes["loss_lengths"] = "int32"
        host = {
            name: np.asarray(np.concatenate([getattr(part, name) for part in parts]), kind)
            for name, kind in dtypes.items()
            if getattr(batch, name) is not None
        }
        lengths = {name: getattr(batch, name) for name in ("encoder_lengths", "decoder_lengths")}
        for name in lengths:
            counts = [getattr(part, name).host for part in parts]
            host[name] = np.concatenate(counts).astype(np.int32)
        placed = jax.device_put(host, self._sharded)
        of_sides = [
            Lengths.unchecked(placed[name], each.width, each.policy)
            for name, each in lengths.items()
        ]
        static = {"static": placed["static"]} if "static" in placed else {}
        arrays = placed["past"], placed["future"], *of_sides
        return arrays, static, placed["target"], placed.get("loss_lengths")

    def all_reduce(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Call `function(params, batch, key)` on each device's rows and sum the results."""
        if self.count == 1:
            return function
        replicated, rows = self._specs

        def run_on_device(params: Any, batch: Any, key: Any) -> Any:
            device_key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(AXIS))
            return jax.lax.psum(function(params, batch, device_key), AXIS)

        return partial(
            jax.shard_map,
            mesh=self.mesh,
            in_specs=(replicated, rows, replicated),
            out_specs=replicated,
            check_vma=False,
        )(run_on_device)


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Yield the group of this one process, which drives all of JAX's devices."""
    yield ProcessGroup("cpu")
