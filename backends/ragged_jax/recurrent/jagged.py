"""Conversion between concatenated rows, `(tokens, features)`, and padded ones."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def positions(lengths: Array, width: int) -> Array:
    """Return the token index of each step `(batch, width)`; at padding it belongs to no row."""
    starts = jnp.cumsum(lengths) - lengths
    return starts[:, None] + jnp.arange(width, dtype=lengths.dtype)[None]


def to_padded(tokens: Array, positions: Array) -> Array:
    """Return tokens as `(batch, width, features)`; padding may hold anything."""
    if not tokens.shape[0]:
        return jnp.zeros((*positions.shape, *tokens.shape[1:]), tokens.dtype)
    return jnp.take(tokens, positions, axis=0, mode="clip")


def from_padded(x: Array, lengths: Array, positions: Array, capacity: int) -> Array:
    """Undo `to_padded`: tokens, and zeros beyond the last row's end."""
    valid = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
    targets = jnp.where(valid, positions, capacity)  # out of range, so dropped
    return jnp.zeros((capacity, *x.shape[2:]), x.dtype).at[targets].set(x, mode="drop")
