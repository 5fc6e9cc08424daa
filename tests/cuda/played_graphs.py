"""CUDA graphs of the pretended device: work is recorded, and done again with what its memory holds.

As on a GPU nothing is done while it is recorded, Python is not run again, and work that waits for
the device, copies from or to the host or takes pinned memory cannot be recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = ("synchronisation", "copy to device", "copy to host", "wait for event")
REFUSAL = "operation not permitted when stream is capturing"


class Recording(TorchDispatchMode):
    """Notes operators and what they gave; memory that was there before is left as it was."""

    def __init__(self) -> None:
        super().__init__()
        sets = torch._C._dispatch_tls_local_include_set, torch._C._dispatch_tls_local_exclude_set
        self._keys = [get() for get in sets]
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("pin_memory"):
            raise RuntimeError(REFUSAL)
        for name, value in zip((a.name for a in func._schema.arguments), args, strict=False):
            self._keep(func, name, value)
        for name, value in kwargs.items():
            self._keep(func, name, value)
        is_ours = func.namespace == "ragged"  # in their bodies autograd is at work
        with torch._C._ForceDispatchKeyGuard(*self._keys) if is_ours else nullcontext():
            found = func(*args, **kwargs)
        self._made |= {_memory(each) for each in tree_leaves(found) if isinstance(each, Tensor)}
        self.calls.append((func, args, kwargs, found))
        return found

    def _keep(self, func: Any, name: str, value: Any) -> None:
        """Copy what an operator is about to write into, if it was there before."""
        argument = next((a for a in func._schema.arguments if a.name == name), None)
        if argument is None or not argument.is_write:
            return
        for each in tree_leaves(value):
            place = _memory(each)
            if place not in self._made and place not in self._before:
                whole = torch.empty(0, dtype=torch.uint8, device=each.device)
                whole.set_(each.untyped_storage())
                self._before[place] = whole, whole.clone()

    def restore(self) -> None:
        """Undo what was done while work was recorded."""
        for whole, before in self._before.values():
            whole.copy_(before)
        self._before.clear()


class Graph:
    """A `torch.cuda.CUDAGraph`."""

    note: Callable[[str, str], None]
    counts: Counter[str]
    current: Graph | None = None

    def __init__(self, keep_graph: bool = False) -> None:
        self._recording = Recording()

    def capture_begin(self, pool: Any = None, **_: Any) -> None:
        """Begin to record what this thread does."""
        self._counts, Graph.current = self.counts.copy(), self
        self._random = torch.default_generator.get_state()
        self._recording.__enter__()

    def capture_end(self) -> None:
        """End, and refuse what a GPU would."""
        self._recording.__exit__(None, None, None)
        Graph.current = None
        asked = {kind: self.counts[kind] - self._counts[kind] for kind in FORBIDDEN}
        self._recording.restore()
        torch.default_generator.set_state(self._random)
        self.counts.clear()
        self.counts.update(self._counts)
        if any(asked.values()):
            raise RuntimeError(f"{REFUSAL}: {asked}")

    def replay(self) -> None:
        """Do again what was recorded: one launch."""
        before = self.counts.copy()
        with torch.no_grad():
            for func, args, kwargs, found in self._recording.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and _memory(old) != _memory(new):
                        old.copy_(new)
        self.counts.clear()
        self.counts.update(before)
        self.note("launch", "graph")

    def pool(self) -> tuple[int, int]:
        """The memory that other graphs may use too."""
        return (0, 1)


@contextmanager
def graph(cuda_graph: Graph, pool: Any = None, **options: Any) -> Any:
    """Play `torch.cuda.graph`."""
    cuda_graph.capture_begin(pool, **options)
    try:
        yield
    finally:
        cuda_graph.capture_end()


def play(note: Callable[[str, str], None], counts: Counter[str]) -> None:
    """Take the place of torch's recording of graphs."""
    cuda: Any = torch.cuda
    Graph.note, Graph.counts = staticmethod(note), counts
    cuda.CUDAGraph, cuda.graph = Graph, graph
    cuda.is_current_stream_capturing = lambda: Graph.current is not None
    cuda.current_stream, cuda.set_stream = lambda *_: None, lambda _: None


def _memory(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
