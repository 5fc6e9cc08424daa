"""The processes that train together, started by torchrun; without it, there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ragged.errors import OptionError


class ProcessGroup:
    """This process's place among those of its group.

    Args:
        devices: 1, since each process has one.

    Raises:
        OptionError: more devices.
    """

    def __init__(self, devices: int = 1) -> None:
        if devices != 1:
            remedy = "Start more processes: torchrun --nproc-per-node N -m ragged train ..."
            raise OptionError.of("TrainingStep", "devices", str(devices), "1 on torch", remedy)
        is_group = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if is_group else 0
        self.count = distributed.get_world_size() if is_group else 1

    def wrap(self, network: nn.Module) -> nn.Module:
        """Let a module's gradients be averaged over the workers."""
        return DistributedDataParallel(network) if self.count > 1 else network

    def no_sync(self, network: Any) -> AbstractContextManager[None]:
        """Skip the reduction of gradients inside the block."""
        return network.no_sync() if self.count > 1 else nullcontext()

    def add(self, value: Any) -> Any:
        """Sum a tensor over the workers."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def any_reduce(self, flag: bool) -> bool:
        """Whether the flag is set in any worker."""
        return bool(self.add(torch.tensor(int(flag)))) if self.count > 1 else flag

    def broadcast(self, value: Any) -> Any:
        """Give all workers what the first one has."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values)
        return values[0]


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Join the group that torchrun describes, if it started this process, until the block ends.

    Each process uses the GPU of its local rank.

    Raises:
        OptionError: the environment has the number of workers, but not this worker's rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        got, expected = f"set without {', '.join(missing)}", "what torchrun sets"
        remedy = "Start the workers by torchrun, or unset WORLD_SIZE."
        raise OptionError.of("init_process_group", "WORLD_SIZE", got, expected, remedy)
    cuda = torch.cuda.is_available()
    device = torch.cuda.device(int(os.environ["LOCAL_RANK"])) if cuda else nullcontext()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        with device:
            yield ProcessGroup()
    finally:
        distributed.destroy_process_group()
