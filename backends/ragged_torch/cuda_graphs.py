"""A training step on a GPU as CUDA graphs: recorded once a shape, and launched as a whole then.

A step of a small model takes longer to launch, kernel by kernel, than to compute. No GPU has run it
yet; the tests play torch's own recording of graphs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from ragged_torch.transfers import BatchBuffers, shapes_of

ON_CPU = "a CPU has none"
SHARED = "the gradients are added up over several processes"
OVERFLOW = "with float16 the host has to learn of each step whether a gradient has overflowed"


def graphs_reason(device: str, dtype: str, workers: int) -> str | None:
    """Say why the steps of a run cannot be recorded; None = they can.

    >>> graphs_reason("cpu", "float32", 1)
    'a CPU has none'
    """
    if device != "cuda":
        return ON_CPU
    if workers > 1:
        return SHARED
    return OVERFLOW if dtype == "float16" else None


class CudaGraphs:
    """Graphs of work that reads and writes the same memory at every call, each under a key.

    Work is run as it is the first time, when kernels are tried out and memory is set aside, and
    recorded the second time. Once a recording has failed, all work is run as it is.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._seen: set[Hashable] = set()
        self._pool: Any = None  # of memory that all graphs use, one after the other
        self._has_failed = False

    def has_seen(self, key: Hashable) -> bool:
        """Whether there was work under a key."""
        return key in self._seen

    def run(self, key: Hashable, work: Callable[[], object]) -> None:
        """Do the work of a key."""
        if key in self._graphs or (key in self._seen and self._record(key, work)):
            self._graphs[key].replay()
        else:
            self._seen.add(key)
            work()

    def _record(self, key: Hashable, work: Callable[[], object]) -> bool:
        """Record work, which does not run it; whether that was possible."""
        if self._has_failed:
            return False
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            self._has_failed = True
            torch.cuda.set_stream(stream)  # which torch leaves changed
            warnings.warn(
                f"TrainingStep: a step could not be recorded as a CUDA graph: {error}. Steps run "
                "without CUDA graphs from here on.",
                UserWarning,
                stacklevel=2,
            )
            return False
        self._graphs[key], self._pool = graph, graph.pool()
        return True


class StepGraphs:
    """The two halves of a training step as graphs: gradients, one for each shape, and the update.

    What changes from step to step lies on the device: the batch, the number of its elements, the
    learning rate, the share of the new parameters in their average.

    Args:
        differentiate: adds to the gradients of a batch `(placed, count)`, and returns its loss.
        update: `(share of new)` updates the parameters.
        optimizer: of the parameters.
        create_buffers: makes room on the device for batches shaped like one.
        like: a parameter.
    """

    def __init__(
        self,
        differentiate: Callable[..., Tensor],
        update: Callable[[Tensor], object],
        optimizer: torch.optim.Optimizer,
        create_buffers: Callable[[Any], BatchBuffers],
        like: Tensor,
    ) -> None:
        self._differentiate, self._update, self._optimizer = differentiate, update, optimizer
        self._create_buffers, self._buffers = create_buffers, dict[Hashable, BatchBuffers]()
        self._graphs = CudaGraphs()
        self._loss, self._count, self._share = (like.new_zeros(()) for _ in range(3))
        for group in optimizer.param_groups:
            group["lr"] = like.new_zeros(())

    def differentiate(self, batch: Any, count: int) -> Tensor:
        """Add to the gradients those of a host batch, and return its loss over `count`."""
        key = shapes_of(batch)
        buffers = self._buffers.get(key) or self._create_buffers(batch)
        if self._graphs.has_seen(key):
            self._buffers[key] = buffers
        buffers.fill(batch)
        self._count.fill_(count)
        self._graphs.run(
            key, lambda: self._loss.copy_(self._differentiate(buffers.placed, self._count))
        )
        return self._loss.clone()

    def update(self, rate: float, share: float) -> None:
        """Update the parameters by their gradients."""
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate)
        self._share.fill_(share)
        self._graphs.run("update", lambda: self._update(self._share))
