"""Arrays: torch tensors to and from the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ragged.checks import device_error, dtype_error
from ragged_torch.transforms import (
    FakeTensor,
    is_recorded,
    is_transformed,
    unwrap,
)

name = "torch"
framework = "torch"
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

__all__ = [
    "arange_like",
    "asarray",
    "devices",
    "framework",
    "gather_steps",
    "has_values",
    "is_compiling",
    "is_traced",
    "name",
    "owns",
    "promote_arrays",
    "to_numpy",
    "xp",
]


def owns(value: object) -> bool:
    """Whether `value` is a dense tensor or a module of torch."""
    if isinstance(value, torch.Tensor):
        return value.layout is torch.strided and not value.is_nested
    return isinstance(value, torch.nn.Module)


def is_traced(array: torch.Tensor) -> bool:
    """Whether the tensor's values cannot be read: a compiler traces it, or `vmap` maps it."""
    return is_compiling() or isinstance(array, FakeTensor) or unwrap(array) is not array


def has_values(array: torch.Tensor) -> bool:
    """Whether the tensor's values can be read; torch's device `meta` holds shapes alone."""
    return not (is_traced(array) or array.is_meta)


def is_compiling() -> bool:
    """Whether a compiler, an exporter or `torch.jit.trace` records this call."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def asarray(
    array: Any, *, dtype: str | None = None, like: torch.Tensor | None = None
) -> torch.Tensor:
    """Make a tensor on the CPU or the device of `like`; Python floats get the default dtype."""
    is_own = not isinstance(array, torch.Tensor)
    if isinstance(array, torch.Tensor):
        pass
    elif is_compiling():
        array = torch.as_tensor(array, device="cpu")
    else:
        host, is_python = np.asarray(array), not isinstance(array, np.ndarray)
        # A copy; make_fx records a constant.
        recorded = is_recorded()
        array = torch.tensor(host, device="cpu") if recorded else torch.from_numpy(host.copy())
        if array.dtype == torch.float64 and is_python:
            array = array.to(torch.get_default_dtype())
    if like is None:
        return array if dtype is None else array.to(getattr(torch, dtype))
    kind = None if dtype is None else getattr(torch, dtype)
    array = array.to(like.device, kind, non_blocking=is_own)  # nobody else writes into our copy
    return array if type(like) is torch.Tensor else _spread(array, like)


def _spread(array: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Replicate a tensor on the mesh of a `DTensor`, which does not mix with plain tensors."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or hasattr(array, "device_mesh"):
        return array
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(array, mesh, run_check=False)


def arange_like(width: int, *, like: torch.Tensor | None = None) -> torch.Tensor:
    """Return 0, 1, ..., `width` - 1 on the device of `like`, not on torch's default device."""
    return asarray(torch.arange(width, device="cpu" if like is None else like.device), like=like)


def gather_steps(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Take the steps `index (batch, steps)` of each row."""
    row = arange_like(x.shape[0], like=x)[:, None]
    return x[row, index]


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """Copy a tensor to the host; bfloat16, which NumPy lacks, becomes float32."""
    array = array.detach().cpu()
    array = array.float() if array.dtype == torch.bfloat16 else array
    if is_transformed():  # a wrapper has no memory that NumPy could read
        return np.array(array.tolist(), str(array.dtype).removeprefix("torch."))
    return array.numpy()


def promote_arrays(function: str, arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors as they are, if they are floating and of one dtype and device.

    Under `torch.autocast`, which casts all but float64, other dtypes may differ.
    """
    like = next(iter(arrays.values()))
    for argument, array in arrays.items():
        if array.dtype not in FLOATING:
            raise dtype_error(function, argument, array.dtype)
        if array.device != like.device:
            raise device_error(function, argument, array.device, like.device)
        if array.dtype != like.dtype and not (
            torch.is_autocast_enabled(like.device.type)
            and torch.float64 not in (array.dtype, like.dtype)
        ):
            raise dtype_error(function, argument, array.dtype, like.dtype)
    return dict(arrays)


def devices() -> tuple[str, ...]:
    """Name the available devices, the preferred one first."""
    return ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
