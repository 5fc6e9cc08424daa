"""Attention by kernels of our own on a CPU: a custom call each way, of visible pairs alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax import Array

from ragged import kernels
from ragged.attend.call import AttentionOptions
from ragged.kernels.recipe import ATTENTION, SOURCES
from ragged_jax.custom_calls import load_kernels
from ragged_jax.recurrent.cpp import LAYOUTS

SOURCE = kernels.HEADERS / SOURCES[ATTENTION]


def has_kernels(dtype: str) -> bool:
    """Whether there are kernels for a dtype."""
    return _load(dtype) is not None


def forward(*operands: Array, options: AttentionOptions, keep: bool = True) -> Sequence[Array]:
    """Return what `plain.forward` does."""
    q, k, v = operands[3:]
    of_out = (*q.shape[: 1 if q.ndim == 3 else 2], *(q.shape[-2:-1] if v.ndim == k.ndim else ()))
    shapes = [(*of_out, v.shape[-1]), q.shape[:-1]]
    out, lse = _call("attention_forward", shapes, operands, options)
    return (out, lse) if keep else (out,)


def backward(*operands: Array, options: AttentionOptions) -> Sequence[Array]:
    """Return what `plain.backward` does."""
    shapes = [each.shape for each in operands[3:6]]
    return _call("attention_backward", shapes, operands, options)


PASSES = {"attention_forward": forward, "attention_backward": backward}  # `plain` has the others


def _call(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    operands: Sequence[Array],
    options: AttentionOptions,
) -> Sequence[Array]:
    dtype = operands[3].dtype
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    call = jax.ffi.ffi_call(f"{name}_{_load(str(dtype))}", results, vmap_method="sequential")
    attributes: dict[str, Any] = {
        "layout": LAYOUTS[options.layout],
        "q_width": np.int64(options.q_width),
        "k_width": np.int64(options.k_width),
        "causal": options.causal,
        "diagonal": np.int64(options.diagonal),
        "scale": np.float64(options.scale),
        "dropout": np.float64(options.dropout),
    }
    return call(*operands[3:], *operands[:3], **attributes)


@cache
def _load(dtype: str) -> str | None:
    """Make the kernels of a dtype known to XLA; their version, None without."""
    return load_kernels(SOURCE, ATTENTION, dtype)
