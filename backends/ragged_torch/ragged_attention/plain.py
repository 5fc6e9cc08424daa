"""Attention by plain operations over padded rows: every device and transformation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ragged.attend.call import AttentionOptions
from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.masks import padding_mask
from ragged_torch.arrays import arange_like, name
from ragged_torch.dropped import keep_mask
from ragged_torch.recurrent.layouts import from_padded, to_padded


class Tokens(NamedTuple):
    """The tensors of a call.

    Args:
        q: `(batch, time, heads, size)`, or `(tokens, heads, size)` if jagged.
        k: as q, of the keys.
        v: as k with another size; or without heads, the same values for all of them.
    """

    q: Tensor
    k: Tensor
    v: Tensor

    @property
    def is_shared(self) -> bool:
        """Whether all heads have the same values."""
        return self.v.ndim < self.k.ndim


class Attended(NamedTuple):
    """What attention makes of a call.

    Args:
        out: where q has tokens, `(heads, value_size)`, or `(value_size,)` if values are shared.
        lse: the log of the sum of a query's exponentials, where q has tokens, `(heads,)`; None
            where nobody asked.
        weights: `(batch, heads, q_width, k_width)`, before any is dropped.
    """

    out: Tensor
    lse: Tensor | None
    weights: Tensor


def attend(
    tokens: Tokens,
    lengths: tuple[Lengths, Lengths],
    seed: Tensor | None,
    options: AttentionOptions,
    *,
    keeps_lse: bool = False,
) -> Attended:
    """Run a call; what is no token is selected away, before and after."""
    of_q, of_k = lengths
    capacity, layout, backend = tokens.q.shape[0], options.layout, load_backend(name)
    valid_q, valid_k = (padding_mask(backend, each, like=tokens.q) for each in lengths)
    q = _select(to_padded(tokens.q, layout, of_q), valid_q) * options.scale
    k, v = (_select(to_padded(each, layout, of_k), valid_k) for each in tokens[1:])
    visible = valid_q[:, :, None] & valid_k[:, None, :]
    if options.causal:
        visible = visible & seen_pairs(of_q, of_k, options, tokens.q)
    visible = visible[:, None]
    some = visible.any(-1, keepdim=True)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
    # Finite: a query that sees no key sees all alike here, and is set to 0 after.
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = torch.where(some, torch.softmax(scores, -1), 0.0)
    kept = weights if seed is None else _drop(weights, seed, options.dropout)
    mixed = kept.mean(1) @ v if tokens.is_shared else torch.einsum("bhqk,bkhd->bqhd", kept, v)
    out, lse = _flatten(_select(mixed, valid_q), layout, of_q, capacity), None
    if keeps_lse:
        found = torch.where(some[..., 0], torch.logsumexp(scores.detach(), -1), 0.0)
        lse = _flatten(found.transpose(1, 2), layout, of_q, capacity)
    return Attended(out, lse, weights)


def vjp(
    tokens: Tokens,
    lengths: tuple[Lengths, Lengths],
    seed: Tensor | None,
    options: AttentionOptions,
    gradient: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of q, k and v from that of what they give, differentiably."""

    def run(*each: Tensor) -> Tensor:
        return attend(Tokens(*each), lengths, seed, options).out

    results: tuple[Tensor, ...] = torch.func.vjp(run, *tokens)[1](gradient)
    return results


def seen_pairs(of_q: Lengths, of_k: Lengths, options: AttentionOptions, like: Tensor) -> Tensor:
    """Return which keys a causal query may see, `(batch, q_width, k_width)`."""
    backend = load_backend(name)
    queries, keys = (arange_like(each.width, like=like) for each in (of_q, of_k))
    shift = of_k.to(backend, like) - of_q.to(backend, like) + options.diagonal
    return keys - queries[:, None] <= shift[:, None, None]


def _select(padded: Tensor, valid: Tensor) -> Tensor:
    """Set padding to 0."""
    return torch.where(valid.view(*valid.shape, *(1 for _ in padded.shape[2:])), padded, 0.0)


def _flatten(x: Tensor, layout: str, lengths: Lengths, capacity: int) -> Tensor:
    """Turn padded rows of queries into tokens: 0 where none stands."""
    if layout == "padded":
        return x
    features: Sequence[int] = x.shape[2:]
    return from_padded(x.flatten(2), layout, lengths, capacity).view(capacity, *features)


def _drop(weights: Tensor, seed: Tensor, rate: float) -> Tensor:
    if rate == 1:
        return torch.zeros_like(weights)
    batch, heads, queries, keys = weights.shape
    kept = keep_mask(seed.to(weights.device), rate, (batch, heads, queries, keys))
    return torch.where(kept, weights / (1 - rate), 0.0)
