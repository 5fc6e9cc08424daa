"""A layer as plain operations over the whole width: every transformation of torch is right for it.

Its pullback is written out as well, so that the gradients of faster implementations, too, have
derivatives of every order and kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import flip, zero_padding
from ragged.ops.masks import padding_mask
from ragged_torch.arrays import name
from ragged_torch.recurrent.stack import Result, Weights

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run_layer(
    weights: Weights, x: Tensor, lengths: Lengths, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Nothing but `x`, the state and the weights takes part where all rows are full.
    """
    h, c, y = h0, c0, []
    for valid, gates in _steps(weights, x, lengths, reverse):
        i, f, g, o = _activations(gates + h @ weights["weight_hh"].T)
        new_c = f * c + i * g
        new_h = o * new_c.tanh()
        if "weight_hr" in weights:
            new_h = new_h @ weights["weight_hr"].T
        h, c = _select(valid, new_h, h), _select(valid, new_c, c)
        y.append(h)
    stacked = torch.stack(y, 1) if y else _no_steps(x, h0, c0, weights)
    return read_steps(stacked, lengths, reverse), h, c


def _no_steps(x: Tensor, h0: Tensor, c0: Tensor, weights: Weights) -> Tensor:
    """Give outputs of width 0, of which all inputs have a gradient, of zeros."""
    everything = sum(each.sum() for each in (x, h0, c0, *weights.values()))
    return x.new_zeros(*x.shape[:2], h0.shape[1]) + everything


def pull(
    inputs: Sequence[Tensor], gradients: Sequence[Tensor], lengths: Lengths, *, reverse: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of all inputs from those of y, h and c.

    Args:
        inputs: x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh.
        gradients: of y, h and c.
        lengths: of the rows.
        reverse: whether each row was read from its last valid step back.
    """
    x, h0, c0, *weights = inputs
    weight_ih, weight_hh = weights[:2]
    own = dict(zip(WEIGHTS, weights, strict=True))
    hs, cs, activations, valids = [h0], [c0], [], []
    for valid, gates in _steps(own, x, lengths, reverse):
        i, f, g, o = _activations(gates + hs[-1] @ weight_hh.T)
        c = f * cs[-1] + i * g
        cs.append(_select(valid, c, cs[-1]))
        hs.append(_select(valid, o * c.tanh(), hs[-1]))
        activations.append((i, f, g, o))
        valids.append(valid)
    grad_y, grad_h, grad_c = gradients
    of_y = read_steps(grad_y, lengths, reverse)
    of_gates = []
    walk = zip(activations, valids, pairwise(cs), of_y.unbind(1), strict=True)
    for (i, f, g, o), valid, (c_before, c), of_output in reversed(list(walk)):
        tanh_c = c.tanh()
        of_h = grad_h + of_output
        of_c = grad_c + of_h * o * (1 - tanh_c**2)
        of_i, of_f = of_c * g * i * (1 - i), of_c * c_before * f * (1 - f)
        of_g, of_o = of_c * i * (1 - g**2), of_h * tanh_c * o * (1 - o)
        found = torch.cat([of_i, of_f, of_g, of_o], -1)
        of_gates.append(_select(valid, found, torch.zeros_like(found)))
        grad_h = _select(valid, found @ weight_hh, grad_h)
        grad_c = _select(valid, of_c * f, grad_c)
    if not of_gates:
        return (torch.zeros_like(x), grad_h, grad_c, *map(torch.zeros_like, weights))
    of_all, h_before = torch.stack(of_gates[::-1], 1), torch.stack(hs[:-1], 1)
    of_weight_ih = _flat(of_all).T @ _flat(read_steps(x, lengths, reverse))
    of_weight_hh = _flat(of_all).T @ _flat(h_before)
    of_x = read_steps(of_all @ weight_ih, lengths, reverse)
    of_bias = of_all.sum((0, 1))
    return of_x, grad_h, grad_c, of_weight_ih, of_weight_hh, of_bias, of_bias.clone()


def _steps(
    weights: Weights, x: Tensor, lengths: Lengths, reverse: bool
) -> Iterator[tuple[Tensor | None, Tensor]]:
    """What x adds to the gates at each step, and which rows have it; None = all."""
    # hoisted: all steps in one product
    gates = read_steps(x, lengths, reverse) @ weights["weight_ih"].T
    if "bias_ih" in weights:
        gates = gates + weights["bias_ih"] + weights["bias_hh"]
    if lengths.is_full:
        valid = [None] * x.shape[1]
    else:
        valid = padding_mask(load_backend(name), lengths, like=x)[..., None].unbind(1)
    yield from zip(valid, gates.unbind(1), strict=True)


def _activations(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, -1)
    return i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()


def read_steps(x: Tensor, lengths: Lengths, reverse: bool) -> Tensor:
    """Put 0 at padding, and turn the steps of each row round to read it in reverse, or back."""
    backend = load_backend(name)
    return flip(backend, x, lengths) if reverse else zero_padding(backend, x, lengths)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[2])


def _select(valid: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    return new if valid is None else torch.where(valid, new, old)
