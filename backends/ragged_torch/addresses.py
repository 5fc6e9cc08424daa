"""What the kernels in C++ are called with: addresses of tensors, and torch's own threads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ragged.errors import DeviceError, DtypeError, RaggedError, ShapeError


def readable(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Copy what does not lie in memory as it reads; refuse what is not there or is something else.

    Raises:
        DeviceError, DtypeError, ShapeError: it is none of a CPU's arrays of this shape and dtype.
    """
    is_asked = tensor.dtype is dtype and tensor.shape == shape and tensor.is_cpu
    is_dense = is_asked and tensor.layout is torch.strided and tensor.is_contiguous()
    if is_dense and not tensor.is_neg() and (tensor.data_ptr() or not tensor.numel()):
        return tensor  # one of zeros alone, as torch has them, has no memory
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        raise refused(DeviceError, f"{tensor.layout} on {tensor.device}", "dense, on the CPU")
    if tensor.dtype is not dtype:
        raise refused(DtypeError, f"of dtype {tensor.dtype}", str(dtype))
    if tensor.shape != shape:
        raise refused(ShapeError, f"of shape {tuple(tensor.shape)}", f"shape {tuple(shape)}")
    readable = tensor.contiguous()
    if readable.is_neg() or readable._is_zerotensor():
        readable = readable.clone()  # negated or filled as it is copied
    if not readable.data_ptr() and readable.numel():
        raise refused(DeviceError, "a wrapper without memory", "a tensor")
    return readable


def room_like(tensor: Tensor) -> Tensor:
    """Make room for a kernel to write as much into: from a shape torch takes longer."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def refused(error: type[RaggedError], got: str, expected: str) -> RaggedError:
    """Compose the error of a kernel that was given something else than arrays it reads."""
    return error.of("kernel", "inputs", got, expected, "Set RAGGED_KERNELS=0.")


@cache
def find_team() -> ctypes.c_void_p | None:
    """Find what runs a team of torch's own threads; None if torch was built without OpenMP."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None
