"""What the kernels of gated residual networks do, by plain operations, which have derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ragged.kernels.gated import Given, Networks
from ragged.ops.interpolation import interpolation_matrix
from ragged_torch.dropped import keep_mask
from ragged_torch.parameters import spread, stretch_matrix


def run_networks(
    given: Given[Tensor],
    networks: Networks[Any],
    rate: float = 0.0,
    seed: int = 0,
    *,
    softmax: bool = False,
) -> Tensor:
    """Return the result of a call.

    Args:
        given: what tokens have.
        networks: what they learn.
        rate: the share that is dropped before the gate.
        seed: of what is dropped.
        softmax: whether the result is one.
    """
    x, weights, added, residual = given
    if networks.embed is not None:
        x = x.unsqueeze(-1) * networks.embed.squeeze(-1) + networks.embed_bias
        x = x.flatten(-2) if weights is None else x
    x = y = x if weights is None else x.movedim(-2, 0)
    if networks.hidden is not None:
        hidden = _linear(x, networks.hidden, networks.hidden_bias)
        hidden = nn.functional.elu(hidden if added is None else hidden + added)
        y = _linear(hidden, networks.output, networks.output_bias)
    if rate:
        tokens = (y.shape[0] if weights is not None else 1, -1, y.shape[-1])
        kept = keep_mask(torch.tensor(seed), rate, (1, *y.reshape(tokens).shape)).view(y.shape)
        y = torch.where(kept, y * (1 / (1 - rate) if rate < 1 else 0.0), 0.0)
    gated = nn.functional.glu(_linear(y, networks.gate, networks.gate_bias))
    if networks.scale is not None:
        doubled = torch.from_numpy(2 * interpolation_matrix(x.shape[-1], y.shape[-1])).to(x)
        stretch = stretch_matrix(networks.scale, doubled)
        residual = _norm(_linear(x, stretch.mT), networks.inner_weight, networks.inner_bias)
    values = _norm(gated + (x if residual is None else residual), networks.weight, networks.bias)
    if softmax:
        return torch.softmax(values, -1)
    return values if weights is None else torch.einsum("...f,f...d->...d", weights, values)


def _linear(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    if weight.ndim == 2:
        return nn.functional.linear(x, weight, bias)
    product = (x.flatten(1, -2) @ weight.mT).unflatten(1, x.shape[1:-1])
    return product if bias is None else product + spread(bias, x)


def _norm(x: Tensor, weight: Any, bias: Any) -> Tensor:
    normalised = nn.functional.layer_norm(x, x.shape[-1:])
    return torch.addcmul(spread(bias, x), normalised, spread(weight, x))
