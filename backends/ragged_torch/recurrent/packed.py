"""Torch's packed kernels, over the rows that have steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.packing import PackingOrder
from ragged_torch.arrays import name
from ragged_torch.recurrent import cudnn
from ragged_torch.recurrent.layouts import count_active, find_parts
from ragged_torch.recurrent.stack import LayerInputs, State, Weights, stack


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers over rows that are packed once."""
    x, (h0, c0) = inputs.x, inputs.state
    batch_sizes = torch.from_numpy(PackingOrder(inputs.lengths).batch_sizes)
    rows, source = packing_order(inputs.lengths, batch_sizes, like=x)

    def run_layer(weights: list[Weights], data: Tensor, state: State) -> tuple[Tensor, State]:
        return cudnn.run_layer(inputs.mode, weights, data, state, batch_sizes)

    initial = (h0.index_select(1, rows), c0.index_select(1, rows))
    packed = x.flatten(0, 1).index_select(0, source)
    data, (h, c) = stack(run_layer, inputs, packed, initial)
    empty = data.new_zeros(x.shape[0] * x.shape[1], data.shape[1])
    y = empty.index_copy(0, source, data).unflatten(0, x.shape[:2])
    return y, (h0.index_copy(1, rows, h), c0.index_copy(1, rows, c))


def packing_order(lengths: Lengths, batch_sizes: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows that have steps, longest first, and where each packed step is in the batch.

    They are computed on the device of `like`: of what is on the host, sizes alone are read.

    Args:
        lengths: of the rows.
        batch_sizes: how many rows have each step, on the host.
        like: the array to be packed, `(batch, time, ...)`.
    """
    backend = load_backend(name)
    count, tokens = lengths.to(backend, like), lengths.tokens
    rows = count.argsort(descending=True, stable=True)[: int(batch_sizes[0])]
    active = count_active(count, len(batch_sizes))
    step, rank = find_parts(active, backend.arange_like(tokens, like=like))
    return rows, rows[rank] * lengths.width + step
