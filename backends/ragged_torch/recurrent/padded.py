"""Torch's dense kernels over the whole width, with no effect of padding on a row's state.

h is gathered at each row's last step, before its padding. An LSTM's c is returned after the last
step alone, so an additional input marks the end of a row: it closes gates i and o and opens gate f,
so that c passes unchanged, forwards and backwards, in any dense kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.masks import padding_mask
from ragged_torch.arrays import name
from ragged_torch.recurrent import cudnn, scan
from ragged_torch.recurrent.scan import WEIGHTS, read_steps
from ragged_torch.recurrent.stack import (
    LayerInputs,
    Result,
    State,
    Weights,
    run_directions,
    stack,
)
from ragged_torch.transforms import in_memory

HOLD = 1e4  # sigmoid(-HOLD) is exactly 0 and sigmoid(HOLD) exactly 1, in every float dtype
LSTM_MODE = 2  # of aten's rnn functions


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers; on a GPU both directions of full rows in one call, whose weights are one."""
    if not (inputs.x.is_cuda and inputs.lengths.is_full):
        return run_directions(run_layer, inputs)

    def run_both(weights: list[Weights], x: Tensor, state: State) -> tuple[Tensor, State]:
        return cudnn.run_layer(inputs.mode, weights, x, state)

    y, state = stack(run_both, inputs, inputs.x.transpose(0, 1), inputs.state)
    return y.transpose(0, 1), state


def run_layer(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    steps = read_steps(x, lengths, reverse)
    if mode == "LSTM" and not lengths.is_full:
        ended = ~padding_mask(load_backend(name), lengths, like=x)
        steps = torch.cat([steps, ended[..., None].to(x.dtype)], -1)
        weights = {**weights, "weight_ih": _with_hold(weights["weight_ih"])}
    if mode == "LSTM" and _has_onednn(weights, x):
        y, c = _run_onednn(weights, steps, h0, c0)
    else:
        y, (_, c) = cudnn.run_layer(mode, [weights], steps.transpose(0, 1), (h0[None], c0[None]))
        y, c = y.transpose(0, 1), c[0]
    h = _last(y, lengths, h0)
    return read_steps(y, lengths, reverse), h, c


def _with_hold(weight_ih: Tensor) -> Tensor:
    """Append the weights of the input that is 1 at padding."""
    size = len(weight_ih) // 4
    holds = [weight_ih.new_full((size, 1), hold) for hold in (-HOLD, HOLD, 0.0, -HOLD)]
    return torch.cat([weight_ih, torch.cat(holds)], 1)


def _last(y: Tensor, lengths: Lengths, h0: Tensor) -> Tensor:
    """Gather h at each row's last step; a row of length 0 keeps its own."""
    count = lengths.to(load_backend(name), y).long()[:, None]
    last = (count - 1).clamp(0, y.shape[1] - 1)
    found = y.gather(1, last[..., None].expand(-1, 1, y.shape[2]))[:, 0]
    return torch.where(count > 0, found, h0)


def _has_onednn(weights: Weights, x: Tensor) -> bool:
    known = x.dtype == torch.float32 and x.device.type == "cpu" and "weight_hr" not in weights
    mkldnn = torch.backends.mkldnn
    return known and mkldnn.is_available() and bool(mkldnn.enabled)


def _run_onednn(weights: Weights, steps: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
    """Run the kernel of torch's own call, with derivatives of every kind and order."""
    zeros = steps.new_zeros(4 * h0.shape[1])
    inputs = (steps, h0, c0, *(weights.get(name, zeros) for name in WEIGHTS))
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, c, *_ = _Layer.apply(*inputs, train)
    return y, c


class _Layer(torch.autograd.Function):
    """OneDNN's two passes; further derivatives are those of plain operations.

    Not a custom operator, whose dispatch would cost almost 1 ms.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        steps, h0, c0, *weights, train = inputs
        arguments = [steps.transpose(0, 1).contiguous(), *weights, *_states(h0, c0)]
        with torch.set_grad_enabled(train):  # without it the kernel keeps no workspace
            y, _, c, workspace = torch.ops.aten.mkldnn_rnn_layer(
                *(*arguments, False, [], LSTM_MODE, h0.shape[1], 1, True, False, False, train)
            )
        kept = workspace.detach() if train else steps.new_empty(0)
        return y.detach().transpose(0, 1), c.detach()[0], kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs[:7], *output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_c: Tensor, _: Any) -> tuple[Any, ...]:
        *inputs, y, c, workspace = ctx.saved_tensors  # once: checkpointing recomputes otherwise
        steps, h0, c0, *weights = inputs
        if torch.is_grad_enabled() or not in_memory(grad_y, grad_c, *inputs):
            valid = Lengths([steps.shape[1]] * len(steps), steps.shape[1])
            gradients = (grad_y, torch.zeros_like(c0), grad_c)
            return (*scan.vjp("LSTM", inputs, gradients, valid, reverse=False), None)
        steps, y, grad_y = (tensor.transpose(0, 1).contiguous() for tensor in (steps, y, grad_y))
        of_state = _states(torch.zeros_like(grad_c), grad_c)
        results = torch.ops.aten.mkldnn_rnn_layer_backward(
            *(steps, *weights, *_states(h0, c0), y, y[-1:], c[None], grad_y, *of_state),
            *(False, LSTM_MODE, h0.shape[1], 1, True, True, False, [], False, workspace),
        )
        of_steps, of_ih, of_hh, of_bias, of_other_bias, of_h, of_c = results
        of_weights = (of_ih, of_hh, of_bias, of_other_bias)
        return of_steps.transpose(0, 1), of_h[0], of_c[0], *of_weights, None


def _states(h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return h[None].contiguous(), c[None].contiguous()
