"""Blocks that the models share, on torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ragged.initial import linear_values
from ragged_torch.arrays import asarray

Dropout = nn.Dropout


class Linear(nn.Module):
    """`x @ weight.T + bias` with `weight (outputs, inputs)`, torch's initial values."""

    def __init__(self, inputs: int, outputs: int, *, rng: np.random.Generator) -> None:
        super().__init__()
        values = linear_values(rng, inputs, outputs)
        self.weight = nn.Parameter(asarray(values["weight"]))
        self.bias = nn.Parameter(asarray(values["bias"]))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return nn.functional.linear(x, self.weight, self.bias)


class MLP(nn.Module):
    """Linear, relu, dropout, Linear."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, dropout: float, *, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.hidden = Linear(inputs, hidden, rng=rng)
        self.output = Linear(hidden, outputs, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return self.output(self.dropout(torch.relu(self.hidden(x))))
