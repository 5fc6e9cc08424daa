"""Arrays: torch tensors to and from the host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ragged.kernels import find_compiler
from ragged.schedule import Costs
from ragged_torch.transformations import FakeTensor, unwrap

name = "torch"
framework = "torch"

__all__ = [
    "asarray",
    "devices",
    "framework",
    "is_recording",
    "is_traced",
    "lstm_costs",
    "name",
    "owns",
    "to_numpy",
    "xp",
]


def owns(value: object) -> bool:
    """Whether `value` is a tensor or a module of torch."""
    return isinstance(value, (torch.Tensor, torch.nn.Module))


def is_traced(array: torch.Tensor) -> bool:
    """Whether the tensor's values cannot be read: a compiler traces it, or `vmap` maps it."""
    return is_recording() or isinstance(array, FakeTensor) or unwrap(array) is not array


def is_recording() -> bool:
    """Whether a compiler or an exporter records this very call."""
    return torch.compiler.is_compiling()


def asarray(
    array: Any, *, dtype: str | None = None, like: torch.Tensor | None = None
) -> torch.Tensor:
    """Make a tensor on the device of `like`; Python floats become float32."""
    if is_recording():
        array = torch.as_tensor(array)
    elif not isinstance(array, torch.Tensor):
        host = np.asarray(array)
        if host.dtype == np.float64 and not isinstance(array, np.ndarray):
            host = host.astype(np.float32)  # torch's own default for Python numbers
        array = torch.tensor(host)  # a copy, which modes such as make_fx's take for a constant
    array = array.to(
        device=None if like is None else like.device,
        dtype=None if dtype is None else getattr(torch, dtype),
    )
    return array if like is None or type(like) is torch.Tensor else _spread(array, like)


def _spread(array: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Put a copy of a tensor on each device of a `DTensor`, which mixes with its own kind alone."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or hasattr(array, "device_mesh"):
        return array
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(array, mesh, run_check=False)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """Copy a tensor to the host; bfloat16, which NumPy lacks, becomes float32."""
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()


def devices() -> tuple[str, ...]:
    """Name the devices at hand, the preferred one first."""
    return ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)


COSTS = {
    "cpu": Costs(
        call=250e-6,
        step=2e-6,
        rate=0.15e-9,
        thin=1.5,
        gates=86.0,
        pieces=8,
        packed_step=200e-6,
        packed_rate=2.0,
        native=Costs(call=700e-6, step=0.0, rate=0.126e-9, thin=3.8, gates=46.0, pieces=1),
    ),
    # Not measured yet: what is known of cuDNN's kernels, so that rows that end are not computed.
    "cuda": Costs(
        call=50e-6,
        step=8e-6,
        rate=1e-12,
        thin=16.0,
        gates=40.0,
        pieces=8,
        packed_step=8e-6,
    ),
}


def lstm_costs(device: str) -> Costs:
    """What a layer costs here, for `ragged.schedule`."""
    costs = COSTS.get(device, COSTS["cpu"])
    return costs if find_compiler() is not None else replace(costs, native=None)
