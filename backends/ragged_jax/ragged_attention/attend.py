"""A checked call of attention, as an operator whose implementation is chosen at lowering."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from ragged.attend.call import AttentionCall, AttentionOptions, check_seed_form
from ragged.backend import load_backend
from ragged.kernels import available
from ragged.lengths import Lengths
from ragged_jax.arrays import name
from ragged_jax.dropped import as_words
from ragged_jax.ragged_attention import plain
from ragged_jax.ragged_attention.custom_op import attention_op
from ragged_jax.recurrent.layers import as_int32
from ragged_jax.recurrent.scan import computed_in
from ragged_jax.sharding import run_in_parts, vary_alike


def attend(
    q: Array,
    k: Array,
    v: Array,
    q_lengths: Lengths,
    k_lengths: Lengths,
    *,
    layout: str = "padded",
    causal: bool = False,
    diagonal: int = 0,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: Array | int | None = None,
    need_weights: bool = False,
) -> tuple[Array, Array | None]:
    """Run a checked call; see `ragged.protocol.Backend.attend`.

    A seed may be its lower and upper word, uint32 `(2,)`.
    """
    if isinstance(seed, Array):
        check_seed_form(seed, np.dtype(np.uint32), (2,))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    widths = q_lengths.width, k_lengths.width
    options = AttentionOptions(layout, *widths, causal, diagonal, float(scale), float(dropout))
    counts = [as_int32(each.to(load_backend(name)), each.width) for each in (q_lengths, k_lengths)]
    words = as_words(0 if seed is None or not dropout else seed)
    return _attend(
        (*counts, words, q, k, v),
        options=options,
        need_weights=need_weights,
        has_kernels=available(),
    )


@partial(jax.jit, static_argnames=("options", "need_weights", "has_kernels"))
def _attend(
    operands: tuple[Array, ...],
    *,
    options: AttentionOptions,
    need_weights: bool,
    has_kernels: bool,
) -> tuple[Array, Array | None]:
    q, axes = operands[3], operands[3].ndim - 2
    heads = operands[5].ndim - axes - 1

    def run(*operands: Array) -> tuple[Array, ...]:
        *held, q, k, v = operands
        dtype: Any = computed_in(q.dtype)
        computed = (*held, *(each.astype(dtype) for each in (q, k, v)))
        if need_weights:
            out, _, weights = plain.attend(*computed, options=options)
            return out.astype(q.dtype), weights.astype(q.dtype)
        call = AttentionCall("any", str(dtype), has_kernels, None, options)
        return (attention_op(*computed, call=call).astype(q.dtype),)

    def results(rows: Any) -> tuple[PartitionSpec, ...]:
        out = PartitionSpec(rows, *[None] * (axes + heads))
        return (out, PartitionSpec(rows, None, None, None))[: 2 if need_weights else 1]

    out, *weights = run_in_parts(run, q, results, *vary_alike(operands))
    return out, weights[0] if weights else None
