"""Attention as an operator, for compilers.

A compiler cannot read lengths, so attention is one operator, `ragged::attention`, whose body reads
them, checks them and chooses an implementation when it runs. The sizes of its results follow from
those of its inputs: one program serves every batch. On a GPU it reads no lengths, which would wait
for the device; there a row of a wrong length gives NaN.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ragged.attend.call import AttentionOptions
from ragged.lengths import Lengths, check_lengths
from ragged_torch.arrays import asarray
from ragged_torch.operators import refuse_tangents, register_backward, without_wrong_rows
from ragged_torch.ragged_attention import cpp, plain
from ragged_torch.ragged_attention.dispatch import takes_kernels
from ragged_torch.ragged_attention.plain import Tokens


def attention_op(
    tokens: Tokens,
    counts: tuple[Tensor, Tensor],
    seed: Tensor | None,
    options: AttentionOptions,
) -> Tensor:
    """Run a call as the operator.

    Args:
        tokens: its tensors, of one dtype.
        counts: the lengths of its rows, `(batch,)` int64, of queries and of keys.
        seed: int64, without axes; None = nothing is dropped.
        options: what else it is told.
    """
    out: Tensor
    out, _ = torch.ops.ragged.attention(*tokens, *counts, seed, *options)
    return out


def _lengths(counts: tuple[Tensor, Tensor], options: AttentionOptions) -> tuple[Lengths, Lengths]:
    """Check lengths, which a compiler cannot read, and refuse tangents, which would be lost."""
    refuse_tangents("attention")
    widths = options.q_width, options.k_width
    of_q, of_k = (
        Lengths.unread(count, width)
        if count.is_cuda
        else Lengths(check_lengths(count, width, function="attention"), width)
        for count, width in zip(counts, widths, strict=True)
    )
    return of_q, of_k


def _on_host(lengths: tuple[Lengths, Lengths]) -> tuple[Tensor, Tensor]:
    of_q, of_k = (asarray(each.host) for each in lengths)  # the checked copies
    return of_q, of_k


@torch.library.custom_op("ragged::attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_counts: Tensor,
    k_counts: Tensor,
    seed: Tensor | None,
    layout: str,
    q_width: int,
    k_width: int,
    causal: bool,
    diagonal: int,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return the result, and the log of each query's sum of exponentials.

    Args are those of `attention_op`, one by one.

    Raises:
        LengthsError: a length on the CPU is negative or above the width.
    """
    tokens, counts = Tokens(q, k, v), (q_counts, k_counts)
    options = AttentionOptions(layout, q_width, k_width, causal, diagonal, scale, dropout)
    lengths = _lengths(counts, options)
    if takes_kernels(q):
        return cpp.forward(tokens, _on_host(lengths), _value(seed), options)
    attended = plain.attend(tokens, lengths, seed, options, keeps_lse=True)
    out, lse = attended.out, cast(Tensor, attended.lse)
    for of_rows in lengths:
        out = without_wrong_rows(out, of_rows, options.layout)
    return out.contiguous(), lse.contiguous()


def _value(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed)


@attention.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor]:
    refuse_tangents("attention")
    q, v, tokens = inputs[0], inputs[2], Tokens(*inputs[:3])
    heads = () if tokens.is_shared else q.shape[-2:-1]
    return q.new_empty(*q.shape[:-2], *heads, v.shape[-1]), q.new_empty(q.shape[:-1])


def attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_counts: Tensor,
    k_counts: Tensor,
    seed: Tensor | None,
    layout: str,
    q_width: int,
    k_width: int,
    causal: bool,
    diagonal: int,
    scale: float,
    dropout: float,
    lse: Tensor,
    gradient: Tensor,
) -> list[Tensor]:
    """Return the gradients of q, k and v."""
    tokens, counts = Tokens(q, k, v), (q_counts, k_counts)
    options = AttentionOptions(layout, q_width, k_width, causal, diagonal, scale, dropout)
    lengths = _lengths(counts, options)
    if takes_kernels(q):
        call = tokens, _on_host(lengths), _value(seed), options
        return list(cpp.backward(*call, lse, gradient))
    detached = Tokens(*(each.detach() for each in tokens))
    results = plain.vjp(detached, lengths, seed, options, gradient)
    return [each.contiguous() for each in results]


def _fake_backward(*inputs: Any) -> list[Tensor]:
    return [each.new_empty(each.shape) for each in inputs[:3]]


_library = register_backward(attention_backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    _, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(*inputs[:6], lse)
    ctx.told = inputs[6:]


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    *inputs, lse = ctx.saved_tensors
    nothing = (None,) * (3 + len(ctx.told))
    gradient = gradients[0]
    if gradient is None:
        return None, None, None, *nothing
    if torch.is_grad_enabled():  # these gradients are to be differentiated
        options = AttentionOptions(*ctx.told)
        tokens, counts, seed = Tokens(*inputs[:3]), inputs[3:5], inputs[5]
        of_q, of_k = map(Lengths.unchecked, counts, (options.q_width, options.k_width))
        results = plain.vjp(tokens, (of_q, of_k), seed, options, gradient)
    else:
        call: Any = torch.ops.ragged.attention_backward
        results = call(*inputs, *ctx.told, lse, gradient)
    return *results, *nothing


attention.register_autograd(_backward, setup_context=_save)
