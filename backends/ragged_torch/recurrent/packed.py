"""Torch's packed kernels, over the rows that have steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.ops.packing import PackingOrder
from ragged.recurrent.lstm import stack_layers
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent.stack import LayerInputs, State, Weights


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers over rows that are packed once."""
    parameters, x, lengths, state, between_layers = inputs
    backend = load_backend(name)
    order = PackingOrder(lengths)
    batch_sizes = torch.from_numpy(order.batch_sizes)
    rows = asarray(order.rows[order.sorted_indices], like=x)

    def run_layer(weights: list[Weights], data: Tensor, state: State) -> tuple[Tensor, State]:
        flat = [tensor for direction in weights for tensor in direction.values()]
        y, h, c = torch.lstm(
            data,
            batch_sizes,
            state,
            flat,
            has_biases="bias_ih" in weights[0],
            num_layers=1,
            dropout=0.0,
            train=torch.is_grad_enabled(),
            bidirectional=len(weights) > 1,
        )
        return y, (h, c)

    alive = (state[0].index_select(1, rows), state[1].index_select(1, rows))
    data = order.pack(backend, x)
    data, (h, c) = stack_layers(run_layer, parameters, data, alive, torch.cat, between_layers)
    y = order.unpack(backend, data)
    return y, (state[0].index_copy(1, rows, h), state[1].index_copy(1, rows, c))
