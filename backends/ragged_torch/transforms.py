"""What torch does around a call, and tensors that are not what their type says.

Kernels read memory, which torch cannot follow: whoever hands over an address asks here first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import _len_torch_dispatch_stack_pre_dispatch
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad

__all__ = [
    "FakeTensor",
    "has_subclass",
    "has_tangents",
    "in_memory",
    "is_functionalized",
    "is_jit_tracing",
    "is_recorded",
    "is_transformed",
    "unwrap",
]

NO_DISPATCH = Tensor.__torch_dispatch__
PLAIN: set[Any] = {Tensor, nn.Parameter, FakeTensor}


@torch.compiler.assume_constant_result  # compilers guard it themselves
def is_transformed() -> bool:
    """Whether a transformation of `torch.func` or `torch.vmap` is under way."""
    return torch._C._are_functorch_transforms_active()


def is_functionalized() -> bool:
    """Whether `torch.func.functionalize`, for which no function of our own has a rule, is."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in stack)


@torch.compiler.assume_constant_result
def has_tangents() -> bool:
    """Whether tensors may carry tangents: forward mode, `torch.func.jvp` too, has a level open."""
    return forward_ad._current_level >= 0


def is_jit_tracing() -> bool:
    """Whether `torch.jit.trace` records this very call."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def is_recorded() -> bool:
    """Whether a mode, `make_fx`'s say, or `torch.jit.trace` is to see each operator."""
    modes = torch._C._len_torch_dispatch_stack(), _len_torch_dispatch_stack_pre_dispatch()
    return any(modes) or torch._C._is_tracing()


def has_subclass(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them handles torch's operators itself, as `DTensor` does; but `FakeTensor`."""
    kinds: set[Any] = set(map(type, tensors)) - PLAIN
    return bool(kinds) and any(kind.__torch_dispatch__ is not NO_DISPATCH for kind in kinds)


def in_memory(*tensors: Tensor) -> bool:
    """Whether all that happens to these tensors is that their memory is read."""
    around = is_transformed() or has_tangents() or is_recorded() or has_subclass(tensors)
    return not around and all(map(torch._C._has_storage, tensors))  # which mapped ones have not


def unwrap(tensor: Any) -> Any:
    """Take off what `torch.func` has put around a tensor; a mapped axis shows then."""
    while isinstance(tensor, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
