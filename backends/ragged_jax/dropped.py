"""Which weights are dropped: a hash of the seed and of where a weight stands in its row."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array


def as_words(seed: Array | int) -> Array:
    """Return a seed's lower and upper word, uint32 `(2,)`; an array has them already."""
    if isinstance(seed, int):
        return jnp.asarray(np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32))
    return seed


def keep_mask(words: Array, rate: float, shape: tuple[int, int, int, int]) -> Array:
    """Return where weights `(batch, heads, queries, keys)` are kept, as `attention.hpp` has it.

    Args:
        words: of the seed, `as_words`.
        rate: the share that is dropped.
        shape: that of the weights.

    Source: the function lowbias32 of C. Wellons, Hash Prospector (2018).
    """
    batch, heads, queries, keys = (jnp.arange(size, dtype=jnp.uint32) for size in shape)
    start = _mix(_mix(words[0]) ^ words[1])
    pair = [start, _mix(start ^ jnp.uint32(0x9E3779B9))]
    for parts in (batch[:, None, None], heads[None, :, None], queries[None, None, :]):
        pair = [_mix(word ^ parts) for word in pair]
    first, second = (word[..., None] for word in pair)
    bits = keys[None, None, None] ^ first
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D) ^ second
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    bits = bits ^ (bits >> 16)
    return bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
