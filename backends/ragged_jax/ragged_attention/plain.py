"""Attention by plain operations over padded rows: every device and transformation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ragged.attend.call import AttentionOptions
from ragged_jax.dropped import keep_mask
from ragged_jax.precision import float32_products
from ragged_jax.recurrent import jagged


def attend(
    q_counts: Array,
    k_counts: Array,
    words: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    options: AttentionOptions,
) -> tuple[Array, Array, Array]:
    """Run a call; what is no token is selected away, before and after.

    Args:
        q_counts: the lengths of the rows of q, `(batch,)` int32.
        k_counts: of those of k and v.
        words: of the seed, uint32 `(2,)`.
        q: `(batch, time, heads, size)`, or `(tokens, heads, size)` if jagged.
        k: as q, of the keys.
        v: as k with another size; or without heads, the same values for all of them.
        options: what else it is told.

    Returns:
        The result, where q has tokens, `(heads, value_size)`, or `(value_size,)` if values are
        shared; the log of the sum of a query's exponentials, `(heads,)` there; and the weights
        `(batch, heads, q_width, k_width)` before any is dropped.
    """
    of_q, of_k = (
        _Rows(q_counts, options.q_width, q, options),
        _Rows(k_counts, options.k_width, k, options),
    )
    is_shared = v.ndim < k.ndim
    q, k, v = of_q.padded(q) * options.scale, of_k.padded(k), of_k.padded(v)
    visible = visible_pairs(q_counts, k_counts, options)[:, None]
    some = visible.any(-1, keepdims=True)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    # A query that sees no key sees all here, and is set to 0 after.
    scores = jnp.where(visible | ~some, scores, -jnp.inf)
    if not scores.shape[-1]:  # which has no maximum
        weights, lse = jnp.zeros_like(scores), jnp.zeros_like(scores, shape=scores.shape[:-1])
    else:
        weights = jnp.where(some, jax.nn.softmax(scores, -1), 0)
        lse = jnp.where(some[..., 0], jax.nn.logsumexp(scores, -1), 0)
    kept = _drop(weights, words, options.dropout)
    mixed = kept.mean(1) @ v if is_shared else jnp.einsum("bhqk,bkhd->bqhd", kept, v)
    lse = jax.lax.stop_gradient(lse)
    return of_q.flat(mixed), of_q.flat(jnp.swapaxes(lse, 1, 2)), weights


def visible_pairs(q_counts: Array, k_counts: Array, options: AttentionOptions) -> Array:
    """Return which keys each query sees, `(batch, q_width, k_width)`; padding sees none."""
    queries, keys = (
        jnp.arange(width, dtype=q_counts.dtype) for width in (options.q_width, options.k_width)
    )
    valid_q, valid_k = queries[None] < q_counts[:, None], keys[None] < k_counts[:, None]
    visible = valid_q[:, :, None] & valid_k[:, None, :]
    if options.causal:
        shift = k_counts - q_counts + options.diagonal
        visible = visible & ((keys[None] - queries[:, None])[None] <= shift[:, None, None])
    return visible


class _Rows:
    """Tokens of either layout as padded rows and back, with zeros where no token stands."""

    def __init__(self, counts: Array, width: int, like: Array, options: AttentionOptions) -> None:
        self.counts, self.capacity = counts, like.shape[0]
        self.valid = jnp.arange(width, dtype=counts.dtype)[None] < counts[:, None]
        self.positions = jagged.positions(counts, width) if options.layout == "jagged" else None

    def padded(self, x: Array) -> Array:
        if self.positions is not None:
            x = jagged.to_padded(x, self.positions)
        return self._select(x)

    def flat(self, x: Array) -> Array:
        if self.positions is None:
            return self._select(x)
        return jagged.from_padded(x, self.counts, self.positions, self.capacity)

    def _select(self, x: Array) -> Array:
        return jnp.where(self.valid.reshape(*self.valid.shape, *(1 for _ in x.shape[2:])), x, 0)


def _drop(weights: Array, words: Array, rate: float) -> Array:
    if not rate:
        return weights
    if rate == 1:
        return jnp.zeros_like(weights)
    batch, heads, queries, keys = weights.shape
    kept = keep_mask(words, rate, (batch, heads, queries, keys))
    return jnp.where(kept, weights / (1 - rate), 0)


@float32_products
def forward(*operands: Array, options: AttentionOptions, keep: bool = True) -> tuple[Array, ...]:
    """Return the result and the logs, of the operands of `attend`; without `keep`, no logs."""
    out, lse, _ = attend(*operands, options=options)
    return (out, lse) if keep else (out,)


@float32_products
def tangent(*operands: Array, moving: tuple[bool, ...], options: AttentionOptions) -> list[Array]:
    """Return the tangent of the result, linear in those of what moves among q, k and v."""
    held, inputs, given = operands[:3], operands[3:6], list(operands[7:])
    directions = [
        given.pop(0) if each else jnp.zeros_like(x) for each, x in zip(moving, inputs, strict=True)
    ]
    run: Any = partial(forward, *held, options=options, keep=False)
    return list(jax.jvp(run, inputs, tuple(directions))[1])


@float32_products
def backward(*operands: Array, options: AttentionOptions) -> list[Array]:
    """Return the gradients of q, k and v, from that of the result."""
    held, inputs, gradient = operands[:3], operands[3:6], operands[7]
    run: Any = partial(forward, *held, options=options, keep=False)
    return list(jax.vjp(run, *inputs)[1]((gradient,)))


PASSES: dict[str, Callable[..., Any]] = {
    "attention_forward": forward,
    "attention_tangent": tangent,
    "attention_backward": backward,
}
