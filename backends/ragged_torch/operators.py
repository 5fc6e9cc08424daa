"""What our operators for compilers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.errors import DerivativeError
from ragged.lengths import Lengths
from ragged_torch.arrays import name
from ragged_torch.transforms import FakeTensor, has_tangents


def as_recorded(tensor: Tensor, like: Tensor) -> Tensor:
    """Give a tensor as a mode of fake tensors takes it, where `like` is one of them."""
    if isinstance(like, FakeTensor) and not isinstance(tensor, FakeTensor):
        return like.fake_mode.from_tensor(tensor)
    return tensor


def recorded_lengths(lengths: Lengths, like: Tensor) -> Tensor:
    """Give lengths as a recorded operator takes them, int64: on a GPU with `like`, else on the CPU.

    On a GPU they stay on the device, for which nobody has to wait.
    """
    if not like.is_cuda:
        count = lengths.to(load_backend(name)).to("cpu", torch.int64)
    elif lengths.is_full:
        count = like.new_full((lengths.batch,), lengths.width, dtype=torch.int64)
    else:
        count = lengths.to(load_backend(name), like).to(torch.int64)
    return as_recorded(count, like)


def refuse_tangents(operator: str) -> None:
    """Refuse forward mode, whose tangents an operator would lose, by a `DerivativeError`."""
    if has_tangents():
        raise DerivativeError(
            f"ragged::{operator} has no forward mode; call the layer or function itself, not the "
            "recorded operator, or take reverse mode."
        )


def without_wrong_rows(out: Tensor, lengths: Lengths, layout: str = "padded") -> Tensor:
    """Set rows to NaN whose lengths would have been refused, had they been read."""
    if not lengths.is_traced:
        return out
    is_wrong = (lengths.leaf < 0) | (lengths.leaf > lengths.width)
    wrong = is_wrong.any() if layout == "jagged" else is_wrong.view(-1, *(1 for _ in out.shape[1:]))
    return out.masked_fill(wrong, torch.nan)


def register_backward(
    function: Callable[..., list[Tensor]], fake: Callable[..., list[Tensor]]
) -> torch.library.Library:
    """Register an operator so that autograd works inside its body, unlike in a `custom_op`.

    Args:
        function: its body, whose name it gets; its annotations are the schema.
        fake: gives results of the same sizes.

    Returns:
        The library, which has to live as long as the operator is to.
    """
    operator: Any = function.__name__
    library = torch.library.Library("ragged", "FRAGMENT")
    schema = torch.library.infer_schema(function, mutates_args=())
    library.define(f"{operator}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(operator, function, "CompositeExplicitAutograd")
    library.impl(operator, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"ragged::{operator}", fake, lib=library)
    return library
