"""The cells as plain operations: a step from its products with the weights, and its gradients.

fwd   from x's and h's products (each with its bias), h and c before:
      h, c, and the values that bwd needs
bwd   from these, h and c before, h, the gradient of h, and `carry`, the gradient that reaches h or
      c directly: the gradients of x's and of h's products, and `carry` of the step before
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ragged_torch.recurrent.stack import State

Kept = tuple[Tensor, ...]


class CellSteps(NamedTuple):
    """A step of a cell, forward and backward."""

    fwd: Callable[[Tensor, Tensor, State], tuple[State, Kept]]
    bwd: Callable[[Kept, State, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def _lstm_fwd(of_x: Tensor, of_h: Tensor, before: State) -> tuple[State, Kept]:
    i, f, g, o = (of_x + of_h).chunk(4, -1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * before[1] + i * g
    return (o * c.tanh(), c), (i, f, g, o, c)


def _lstm_bwd(
    kept: Kept, before: State, h: Tensor, dh: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    i, f, g, o, c = kept
    tanh_c = c.tanh()
    dc = carry + dh * o * (1 - tanh_c**2)
    di, df = dc * g * i * (1 - i), dc * before[1] * f * (1 - f)
    dg, do = dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)
    gates = torch.cat([di, df, dg, do], -1)
    return gates, gates, dc * f


def _gru_fwd(of_x: Tensor, of_h: Tensor, before: State) -> tuple[State, Kept]:
    x_r, x_z, x_n = of_x.chunk(3, -1)
    h_r, h_z, h_n = of_h.chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return ((1 - z) * n + z * before[0], before[1]), (r, z, n, h_n)


def _gru_bwd(
    kept: Kept, before: State, h: Tensor, dh: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r, z, n, h_n = kept
    dh = dh + carry
    dn = dh * (1 - z) * (1 - n**2)
    dr, dz = dn * h_n * r * (1 - r), dh * (before[0] - n) * z * (1 - z)
    return torch.cat([dr, dz, dn], -1), torch.cat([dr, dz, dn * r], -1), dh * z


def _tanh_fwd(of_x: Tensor, of_h: Tensor, before: State) -> tuple[State, Kept]:
    return ((of_x + of_h).tanh(), before[1]), ()


def _tanh_bwd(
    kept: Kept, before: State, h: Tensor, dh: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_both = dh * (1 - h**2)
    return of_both, of_both, carry


def _relu_fwd(of_x: Tensor, of_h: Tensor, before: State) -> tuple[State, Kept]:
    return ((of_x + of_h).relu(), before[1]), ()


def _relu_bwd(
    kept: Kept, before: State, h: Tensor, dh: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_both = torch.where(h > 0, dh, torch.zeros_like(dh))
    return of_both, of_both, carry


STEPS = {
    "LSTM": CellSteps(_lstm_fwd, _lstm_bwd),
    "GRU": CellSteps(_gru_fwd, _gru_bwd),
    "RNN_TANH": CellSteps(_tanh_fwd, _tanh_bwd),
    "RNN_RELU": CellSteps(_relu_fwd, _relu_bwd),
}
