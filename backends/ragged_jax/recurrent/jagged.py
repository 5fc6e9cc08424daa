"""Rows that lie end to end, `(tokens, features)`, and the same padded."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def places(lengths: Array, width: int) -> Array:
    """Where each step `(batch, width)` of the rows stands; at padding where no row's own does."""
    starts = jnp.cumsum(lengths) - lengths
    return starts[:, None] + jnp.arange(width, dtype=lengths.dtype)[None]


def to_padded(tokens: Array, places: Array) -> Array:
    """Give `(batch, width, features)` of tokens; padding may hold anything."""
    if not tokens.shape[0]:
        return jnp.zeros((*places.shape, *tokens.shape[1:]), tokens.dtype)
    return jnp.take(tokens, places, axis=0, mode="clip")


def from_padded(x: Array, lengths: Array, places: Array, capacity: int) -> Array:
    """Undo `to_padded`: tokens, and zeros beyond the last row's end."""
    valid = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
    targets = jnp.where(valid, places, capacity)  # out of range, so dropped
    return jnp.zeros((capacity, *x.shape[2:]), x.dtype).at[targets].set(x, mode="drop")
