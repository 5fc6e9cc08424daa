"""A checked call of attention: by the first implementation that runs it, or recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.attend.call import AttentionOptions, check_seed_form
from ragged.lengths import Lengths
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
    """Run a checked call; see `ragged.protocol.Backend.attend`.

    A seed may be int64 without axes.
    """
    if isinstance(seed, Tensor):
        check_seed_form(seed, torch.int64, ())
    device = q.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        q, k, v = (each.to(dtype) for each in (q, k, v))
    dtype = q.dtype
    wide = computed_in(dtype)
    tokens = Tokens(q, k, v) if dtype is wide else Tokens(q.to(wide), k.to(wide), v.to(wide))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    widths = q_lengths.width, k_lengths.width
    options = AttentionOptions(layout, *widths, causal, diagonal, scale, dropout)
    lengths = q_lengths, k_lengths
    surrounding = surroundings(lengths, tokens)
    if not need_weights and surrounding == RECORDED and not is_exporting():
        counts = recorded_lengths(q_lengths, q), recorded_lengths(k_lengths, q)
        return attention_op(tokens, counts, _as_tensor(seed, options), options).to(dtype), None
    if takes_kernels(tokens.q, surrounding, need_weights=need_weights):
        host = torch.from_numpy(q_lengths.host.copy()), torch.from_numpy(k_lengths.host.copy())
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
