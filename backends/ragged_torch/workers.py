"""The processes that train together, as torchrun starts them; alone, there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ragged.errors import OptionError, refusal


class Workers:
    """This process's place among those of its group.

    Args:
        devices: 1, for each process has one.

    Raises:
        OptionError: more devices.
    """

    def __init__(self, devices: int = 1) -> None:
        if devices != 1:
            remedy = "Start more processes: torchrun --nproc-per-node N -m ragged train ..."
            raise OptionError(
                refusal("TrainingStep", "devices", str(devices), "1 on torch", remedy)
            )
        self.is_group = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if self.is_group else 0
        self.count = distributed.get_world_size() if self.is_group else 1

    def wrap(self, network: nn.Module) -> nn.Module:
        """Let a module's gradients be averaged over the workers."""
        return DistributedDataParallel(network) if self.count > 1 else network

    def apart(self, network: Any) -> AbstractContextManager[None]:
        """Leave gradients where they are, until a backward pass outside of this."""
        return network.no_sync() if self.count > 1 else nullcontext()

    def add(self, value: Any) -> Any:
        """Add a tensor up over the workers."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any worker."""
        if self.count > 1:
            device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
            return bool(self.add(torch.tensor(int(flag), device=device)))
        return flag


@contextmanager
def join_workers() -> Iterator[int]:
    """Join the group that torchrun describes, if it started this process, and give the rank.

    GPUs are dealt out by the local rank. The group is left at the end.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()
