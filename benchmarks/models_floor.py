"""The floor of a model's training step: the matrix products of its tokens and pairs, no more.

The layers of our model on torch tell in one forward pass what they were called with. The floor then
makes their products one after the other: of a Linear one forward and two backward, of a recurrent
layer those of `floor`, of attention those of the pairs that are seen, row by row. No gates, no
norms, no optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from ragged_torch.attention import InterpretableAttention
from ragged_torch.layers import Linear
from ragged_torch.recurrent.layers import Recurrent
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.floor import torch_floor
from ragged import Lengths
from ragged.attend.call import AttentionOptions
from ragged.attend.explain import count_seen

Run = Callable[[], object]


def model_floor(module: nn.Module, step: Run) -> Run:
    """Take a training step of a model; return what makes its products."""
    runs: list[Run] = []
    with ExitStack() as hooks:
        for part in module.modules():
            if isinstance(part, (Linear, Recurrent, InterpretableAttention)):
                hook = part.register_forward_hook(partial(_record, runs), with_kwargs=True)
                hooks.callback(hook.remove)
        step()

    def run() -> None:
        for each in runs:
            each()

    return run


def _record(runs: list[Run], layer: Any, args: Any, kwargs: Any, output: Any) -> None:
    if isinstance(layer, Linear):
        runs.append(linear_floor(args[0], layer.weight))
    elif isinstance(layer, Recurrent):
        ends = kwargs.get("offsets")
        counts = args[1].host if ends is None else np.diff(ends.numpy())
        hidden, layers = layer.shape.hidden_size, layer.shape.num_layers
        case = Case(len(counts), int(counts.max()), args[0].shape[-1], hidden, layers)
        runs.append(torch_floor(case, counts, "cpu"))
    else:
        visible, size = args[2], args[0].shape[-1]
        heads = layer.num_heads, size // layer.num_heads
        runs.append(attention_floor(visible.queries.lengths, visible.keys, *heads, visible.causal))


def linear_floor(x: Tensor, weight: Tensor) -> Run:
    """Make the products of a Linear: the output, and the gradients of x and of the weight."""
    x, weight = x.detach().flatten(weight.ndim - 2, -2).contiguous(), weight.detach()
    y = x @ weight.mT
    of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)

    def run() -> None:
        torch.matmul(x, weight.mT, out=y)
        torch.matmul(y, weight, out=of_x)
        torch.matmul(y.mT, x, out=of_weight)

    return run


def attention_floor(of_q: Lengths, of_k: Lengths, heads: int, size: int, causal: bool) -> Run:
    """Make the products of the pairs that are seen, of heads that share their values."""
    options = AttentionOptions(causal=causal, diagonal=-1)
    rows = []
    for queries, keys in zip(of_q.host.tolist(), of_k.host.tolist(), strict=True):
        pairs = count_seen(Lengths([queries]), Lengths([keys]), options)
        seen = -(-pairs // max(queries, 1))
        q, k = torch.ones(heads, queries, size), torch.ones(heads, seen, size)
        rows.append((q, k, torch.empty(heads, queries, seen)))

    def run() -> None:
        for q, k, weights in rows:
            for _ in range(2):  # scores, forward and again backward
                torch.matmul(q, k.mT, out=weights)
            weights[0] @ k[0], q[0] @ k[0].mT, weights[0].mT @ q[0]  # of the values
            weights @ k, weights.mT @ q

    return run
