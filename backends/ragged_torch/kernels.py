"""The LSTM's own kernels on a CPU: one call a layer and direction, forward and backward.

The first derivative is a kernel too; all further ones are those of plain operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ragged import kernels
from ragged.lengths import Lengths
from ragged_torch.arrays import asarray
from ragged_torch.scans import pull

Weights = dict[str, Tensor]
SOURCE = Path(__file__).with_suffix(".cpp")


def has_kernels(x: Tensor) -> bool:
    """Whether there are kernels for where `x` is and what it holds."""
    return x.device.type == "cpu" and _load(_computed_in(x.dtype)) is not None


def run_layer(
    weights: Weights, x: Tensor, lengths: Lengths, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Half precision is computed in float32.
    """
    zeros = x.new_zeros(4 * h0.shape[1])
    inputs = (
        *(x, h0, c0, weights["weight_ih"], weights["weight_hh"]),
        *(weights.get("bias_ih", zeros), weights.get("bias_hh", zeros)),
    )
    dtype = _computed_in(x.dtype)
    own = [tensor.to(dtype).contiguous() for tensor in inputs]
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in own)
    tokens = lengths.tokens if train else 0
    call: Any = _Layer.apply if train else forward
    y, h, c = call(*own, asarray(lengths.host), reverse, tokens)[:3]
    return y.to(x.dtype), h.to(x.dtype), c.to(x.dtype)


def forward(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    lengths: Tensor,
    reverse: bool,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        x: `(batch, time, features)`, like all arrays contiguous and of one dtype.
        h0, c0: `(batch, hidden)`.
        weight_ih, weight_hh, bias_ih, bias_hh: `torch.nn.LSTM`'s.
        lengths: `(batch,)` int64, checked.
        reverse: read each row from its last valid step back.
        tokens: room for what the backward pass needs, at least the sum of lengths; 0 = nothing.

    Returns:
        y `(batch, time, hidden)`, h, c, and what is kept: gates `(tokens, 4 * hidden)` and cells
        `(tokens, hidden)`.
    """
    hidden = h0.shape[1]
    y = x.new_empty(*x.shape[:2], hidden)
    kept = x.new_empty(tokens, 4 * hidden), x.new_empty(tokens, hidden)
    outputs = (y, torch.empty_like(h0), torch.empty_like(c0), *kept)
    inputs = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    _call("lstm_forward", lengths, reverse, inputs, outputs, room=tokens)
    return outputs


def backward(
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor],
    kept: Sequence[Tensor],
    lengths: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, h0, c0, both weights and either bias.

    Args:
        gradients: of y, h and c.
        inputs: x, h0, c0, weight_ih, weight_hh.
        kept: y, gates, cells.
        lengths, reverse: as in `forward`.
        wants_x: whether the gradient of x is wanted.
    """
    given = tuple(gradient.contiguous() for gradient in gradients)
    bias = inputs[3].new_empty(len(inputs[3]))
    found = (*map(torch.empty_like, inputs), bias)
    outputs = found if wants_x else (None, *found[1:])
    _call("lstm_backward", lengths, reverse, (*inputs, *kept, *given), outputs)
    return outputs  # type: ignore[return-value]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        y, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*inputs[:7], y, *kept, inputs[7])
        ctx.reverse = inputs[8]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        *saved, lengths = ctx.saved_tensors
        if torch.is_grad_enabled():  # these gradients are to be differentiated again
            valid = Lengths(lengths, saved[0].shape[1])
            again = pull(saved[:7], gradients[:3], valid, reverse=ctx.reverse)
            return (*again, None, None, None)
        wants_x = ctx.needs_input_grad[0]
        found = backward(gradients[:3], saved[:5], saved[7:], lengths, ctx.reverse, wants_x)
        return (*found, found[-1], None, None, None)  # either bias


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _call(
    name: str,
    lengths: Tensor,
    reverse: bool,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor | None, ...],
    room: int = 0,
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    `room` is how many tokens fit into what the forward pass keeps.
    """
    x, h0 = inputs[:2]
    library: Any = _load(x.dtype)
    sizes = (*x.shape, h0.shape[1], int(reverse), torch.get_num_threads(), room)
    addresses = [0 if array is None else array.data_ptr() for array in (*inputs, *outputs)]
    status = getattr(library, name)(
        (ctypes.c_int64 * len(sizes))(*sizes),
        ctypes.c_void_p(lengths.data_ptr()),
        (ctypes.c_void_p * len(addresses))(*addresses),
        _team(),
    )
    kernels.raise_status(status)


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    return kernels.load(SOURCE, str(dtype).removeprefix("torch."))


@cache
def _team() -> ctypes.c_void_p | None:
    """Find what runs a team of torch's own threads; None if torch was built without OpenMP."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None
