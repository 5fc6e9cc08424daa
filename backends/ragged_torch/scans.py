"""A loop of plain operations over the whole width: torch differentiates it as often as asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ragged.alignment import flip, select_valid
from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.masks import padding_mask
from ragged_torch.arrays import name


def run_direction(
    inputs: Sequence[Tensor], lengths: Lengths, *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Args:
        inputs: x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh.
        lengths: of the rows.
        reverse: read each row from its last valid step back.
    """
    x, h, c, weight_ih, weight_hh, bias_ih, bias_hh = inputs
    backend = load_backend(name)
    x = select_valid(backend, x, lengths)
    x = flip(backend, x, lengths) if reverse else x
    gates = x @ weight_ih.T + bias_ih + bias_hh
    mask = padding_mask(backend, lengths, like=x)[..., None]
    y = []
    for step in range(x.shape[1]):
        i, f, g, o = (gates[:, step] + h @ weight_hh.T).chunk(4, -1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * new_c.tanh()
        c, h = torch.where(mask[:, step], new_c, c), torch.where(mask[:, step], new_h, h)
        y.append(h)
    stacked = torch.stack(y, 1) if y else x.new_zeros(*x.shape[:2], h.shape[1])
    stacked = select_valid(backend, stacked, lengths)
    return (flip(backend, stacked, lengths) if reverse else stacked), h, c


def pull(
    inputs: Sequence[Tensor], gradients: Sequence[Tensor], lengths: Lengths, *, reverse: bool
) -> tuple[Tensor | None, ...]:
    """Return, differentiably, the gradients of all inputs that want one, from those of y, h, c."""
    with torch.enable_grad():
        outputs = run_direction(inputs, lengths, reverse=reverse)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(
        torch.autograd.grad(outputs, wanted, gradients, create_graph=True, allow_unused=True)
    )
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)
