"""Which implementation runs attention on torch, in order of preference.

What a compiler records is one operator (`custom_op`), whose body asks this list too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.attend.call import AttentionCall, kernels_reason
from ragged.implementations import Implementation, choose, no_reason, reasons
from ragged.kernels import is_enabled
from ragged.lengths import Lengths
from ragged_torch.ragged_attention import cpp, plain
from ragged_torch.recurrent.cpp import computed_in
from ragged_torch.recurrent.dispatch import find_surrounding


def _kernels_reason(call: AttentionCall) -> str | None:
    return kernels_reason(call, lambda dtype: cpp.has_kernels(computed_in(getattr(torch, dtype))))


IMPLEMENTATIONS: tuple[Implementation[AttentionCall], ...] = (
    Implementation("kernels", _kernels_reason, cpp),
    Implementation("plain", no_reason, plain),
)


def attention_reasons(call: AttentionCall) -> dict[str, str | None]:
    """Say why each implementation, in order, does not run a call; None = it can."""
    return reasons(IMPLEMENTATIONS, call)


def takes_kernels(q: Tensor, surrounding: str | None = None, *, need_weights: bool = False) -> bool:
    """Whether kernels run a call with queries of a device and dtype."""
    dtype = str(q.dtype).removeprefix("torch.")
    compiler = surrounding is None and is_enabled()  # without a compiler nothing is loaded
    call = AttentionCall(q.device.type, dtype, compiler, surrounding, need_weights=need_weights)
    return choose(IMPLEMENTATIONS, call).name == "kernels"


def surroundings(lengths: tuple[Lengths, Lengths], tensors: tuple[Tensor, ...]) -> str | None:
    """Say what torch does around a call, as `find_surrounding`; None = nothing."""
    of_q, of_k = lengths
    return find_surrounding(of_k if of_k.is_traced else of_q, tensors)
