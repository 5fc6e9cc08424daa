"""Which weights are dropped: a hash of the seed and of where a weight stands in its row."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 0xFFFFFFFF


def keep_mask(seed: Tensor, rate: float, shape: tuple[int, int, int, int]) -> Tensor:
    """Return where weights `(batch, heads, queries, keys)` are kept, as `attention.hpp` has it.

    Args:
        seed: int64, without axes.
        rate: the share that is dropped.
        shape: that of the weights.

    Source: the function lowbias32 of C. Wellons, Hash Prospector (2018).
    """
    batch, heads, queries, keys = (torch.arange(size, device=seed.device) for size in shape)
    first = _mix(_mix(seed & BITS) ^ (seed >> 32 & BITS))
    words = [first, _mix(first ^ 0x9E3779B9)]
    for parts in (batch[:, None, None], heads[:, None], queries):
        words = [_mix(word ^ parts) for word in words]
    first, second = (word[..., None] for word in words)
    bits = keys ^ first
    bits = _times(bits ^ (bits >> 16), 0x7FEB352D) ^ second
    bits = _times(bits ^ (bits >> 15), 0x846CA68B)
    bits = bits ^ (bits >> 16)
    return bits >= min(round(rate * 2**32), BITS)


def _mix(x: Tensor) -> Tensor:
    x = _times(x ^ (x >> 16), 0x7FEB352D)
    x = _times(x ^ (x >> 15), 0x846CA68B)
    return x ^ (x >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """The lower 32 bits of a product."""
    return x * factor & BITS
