"""Attention by kernels of our own on a CPU: one call each way, of visible pairs alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ragged import kernels
from ragged.attend.call import AttentionOptions
from ragged.kernels.recipe import ATTENTION, ATTENTION_FUNCTIONS, SOURCES
from ragged.lengths import Lengths
from ragged_torch.addresses import find_team, readable, room_like
from ragged_torch.ragged_attention import plain
from ragged_torch.ragged_attention.plain import Tokens
from ragged_torch.recurrent.layouts import LAYOUTS
from ragged_torch.transforms import in_memory, quick_apply

SOURCE = kernels.HEADERS / SOURCES[ATTENTION]


def has_kernels(dtype: torch.dtype) -> bool:
    """Whether there are kernels for a dtype on a CPU."""
    return _load(dtype) is not None


def attend(
    tokens: Tokens, counts: tuple[Tensor, Tensor], seed: int, options: AttentionOptions
) -> Tensor:
    """Run a call, with its gradient if one is asked for: its result.

    Args:
        tokens: of the call, on the CPU and of one dtype, float32 or float64.
        counts: the lengths of its rows, `(batch,)` int64, of queries and of keys.
        seed: of what is dropped.
        options: of the call.
    """
    if torch.is_grad_enabled() and any(each.requires_grad for each in tokens):
        out: Tensor = quick_apply(_Attention, tokens)(*tokens, *counts, seed, options)
        return out
    return forward(tokens, counts, seed, options)[0]


def forward(
    tokens: Tokens, counts: tuple[Tensor, Tensor], seed: int, options: AttentionOptions
) -> tuple[Tensor, Tensor]:
    """Return the result, and the log of each query's sum of exponentials."""
    q, _, v = tokens
    heads = q.shape[-2:-1]
    out = q.new_empty(
        *q.shape[: 1 if q.ndim == 3 else 2], *(() if tokens.is_shared else heads), v.shape[-1]
    )
    lse = q.new_empty(q.shape[:-1])
    _call("attention_forward", tokens, counts, seed, options, (), (out, lse))
    return out, lse


def backward(
    tokens: Tokens,
    counts: tuple[Tensor, Tensor],
    seed: int,
    options: AttentionOptions,
    lse: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of q, k and v from that of the result."""
    q, _, v = tokens
    of_out = (*lse.shape[:-1], *(() if tokens.is_shared else lse.shape[-1:]), v.shape[-1])
    results = tuple(map(room_like, tokens))
    given = ((lse, q.shape[:-1]), (gradient, of_out))
    _call("attention_backward", tokens, counts, seed, options, given, results)
    return results


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        tokens, counts, (seed, options) = Tokens(*inputs[:3]), inputs[3:5], inputs[5:]
        out, lse = forward(tokens, counts, seed, options)
        ctx.save_for_backward(*inputs[:5], lse)
        ctx.seed, ctx.options = seed, options
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        q, k, v, *counts, lse = ctx.saved_tensors
        tokens, seed, options = Tokens(q, k, v), ctx.seed, ctx.options
        if torch.is_grad_enabled() or not in_memory(*gradients, *tokens, lse):
            results = differentiable_vjp(tokens, counts, seed, options, gradients[0])
        else:
            results = backward(tokens, tuple(counts), seed, options, lse, gradients[0])
        return (*results, None, None, None, None)


def differentiable_vjp(
    tokens: Tokens, counts: Sequence[Tensor], seed: int, options: AttentionOptions, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return what `backward` does, by plain operations, which have derivatives of their own."""
    widths = options.q_width, options.k_width
    of_q, of_k = map(Lengths.unchecked, counts, widths)
    drawn = torch.tensor(seed) if options.dropout else None
    return plain.vjp(tokens, (of_q, of_k), drawn, options, gradient)


def _call(
    function: str,
    tokens: Tokens,
    counts: Sequence[Tensor],
    seed: int,
    options: AttentionOptions,
    given: Sequence[tuple[Tensor, Sequence[int]]],
    outputs: Sequence[Tensor],
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    This is the one place where addresses leave Python: `outputs` were made for the call, and all
    else is checked.
    """
    q, k, v = tokens
    dtype, batch, (heads, size) = q.dtype, len(counts[0]), q.shape[-2:]
    places = [each.shape[:-2].numel() for each in (q, k)]
    axes = k.shape[:-1] if not tokens.is_shared else k.shape[:-2]
    shapes = (q.shape, (*k.shape[:-1], size), (*axes, v.shape[-1]))
    rows = [readable(each, (batch,), torch.int64) for each in counts]
    arrays = [readable(each, shape, dtype) for each, shape in zip(tokens, shapes, strict=True)]
    arrays += [readable(each, shape, dtype) for each, shape in given]
    sizes = (
        *(LAYOUTS.index(options.layout), batch),
        *(options.q_width, places[0], options.k_width, places[1]),
        *(heads, size, v.shape[-1], tokens.is_shared, options.causal, options.diagonal),
        *(seed, torch.get_num_threads(), True),
    )
    addresses = [array.data_ptr() for array in (*arrays, *outputs)]
    told = Sizes(*sizes), Reals(options.scale, options.dropout)
    run = getattr(_load(dtype), function)
    status = run(*told, *(each.data_ptr() for each in rows), Addresses(*addresses), find_team())
    kernels.raise_status(status, "attention")


Sizes = ctypes.c_int64 * 15  # what a function of the library takes, beside lengths and team
Reals = ctypes.c_double * 2
Addresses = ctypes.c_void_p * 8  # as many as the backward pass has


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    library = kernels.load(SOURCE, ATTENTION, str(dtype).removeprefix("torch."))
    for function in ATTENTION_FUNCTIONS if library else ():
        types = (Sizes, Reals, ctypes.c_void_p, ctypes.c_void_p, Addresses, ctypes.c_void_p)
        getattr(library, function).argtypes = types
    return library
