"""Torch's own functions of recurrent layers, as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ragged_torch.recurrent.stack import State, Weights

FUNCTIONS: dict[str, Any] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


def call_torch(
    mode: str,
    weights: list[Weights],
    data: Tensor,
    state: State,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer by torch's kernels: packed data, or `(time, batch, features)` without sizes."""
    run = FUNCTIONS[mode]
    flat = [tensor for direction in weights for tensor in direction.values()]
    options = (
        *(flat, "bias_ih" in weights[0]),
        *(1, 0.0),  # layers, dropout
        *(torch.is_grad_enabled(), len(weights) > 1),
    )
    hx = state if mode == "LSTM" else state[0]
    if batch_sizes is None:
        y, *final = run(data, hx, *options, False)  # not batch first
    else:
        y, *final = run(data, batch_sizes, hx, *options)
    return y, (final[0], final[1] if len(final) > 1 else state[1])
