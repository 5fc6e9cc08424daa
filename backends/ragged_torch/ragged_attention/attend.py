"""A checked call of attention: by the first implementation that runs it, or recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.attend.call import AttentionOptions
from ragged.lengths import Lengths
from ragged_torch.arrays import asarray
from ragged_torch.operators import recorded_lengths
from ragged_torch.ragged_attention import cpp, plain
from ragged_torch.ragged_attention.custom_op import attention_op
from ragged_torch.ragged_attention.dispatch import surroundings, takes_kernels
from ragged_torch.ragged_attention.plain import Tokens
from ragged_torch.recurrent import onnx_op
from ragged_torch.recurrent.cpp import computed_in
from ragged_torch.recurrent.dispatch import RECORDED


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_lengths: Lengths,
    k_lengths: Lengths,
    *,
    layout: str = "padded",
    causal: bool = False,
    diagonal: int = 0,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: Tensor | int | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Let the queries of each row attend to its keys; see `ragged.attention`.

    Args:
        q: `(batch, time, heads, size)`; or `(tokens, heads, size)`, rows end to end, if jagged.
            What is beyond the rows is never read, and 0 in the result.
        k: as q, of the keys.
        v: as k, with any size; or without heads, the same values for all: the result is then the
            mean over the heads.
        q_lengths: of the rows of q; their width is its time, or the longest that a row may be.
        k_lengths: of those of k and v.
        layout: "padded" or "jagged".
        causal: a query sees key j only where `j - i <= keys - queries + diagonal`, in its row.
        diagonal: see there; -1 leaves out the last key that 0 shows.
        scale: of the products of queries and keys; None = `size**-0.5`.
        dropout: the share of weights that is dropped, and the others scaled up.
        seed: of what is dropped: an integer, or int64 without axes.
        need_weights: return the weights too, before any is dropped, which costs their memory.

    Returns:
        The result, as q lies, and the weights `(batch, heads, q_width, k_width)` or None.
    """
    device = q.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        q, k, v = (each.to(dtype) for each in (q, k, v))
    dtype = q.dtype
    tokens = Tokens(*(each.to(computed_in(dtype)) for each in (q, k, v)))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    widths = q_lengths.width, k_lengths.width
    options = AttentionOptions(layout, *widths, causal, diagonal, scale, dropout)
    lengths = q_lengths, k_lengths
    surrounding = surroundings(lengths, tuple(tokens))
    if not need_weights and surrounding == RECORDED and not is_exporting():
        counts = recorded_lengths(q_lengths, q), recorded_lengths(k_lengths, q)
        return attention_op(tokens, counts, _as_tensor(seed, options), options).to(dtype), None
    if not need_weights and takes_kernels(tokens.q, surrounding):
        host = asarray(q_lengths.host), asarray(k_lengths.host)
        value = int(seed) if options.dropout and seed is not None else 0
        return cpp.attend(tokens, host, value, options).to(dtype), None
    attended = plain.attend(tokens, lengths, _as_tensor(seed, options), options)
    return attended.out.to(dtype), attended.weights.to(dtype) if need_weights else None


def is_exporting() -> bool:
    """Whether an exporter records this call: a program of plain operations runs everywhere."""
    return torch.compiler.is_exporting() or onnx_op.is_exporting()


def _as_tensor(seed: Tensor | int | None, options: AttentionOptions) -> Tensor | None:
    if not options.dropout or seed is None:
        return None
    return seed if isinstance(seed, Tensor) else torch.tensor(seed, dtype=torch.int64)
