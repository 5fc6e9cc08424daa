"""Torch's packed kernels, over the rows that have steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.ops.packing import PackingOrder
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent.stack import LayerInputs, State, Weights, stack


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers over rows that are packed once."""
    lengths, (h0, c0) = inputs.lengths, inputs.state
    backend = load_backend(name)
    order = PackingOrder(lengths)
    batch_sizes = torch.from_numpy(order.batch_sizes)
    rows = asarray(order.rows[order.sorted_indices], like=inputs.x)

    def run_layer(weights: list[Weights], data: Tensor, state: State) -> tuple[Tensor, State]:
        return call_torch(inputs.mode, weights, data, state, batch_sizes)

    initial = (h0.index_select(1, rows), c0.index_select(1, rows))
    data, (h, c) = stack(run_layer, inputs, order.pack(backend, inputs.x), initial)
    y = order.unpack(backend, data)
    return y, (h0.index_copy(1, rows, h), c0.index_copy(1, rows, c))


def call_torch(
    mode: str,
    weights: list[Weights],
    data: Tensor,
    state: State,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer by torch's kernels: packed data, or `(time, batch, features)` without sizes."""
    run: Any = {
        "LSTM": torch.lstm,
        "GRU": torch.gru,
        "RNN_TANH": torch.rnn_tanh,
        "RNN_RELU": torch.rnn_relu,
    }[mode]
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
