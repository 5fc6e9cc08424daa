"""Transformations around a call, and tensors that are more than plain memory.

Kernels read memory, which torch cannot follow: check here before passing an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import _len_torch_dispatch_stack_pre_dispatch
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad

from ragged.backend import recorded_as_constant

__all__ = [
    "FakeTensor",
    "has_subclass",
    "has_tangents",
    "in_memory",
    "is_functionalized",
    "is_jit_tracing",
    "is_observed",
    "is_recorded",
    "is_transformed",
    "quick_apply",
    "unwrap",
]

NO_DISPATCH = Tensor.__torch_dispatch__
PLAIN: set[Any] = {Tensor, nn.Parameter, FakeTensor}


@recorded_as_constant  # compilers guard on it themselves
def is_transformed() -> bool:
    """Whether a transformation of `torch.func` or `torch.vmap` is active."""
    return torch._C._are_functorch_transforms_active()


def is_functionalized() -> bool:
    """Whether `torch.func.functionalize` is, for which `autograd.Function` has no rule."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in stack)


@recorded_as_constant
def has_tangents() -> bool:
    """Whether tensors may carry tangents: forward mode, `torch.func.jvp` too, has a level open."""
    return forward_ad._current_level >= 0


def is_jit_tracing() -> bool:
    """Whether `torch.jit.trace` records this call."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def is_recorded() -> bool:
    """Whether a dispatch mode, `make_fx`'s for one, or `torch.jit.trace` records each operator."""
    modes = torch._C._len_torch_dispatch_stack(), _len_torch_dispatch_stack_pre_dispatch()
    return any(modes) or torch._C._is_tracing()


def has_subclass(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them, except `FakeTensor`, handles torch's operators itself, as `DTensor`."""
    kinds: set[Any] = set(map(type, tensors)) - PLAIN
    return bool(kinds) and any(kind.__torch_dispatch__ is not NO_DISPATCH for kind in kinds)


def is_observed() -> bool:
    """Whether a transformation, forward mode or a recording sees each operator."""
    return is_transformed() or has_tangents() or is_recorded()


def in_memory(*tensors: Tensor) -> bool:
    """Whether reading these tensors' memory is all that has to be done with them."""
    observed = is_observed() or has_subclass(tensors)
    return not observed and all(map(torch._C._has_storage, tensors))  # mapped ones have none


def quick_apply(function: type[torch.autograd.Function], tensors: Iterable[Tensor] = ()) -> Any:
    """Give what applies a function where no transformation is active.

    Torch's own looks for wrappers that have outlived a transformation, for longer than kernels
    take for few tokens.

    Args:
        function: which.
        tensors: those that it is applied to, where they are not known to be `in_memory`.
    """
    if not all(map(torch._C._has_storage, tensors)):  # such a wrapper has none
        return function.apply
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def unwrap(tensor: Any) -> Any:
    """Remove the wrappers of `torch.func` from a tensor, which exposes mapped axes."""
    while isinstance(tensor, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
