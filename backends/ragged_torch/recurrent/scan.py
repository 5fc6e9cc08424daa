"""A layer as plain operations over the whole width, for every transformation of torch.

Its vjp is written out as well, so that the gradients of faster implementations have derivatives of
every order and kind, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import flip, zero_padding
from ragged.ops.masks import padding_mask
from ragged_torch.arrays import name
from ragged_torch.recurrent.cells import STEPS
from ragged_torch.recurrent.stack import (
    LayerInputs,
    Resets,
    Result,
    State,
    Weights,
    run_directions,
)

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers over padded rows."""
    return run_directions(partial(run_layer, resets=inputs.resets), inputs)


def run_layer(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
    resets: Resets | None = None,
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Full rows are computed from `x`, the state and the weights alone.
    """
    h, c, y = h0, c0, []
    fresh, initial = _fresh(resets, lengths, x.shape[1], reverse), _initial(resets, h0, c0)
    for valid, of_x, starts in zip(*_steps(weights, x, lengths, reverse), fresh, strict=True):
        before = _start_anew(starts, initial, (h, c))
        (new_h, new_c), _ = STEPS[mode].fwd(of_x, _of_h(weights, before[0]), before)
        if "weight_hr" in weights:
            new_h = new_h @ weights["weight_hr"].T
        h, c = _select(valid, new_h, h), _select(valid, new_c, c)
        y.append(h)
    stacked = torch.stack(y, 1) if y else _no_steps(x, h0, c0, weights)
    return read_steps(stacked, lengths, reverse), h, c


def _no_steps(x: Tensor, h0: Tensor, c0: Tensor, weights: Weights) -> Tensor:
    """Return outputs of width 0 that depend on all inputs, whose gradients are zeros."""
    total = sum(tensor.sum() for tensor in (x, h0, c0, *weights.values()))
    return x.new_zeros(*x.shape[:2], h0.shape[1]) + total


def vjp(
    mode: str,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    lengths: Lengths,
    *,
    reverse: bool,
    resets: Resets | None = None,
) -> tuple[Tensor, ...]:
    """Return the gradients of all inputs from those of y, h and c.

    Args:
        mode: of the cell.
        inputs: x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh.
        gradients: of y, h and c.
        lengths: of the rows.
        reverse: whether each row was read from its last valid step back.
        resets: of the rows.
    """
    x, h0, c0, *parameters = inputs
    weights = dict(zip(WEIGHTS, parameters, strict=True))
    fwd, bwd = STEPS[mode]
    states, entering, keeps = [(h0, c0)], [], []
    fresh, initial = _fresh(resets, lengths, x.shape[1], reverse), _initial(resets, h0, c0)
    valids, of_xs = _steps(weights, x, lengths, reverse)
    for valid, of_x, starts in zip(valids, of_xs, fresh, strict=True):
        before = _start_anew(starts, initial, states[-1])
        (h, c), kept = fwd(of_x, _of_h(weights, before[0]), before)
        states.append((_select(valid, h, states[-1][0]), _select(valid, c, states[-1][1])))
        entering.append(before)
        keeps.append(kept)
    grad_y, dh, dc = gradients
    carry = dc if mode == "LSTM" else torch.zeros_like(dh)  # of a GRU: what reaches h directly
    is_initial = resets is not None and resets.start == "initial"
    of_initial = [torch.zeros_like(dh), torch.zeros_like(carry)] if is_initial else []
    dx_products, dh_products = [], []
    grads = read_steps(grad_y, lengths, reverse).unbind(1)
    walk = zip(valids, fresh, keeps, entering, states[1:], grads, strict=True)
    for valid, starts, kept, before, (h, _), dy in reversed(list(walk)):
        of_x, of_h, new_carry = bwd(kept, before, h, dh + dy, carry)
        dx_products.append(_select(valid, of_x, torch.zeros_like(of_x)))
        dh_products.append(_select(valid, of_h, torch.zeros_like(of_h)))
        dh = _select(valid, of_h @ weights["weight_hh"], dh)
        carry = _select(valid, new_carry, carry)
        if starts is not None:  # what comes before has no part in it
            of_initial = [
                total + torch.where(starts, each, 0.0)
                for total, each in zip(of_initial, (dh, carry), strict=False)  # to zeros: none
            ]
            dh, carry = (torch.where(starts, 0.0, each) for each in (dh, carry))
    if is_initial:
        dh, carry = dh + of_initial[0], carry + of_initial[1]
    dh, dc = (dh, carry) if mode == "LSTM" else (dh + carry, dc)
    if not dx_products:
        return (torch.zeros_like(x), dh, dc, *map(torch.zeros_like, parameters))
    of_x, of_h = torch.stack(dx_products[::-1], 1), torch.stack(dh_products[::-1], 1)
    h_before = torch.stack([h for h, _ in entering], 1)
    of_weights = (
        _flat(of_x).T @ _flat(read_steps(x, lengths, reverse)),
        _flat(of_h).T @ _flat(h_before),
    )
    dx = read_steps(of_x @ weights["weight_ih"], lengths, reverse)
    return dx, dh, dc, *of_weights, of_x.sum((0, 1)), of_h.sum((0, 1))


def _steps(
    weights: Weights, x: Tensor, lengths: Lengths, reverse: bool
) -> tuple[Sequence[Tensor | None], Sequence[Tensor]]:
    """Return which rows have each step, None = all, and x's products with the weights."""
    of_x = read_steps(x, lengths, reverse) @ weights["weight_ih"].T  # hoisted: all steps in one
    if "bias_ih" in weights:
        of_x = of_x + weights["bias_ih"]
    if lengths.is_full:
        valid: Sequence[Tensor | None] = [None] * x.shape[1]
    else:
        valid = padding_mask(load_backend(name), lengths, like=x)[..., None].unbind(1)
    return valid, of_x.unbind(1)


def _fresh(
    resets: Resets | None, lengths: Lengths, width: int, reverse: bool
) -> Sequence[Tensor | None]:
    """Return which rows, `(batch, 1)`, start anew before each step that is read; None = none."""
    if resets is None:
        return [None] * width
    return fresh_steps(resets, lengths, reverse=reverse)[..., None].unbind(1)


def fresh_steps(resets: Resets, lengths: Lengths, *, reverse: bool) -> Tensor:
    """Mark the steps `(batch, time)`, as they are read, before which the state starts anew.

    A reversed row reaches a reset after the step that the reset precedes.
    """
    at = read_steps(resets.at, lengths, reverse)
    if reverse:
        at = torch.cat([torch.zeros_like(at[:, :1]), at[:, :-1]], 1)
    return zero_padding(load_backend(name), at, lengths)


def _initial(resets: Resets | None, h0: Tensor, c0: Tensor) -> tuple[Tensor | float, ...]:
    """Return the h and c that rows start anew from."""
    return (h0, c0) if resets is not None and resets.start == "initial" else (0.0, 0.0)


def _start_anew(starts: Tensor | None, initial: Sequence[Any], state: State) -> State:
    if starts is None:
        return state
    h, c = (torch.where(starts, new, old) for new, old in zip(initial, state, strict=True))
    return h, c


def _of_h(weights: Weights, h: Tensor) -> Tensor:
    product = h @ weights["weight_hh"].T
    return product + weights["bias_hh"] if "bias_hh" in weights else product


def read_steps(x: Tensor, lengths: Lengths, reverse: bool) -> Tensor:
    """Set padding to 0, and with `reverse` flip the valid steps of each row."""
    backend = load_backend(name)
    return flip(backend, x, lengths) if reverse else zero_padding(backend, x, lengths)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[2])


def _select(valid: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    return new if valid is None else torch.where(valid, new, old)
