"""Attention in NumPy float64, one query and one key at a time: see `oracle`."""

from __future__ import annotations

import numpy as np

from ragged_conformance.oracle import Ints

BITS = 0xFFFFFFFF


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    q_lengths: Ints,
    k_lengths: Ints,
    *,
    causal: bool = False,
    diagonal: int = 0,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result, and the weights `(batch, heads, q_time, k_time)` before any is dropped."""
    batch, q_time, heads, size = q.shape
    scale = 1 / np.sqrt(size) if scale is None else scale
    dtype = np.result_type(q, k, v)
    weights = np.zeros((batch, heads, q_time, k.shape[1]), dtype)
    is_shared = v.ndim == 3
    out = np.zeros((batch, q_time, *(() if is_shared else (heads,)), v.shape[-1]), dtype)
    for row, (queries, keys) in enumerate(zip(q_lengths, k_lengths, strict=True)):
        for i in range(queries):
            visible = [j for j in range(keys) if not causal or j - i <= keys - queries + diagonal]
            for head in range(heads if visible else 0):
                scores = np.array([q[row, i, head] @ k[row, j, head] * scale for j in visible])
                powers = np.exp(scores - scores.real.max())
                for j, weight in zip(visible, powers / powers.sum(), strict=True):
                    weights[row, head, i, j] = weight
                    if dropout and is_dropped(seed, dropout, row, head, i, j):
                        continue
                    kept = weight / (1 - dropout)
                    if is_shared:
                        out[row, i] += kept * v[row, j] / heads
                    else:
                        out[row, i, head] += kept * v[row, j, head]
    return out, weights


def is_dropped(seed: int, rate: float, row: int, head: int, query: int, key: int) -> bool:
    """Whether a weight is dropped: a hash of the seed and of where it stands is below the rate."""
    first = _mix(_mix(seed & BITS) ^ (seed >> 32))
    second = _mix(first ^ 0x9E3779B9)
    for part in (row, head, query):
        first, second = _mix(first ^ part), _mix(second ^ part)
    bits = key ^ first
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D & BITS) ^ second
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & BITS
    return (bits ^ (bits >> 16)) < round(rate * 2**32)


def _mix(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x7FEB352D & BITS
    x = (x ^ (x >> 15)) * 0x846CA68B & BITS
    return x ^ (x >> 16)
