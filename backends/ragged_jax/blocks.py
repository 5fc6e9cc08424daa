"""Blocks that the models share, on JAX."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx
from jax import Array

from ragged.initial import linear_values
from ragged_jax.arrays import asarray


class Dropout(nnx.Dropout):
    """Flax's dropout with a stream of its own, so that no caller has to pass one."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(rate, rngs=rngs or nnx.Rngs(dropout=0))


class Linear(nnx.Module):
    """`x @ weight.T + bias` with `weight (outputs, inputs)`, torch's initial values."""

    def __init__(self, inputs: int, outputs: int, *, rng: np.random.Generator) -> None:
        values = linear_values(rng, inputs, outputs)
        self.weight = nnx.Param(asarray(values["weight"]))
        self.bias = nnx.Param(asarray(values["bias"]))

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return x @ self.weight[...].T + self.bias[...]


class MLP(nnx.Module):
    """Linear, relu, dropout, Linear."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, dropout: float, *, rng: np.random.Generator
    ) -> None:
        self.hidden = Linear(inputs, hidden, rng=rng)
        self.output = Linear(hidden, outputs, rng=rng)
        self.dropout = Dropout(dropout)

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return self.output(self.dropout(jax.nn.relu(self.hidden(x))))
